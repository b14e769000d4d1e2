"""The internal snapshots of an image: listed, and opened to read.

Knows: the snapshot table. Refuses to know: how snapshots are made (``snapshots``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blockwright.device.base import BlockDevice, Context
from blockwright.errors import Corrupt, LimitExceeded, NotFound
from blockwright.format.qcow2.device import Qcow2Device, read_entries
from blockwright.format.qcow2.layout import (
    MAX_L1_BYTES,
    SPEC,
    ImageHeader,
    SnapshotExtra,
    SnapshotHeader,
    check_run,
)
from blockwright.format.qcow2.map import ClusterMap
from blockwright.units import MiB, align_up

MAX_TABLE_BYTES = 64 * MiB
MAX_EXTRA = 1024
"""Bytes of extra data of one snapshot."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot. ``size`` is that of its disk, ``vm_state`` the bytes of a machine's state behind it."""

    id: str
    name: str
    date_s: int
    date_ns: int
    vm_clock_ns: int
    vm_state: int
    size: int
    l1_offset: int
    l1_size: int
    extra: bytes = b""

    def pack(self) -> bytes:
        """Return the entry of the snapshot table."""
        identity, name = self.id.encode("utf-8", "surrogateescape"), self.name.encode("utf-8", "surrogateescape")
        extra = (
            SnapshotExtra(vm_state_size=self.vm_state, disk_size=self.size, icount=(1 << 64) - 1).pack()
            if not self.extra
            else self.extra
        )
        header = SnapshotHeader(
            l1_table_offset=self.l1_offset,
            l1_size=self.l1_size,
            id_size=len(identity),
            name_size=len(name),
            date_s=self.date_s,
            date_ns=self.date_ns,
            vm_clock_ns=self.vm_clock_ns,
            vm_state_size=min(self.vm_state, 0xFFFF_FFFF),
            extra_size=len(extra),
        )
        packed = header.pack() + extra + identity + name
        return packed.ljust(align_up(len(packed), 8), b"\0")


def read_snapshots(file: BlockDevice, image: ImageHeader) -> list[Snapshot]:
    """Return the snapshots in the order of the table. Raises Corrupt, LimitExceeded, OSError."""
    return read_snapshot_table(file, image)[0]


def read_snapshot_table(file: BlockDevice, image: ImageHeader) -> tuple[list[Snapshot], int]:
    """Return the snapshots and the bytes of their table."""
    position = start = image.record.snapshots_offset
    found = []
    for number in range(image.record.nb_snapshots):
        snapshot, position = _read_one(file, image, number, position)
        if position - start > MAX_TABLE_BYTES:
            raise LimitExceeded("qcow2 snapshot table: expected at most 64 MiB", offset=start)
        found.append(snapshot)
    return found, position - start


def _read_one(file: BlockDevice, image: ImageHeader, number: int, position: int) -> tuple[Snapshot, int]:
    if position + SnapshotHeader.SIZE > file.size:
        raise Corrupt(
            f"qcow2 snapshot {number}: expected to lie within the {file.size} bytes of the file",
            offset=position,
            spec=SPEC,
        )
    header = SnapshotHeader.parse(file.read(position, SnapshotHeader.SIZE))
    if header.extra_size > MAX_EXTRA:
        raise LimitExceeded(
            f"qcow2 snapshot {number}: expected at most {MAX_EXTRA} bytes of extra data, found {header.extra_size}",
            offset=position + 36,
        )
    end = position + SnapshotHeader.SIZE + header.extra_size + header.id_size + header.name_size
    if end > file.size:
        raise Corrupt(
            f"qcow2 snapshot {number}: expected an end within the file, found {end}", offset=position, spec=SPEC
        )
    rest = file.read(position + SnapshotHeader.SIZE, end - position - SnapshotHeader.SIZE)
    extra, names = rest[: header.extra_size], rest[header.extra_size :]
    known = SnapshotExtra.parse(extra[:24].ljust(24, b"\0"))
    check_run(
        header.l1_table_offset,
        header.l1_size * 8,
        image.geometry,
        file.size,
        f"L1 table of snapshot {number}",
        position,
    )
    size = known.disk_size if header.extra_size >= 16 else image.record.size
    if header.l1_size * 8 > MAX_L1_BYTES or header.l1_size < image.geometry.l1_entries(size):
        raise Corrupt(
            f"qcow2 snapshot {number}: an L1 table of {header.l1_size} entries does not fit a disk of {size} bytes",
            offset=position + 8,
            spec=SPEC,
        )
    return Snapshot(
        names[: header.id_size].decode("utf-8", "surrogateescape"),
        names[header.id_size :].decode("utf-8", "surrogateescape"),
        header.date_s,
        header.date_ns,
        header.vm_clock_ns,
        known.vm_state_size if header.extra_size >= 8 else header.vm_state_size,
        size,
        header.l1_table_offset,
        header.l1_size,
        extra,
    ), align_up(end, 8)


def find_snapshot(snapshots: list[Snapshot], name: str) -> Snapshot:
    """Return the snapshot of this id, or else of this name. Raises NotFound."""
    for wanted in (
        [each for each in snapshots if each.id == name],
        [each for each in snapshots if each.name == name],
    ):
        if wanted:
            return wanted[0]
    known = ", ".join(repr(each.name or each.id) for each in snapshots[:20])
    raise NotFound(f"snapshot {name!r}: {f'expected one of {known}' if known else 'the image has none'}")


def open_snapshot(
    file: BlockDevice, image: ImageHeader, snapshot: Snapshot, *, below: BlockDevice | None = None, owns: bool = True
) -> Qcow2Device:
    """Return the disk as it was when the snapshot was made, to read."""
    l1 = read_entries(file, snapshot.l1_offset, snapshot.l1_size)
    clusters = ClusterMap(file, image.geometry, l1, snapshot.l1_offset, has_zero=image.record.version >= 3)
    return _Past(file, image, clusters, snapshot.size, below=below, owns=owns)


class _Past(Qcow2Device):
    """The disk of a snapshot: bitmaps of the image say nothing of it."""

    @property
    def contexts(self) -> Mapping[str, Context]:
        return {}
