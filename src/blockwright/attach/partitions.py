"""Partitions of an image, a loop device or any disk as block devices of their own.

Whatever is made is on record before it is, so what a killed process left can be told and removed; what others made,
or the kernel found by itself, is never removed.

Knows: tables, records, and which means is taken. Refuses to know: how a partition becomes a device (``means``).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from blockwright.attach import means as by
from blockwright.attach.means import Disk, Mapping, Means
from blockwright.device.file import open_path
from blockwright.errors import BlockwrightError, InUse, NotFound, Unavailable
from blockwright.oci.reference import meant_as_disk
from blockwright.resolve import naming, sector_size_of
from blockwright.system.linux import blkdev, dm, loop
from blockwright.system.linux.dm import nodes
from blockwright.system.linux.ioctl import require_linux
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.registry import Record, Registry
from blockwright.table import read as tables
from blockwright.table.partition import AnyPartition, AnyTable

_KIND = "map"


@dataclass(frozen=True, slots=True)
class Mapped:
    """The partitions of ``device``; ``attached`` says that it is a loop device made for them, and goes with them.

    As a context manager the mappings go with the block.
    """

    device: str
    partitions: tuple[Mapping, ...]
    attached: bool

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove(self.device)


def table_of(path: str | os.PathLike[str], *, logger: Logger | None = None) -> AnyTable:
    """Return the partition table of an image or a block device. Raises NotFound, FormatError."""
    name = os.fspath(path)
    try:
        device = open_path(name)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{name}: no such file or device{meant_as_disk(os.fsdecode(name))}") from None
    with device, naming(name):
        table = tables.read(device, sector_size=sector_size_of(device))
    told(logger).debug("%s: %s with %d partitions", name, table.kind, len(table.partitions))
    return table


def add(
    target: str | os.PathLike[str],
    *,
    means: Means | None = None,
    read_only: bool = False,
    owned: bool = False,
    logger: Logger | None = None,
) -> Mapped:
    """Return every partition of ``target`` as a block device, or none where one fails.

    ``target`` is a block device, or an image, which is attached to a loop device first and detached again by
    ``remove``. Without ``means`` the kernel's partitions are taken where they are there and right, else they are
    added by BLKPG, else, where the disk cannot have any, by device-mapper. With ``owned`` they go with this process:
    ``gc`` removes them when it has died. What is mapped already is told as it is.

    Raises NotFound; FormatError for a table that does not hold; InUse where a name, a range or the image is taken;
    Unavailable without privilege, or where the kernel has no means; KernelError.
    """
    path = os.fspath(target)
    require_linux("map", path)
    table = table_of(path)
    with Registry(_KIND).locked():
        return _add_any(path, table, means, read_only=read_only, owned=owned, logger=logger)


def _add_any(
    path: str, table: AnyTable, means: Means | None, *, read_only: bool, owned: bool, logger: Logger | None
) -> Mapped:
    if stat.S_ISBLK(os.stat(path).st_mode):
        return _add(by.disk_of(path), table, means, read_only=read_only, owned=owned, logger=logger)
    for found in _of_image(path):
        return Mapped(found.disk.path, tuple(found.mappings), attached=True)
    device = loop.attach(
        path,
        read_only=read_only,
        block_size=table.sector_size,
        partition_scan=means is Means.KERNEL,
        owned=True,
        logger=logger,
    )
    try:
        return _add(
            by.disk_of(device.path), table, means, read_only=read_only, owned=owned, logger=logger, device=device
        )
    except BaseException:
        device.detach()
        raise


def _add(
    disk: Disk,
    table: AnyTable,
    means: Means | None,
    *,
    read_only: bool,
    owned: bool,
    logger: Logger | None,
    device: loop.LoopDevice | None = None,
) -> Mapped:
    wanted: Sequence[AnyPartition] = table.partitions
    # A device attached for the job shows what the kernel found at once, and is on record like all that is made.
    present = _present(disk, wanted, means) if device is None else None
    if present is not None:
        return Mapped(disk.path, tuple(present), attached=False)
    record = _Record(disk, device)
    record.put(wanted, owned=True)
    try:
        made = _make(disk, wanted, means, read_only=read_only)
    except BaseException:
        record.forget()
        raise
    if device is not None and not owned:
        device.keep()
    record.put(made, owned=owned, means=made[0].means if made else Means.BLKPG)
    for each in made:
        told(logger).info("mapped partition %d of %s as %s", each.number, disk.path, each.path)
    return Mapped(disk.path, tuple(made), attached=device is not None)


def _present(disk: Disk, wanted: Sequence[AnyPartition], means: Means | None) -> list[Mapping] | None:
    """Return the mappings where they are all there already, whoever made them."""
    places = [(each.number, each.start, each.size) for each in wanted]
    if means is not Means.DEVICE_MAPPER:
        found = [each for each in by.kernel_mappings(disk) if (each.number, each.start, each.size) in places]
        if [(each.number, each.start, each.size) for each in found] == places and found:
            return found
    if means in (None, Means.DEVICE_MAPPER):
        try:
            with dm.Mapper() as mapper:
                found = by.mapped(disk, mapper)
        except Unavailable:
            return None
        if [(each.number, each.start, each.size) for each in found] == places and found:
            return found
    return None


def _make(disk: Disk, wanted: Sequence[AnyPartition], means: Means | None, *, read_only: bool) -> list[Mapping]:
    if means is not None:
        return by.make(disk, wanted, means, read_only=read_only)
    try:
        return by.make(disk, wanted, Means.BLKPG, read_only=read_only)
    except InUse:
        raise
    except BlockwrightError as error:
        try:
            return by.make(disk, wanted, Means.DEVICE_MAPPER, read_only=read_only)
        except Unavailable:
            raise error from None  # what the disk itself said is the reason


class _Record:
    """What is made over one disk."""

    def __init__(self, disk: Disk, device: loop.LoopDevice | None) -> None:
        self._registry = Registry(_KIND)
        self._name = disk.name.replace("/", "!")
        self._fields: dict[str, Any] = {
            "disk": [disk.path, disk.name, disk.major, disk.minor, disk.sequence],
            "attached": None if device is None else [device.number, device.sequence],
        }

    def put(self, partitions: Sequence[AnyPartition | Mapping], *, owned: bool, means: Means | None = None) -> None:
        places = [[each.number, each.start, each.size] for each in partitions]
        self._fields |= {"places": places, "means": means and means.value}
        self._registry.put(self._name, self._fields, owned=owned)

    def forget(self) -> None:
        self._registry.remove(self._name)


@dataclass(frozen=True, slots=True)
class _Found:
    """A record whose disk is still the one it was, with the mappings that are still there."""

    record: Record
    disk: Disk
    mappings: list[Mapping]
    attached: tuple[int, int | None] | None


def _found(record: Record) -> _Found | None:
    """Return what is left of what a record tells, None where its disk is gone or another now."""
    fields = record.fields
    try:
        path, _, major, minor, sequence = fields["disk"]
        places = {(int(number), int(start), int(size)) for number, start, size in fields["places"]}
        attached = None if fields["attached"] is None else (int(fields["attached"][0]), fields["attached"][1])
        disk = by.disk_of(str(path))
    except (KeyError, TypeError, ValueError, NotFound, BlockwrightError):
        return None
    if not record.current or [disk.major, disk.minor, disk.sequence] != [major, minor, sequence]:
        return None
    kind = fields.get("means")
    there = _kernel_ones(disk, places, kind) + _mapped_ones(disk, kind)
    return _Found(record, disk, there, attached)


def _kernel_ones(disk: Disk, places: set[tuple[int, int, int]], kind: object) -> list[Mapping]:
    if kind == Means.DEVICE_MAPPER.value:
        return []
    means = Means.KERNEL if kind == Means.KERNEL.value else Means.BLKPG
    return [each for each in by.kernel_mappings(disk, means) if (each.number, each.start, each.size) in places]


def _mapped_ones(disk: Disk, kind: object) -> list[Mapping]:
    if kind not in (None, Means.DEVICE_MAPPER.value):
        return []
    try:
        with dm.Mapper() as mapper:
            return by.mapped(disk, mapper)
    except Unavailable:
        return []


def _records() -> Iterator[_Found]:
    """Yield what is left of what is on record; records of what is gone are removed."""
    registry = Registry(_KIND)
    for record in list(registry.records()):
        found = _found(record)
        if found is not None:
            yield found
        elif not record.alive:
            registry.remove(record.name)


def _of_image(path: str) -> Iterator[_Found]:
    """Yield what was mapped of an image that was attached for it, by whatever name."""
    paths = {each.path for each in loop.find(path)}
    for found in _records():
        if found.attached is not None and found.disk.path in paths and found.record.owner is None:
            yield found


def remove(target: str | os.PathLike[str], *, logger: Logger | None = None) -> list[str]:
    """Have none of the mappings that were made here over ``target``; return the paths of those that were there.

    A loop device that was attached for them is detached. What others made stays, and what is gone already is no
    error. Raises InUse, naming who, where a partition is held: then all of them stay. Raises NotFound without such a
    target; Unavailable, KernelError.
    """
    path = os.fspath(target)
    require_linux("unmap", path)
    if not os.path.exists(path):
        raise NotFound(f"{path}: no such file or device")
    is_disk = stat.S_ISBLK(os.stat(path).st_mode)
    numbers = {_device_number(path)} if is_disk else {_device_number(each.path) for each in loop.find(path)}
    gone: list[str] = []
    with Registry(_KIND).locked():
        for found in list(_records()):
            if (found.disk.major, found.disk.minor) in numbers:
                gone += _remove(found, logger)
    return gone


def _device_number(path: str) -> tuple[int, int]:
    major, _, minor = blkdev.text(f"{blkdev.folder_of(path)}/dev").partition(":")
    return int(major), int(minor)


def _remove(found: _Found, logger: Logger | None) -> list[str]:
    gone = by.unmake(found.disk, found.mappings)
    if found.record.fields.get("means") in (None, Means.DEVICE_MAPPER.value):
        for place in found.record.fields["places"]:
            nodes.sweep(found.disk.part_name(int(place[0])))
    if found.attached is not None:
        loop.detach(found.attached[0], sequence=found.attached[1], logger=logger)
    Registry(_KIND).remove(found.record.name)
    for path in gone:
        told(logger).info("removed %s", path)
    return gone


def mappings(target: str | os.PathLike[str] | None = None, *, logger: Logger | None = None) -> list[Mapping]:
    """Return the mappings that were made here, of one image or device or of all, in the order of devices."""
    require_linux("list", "mappings")
    paths: set[str] | None = None
    if target is not None:
        path = os.fspath(target)
        if not os.path.exists(path):
            raise NotFound(f"{path}: no such file or device")
        is_disk = stat.S_ISBLK(os.stat(path).st_mode)
        paths = {path} if is_disk else {each.path for each in loop.find(path)}
    found = [each for each in _records() if paths is None or each.disk.path in paths]
    told(logger).debug("%d disks have mappings", len(found))
    return [mapping for each in found for mapping in each.mappings]


def gc(*, logger: Logger | None = None) -> loop.Collected:
    """Have no mappings whose owner died, nor loop devices: those of ``loop.gc`` too. Raises as that does."""
    require_linux("gc", "mappings")
    gone: list[str] = []
    held: list[str] = []
    with Registry(_KIND).locked():
        for found in list(_records()):
            if found.record.owner is not None and not found.record.alive:
                try:
                    gone += _remove(found, logger)
                except InUse as error:
                    told(logger).warning("%s", error)
                    held.append(str(error))
        loops = loop.gc(logger=logger)
    return loop.Collected((*gone, *loops.detached), (*held, *loops.held))
