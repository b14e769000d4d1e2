"""A planned disk as a device: the table's bytes, and what each partition holds at its place.

Knows: composition. Refuses to know: the kind of table, and what is in the partitions.
"""

from __future__ import annotations

from collections.abc import Iterable

from blockwright.device.base import BlockDevice
from blockwright.device.concat import Concat
from blockwright.device.planned import PlannedDevice, SegmentTable


def open_disk(size: int, segments: SegmentTable, contents: Iterable[tuple[int, BlockDevice]]) -> BlockDevice:
    """Return a device of ``size`` bytes with the table's ``segments`` and each (start, device) of ``contents``.

    What neither covers is a hole. The disk owns the devices: closing it closes them. Raises OutOfRange where
    they overlap each other or the table.
    """
    segments.freeze()
    parts = list(contents)
    for start, length, source, within in zip(
        segments.starts, segments.lengths, segments.sources, segments.source_offsets, strict=True
    ):
        piece = SegmentTable()
        piece.add(0, length, source, within)
        parts.append((start, PlannedDevice(length, piece)))
    return Concat(parts, size)
