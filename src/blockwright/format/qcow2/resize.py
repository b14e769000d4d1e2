"""Changes the size of a disk in a qcow2 image.

Smaller: what lies behind is freed before the header says so. Larger: what the last cluster holds behind the old end,
and what a backing file would show there, is made zeros first; an L1 table that is too short moves.

Knows: the order of these steps. Refuses to know: how clusters are freed and tables written.
"""

from __future__ import annotations

from array import array
from typing import Protocol

from blockwright.device.base import BlockDevice
from blockwright.errors import UsageError
from blockwright.format.qcow2.layout import MAX_L1_BYTES, Geometry, entry_bytes
from blockwright.format.qcow2.update import Updates, WritableMap


class Move(Protocol):
    """Changes fields of the header."""

    def __call__(self, **values: int) -> None:
        """Change them durably and at once."""


def grow_l1(file: BlockDevice, updates: Updates, geometry: Geometry, size: int, move: Move) -> None:
    """Return when the L1 table is long enough for ``size`` bytes; ``move`` has the header say where a new one is.

    Raises UsageError for a disk that the clusters are too small for.
    """
    clusters: WritableMap = updates.map
    needed, present = geometry.l1_entries(size), len(clusters.l1)
    if needed * 8 > MAX_L1_BYTES:
        most = MAX_L1_BYTES // 8 * geometry.l2_span
        raise UsageError(
            f"qcow2: clusters of {geometry.cluster} bytes make a disk of at most {most} bytes, not {size}"
        )
    if needed <= present:
        return
    count = geometry.clusters(needed * 8)
    with updates.lock:
        offset = updates.counts.allocate_run(count) << geometry.cluster_bits
    with updates.settled():  # and so the clusters count on the disk
        table = clusters.l1 + array("Q", bytes(8 * (needed - present)))
        file.write(offset, entry_bytes(table).ljust(count * geometry.cluster, b"\0"))
        file.flush()
        move(l1_size=needed, l1_table_offset=offset)
        old = clusters.l1_offset >> geometry.cluster_bits
        updates.loosen(range(old, old + geometry.clusters(present * 8)))
        clusters.l1, clusters.l1_offset = table, offset
