"""The three ways to have a partition as a block device, each with the same two verbs.

``KERNEL`` has the kernel look for itself; ``BLKPG`` tells it where partitions are, and needs no parser in it;
``DEVICE_MAPPER`` puts a linear device over each. The first two make /dev/loop0p1, the third /dev/mapper/loop0p1.

Knows: how each is made and unmade, and how it is told that it is ours. Refuses to know: when which is taken.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from blockwright.errors import BlockwrightError, InUse, KernelError
from blockwright.system.linux import blkdev, dm
from blockwright.system.linux.dm import nodes
from blockwright.system.linux.ioctl import make_node, opened
from blockwright.table.partition import AnyPartition

_OWNER: Final = "blockwright"


class Means(Enum):
    """How partitions become block devices."""

    KERNEL = "kernel"
    BLKPG = "blkpg"
    DEVICE_MAPPER = "device-mapper"


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk whose partitions are meant. ``sequence`` tells it from every later disk of that number."""

    path: str
    name: str
    major: int
    minor: int
    sequence: int | None

    def part_name(self, number: int) -> str:
        """Return what Linux calls that partition: ``loop0p1``, ``sda1``."""
        return f"{self.name}{'p' if self.name[-1].isdigit() else ''}{number}"

    def uuid(self, number: int) -> str:
        """Return the UUID of the mapped device over that partition, which no other disk's has."""
        return f"part{number}-{_OWNER}-{self.major}:{self.minor}-{self.sequence or 0}"


@dataclass(frozen=True, slots=True)
class Mapping:
    """A partition as a block device: its node, its place on ``disk`` in bytes, and how it was made."""

    path: str
    disk: str
    number: int
    start: int
    size: int
    means: Means


def disk_of(path: str) -> Disk:
    """Return the disk at a node. Raises NotFound, UsageError, Unavailable."""
    folder = blkdev.folder_of(path)
    major, _, minor = blkdev.text(f"{folder}/dev").partition(":")
    with opened(path, os.O_RDONLY) as fd:
        sequence = blkdev.disk_sequence(fd, path)
    name = os.path.basename(os.path.realpath(folder))
    if name.startswith("dm-"):
        name = blkdev.text(f"{folder}/dm/name") or name
    return Disk(path, name, int(major), int(minor), sequence)


def make(disk: Disk, wanted: Sequence[AnyPartition], means: Means, *, read_only: bool) -> list[Mapping]:
    """Return the partitions as block devices, all of them; where one fails, none is left.

    Raises KernelError, InUse where a name or a range is taken, Unavailable.
    """
    if means is Means.DEVICE_MAPPER:
        return _make_mapped(disk, wanted, read_only=read_only)
    if means is Means.KERNEL:
        return _scan(disk, wanted)
    return _add(disk, wanted)


def _scan(disk: Disk, wanted: Sequence[AnyPartition]) -> list[Mapping]:
    before = {each.number for each in blkdev.partitions(disk.path)}
    with opened(disk.path, os.O_RDONLY) as fd:
        blkdev.rescan(fd, disk.path)
        found = blkdev.partitions(disk.path)
        places = {(each.number, each.start, each.size) for each in found}
        if not all((each.number, each.start, each.size) in places for each in wanted):
            for each in found:
                if each.number not in before:
                    blkdev.undo_partition(fd, disk.path, each.number)
            shown = ", ".join(str(each.number) for each in found) or "none"
            expected = ", ".join(str(each.number) for each in wanted) or "none"
            text = f"the kernel does not find the partitions of the table: expected {expected}, found {shown}"
            raise KernelError("BLKRRPART", disk.path, errno.EINVAL, text)
    # Linux numbers extended partitions too, as devices of a sector or two; those are nobody's.
    numbers = {each.number for each in wanted}
    return [each for each in kernel_mappings(disk, Means.KERNEL) if each.number in numbers]


def _add(disk: Disk, wanted: Sequence[AnyPartition]) -> list[Mapping]:
    made: list[AnyPartition] = []
    with opened(disk.path, os.O_RDONLY) as fd:
        try:
            for each in wanted:
                blkdev.add_partition(fd, disk.path, each.number, each.start, each.size)
                made.append(each)
            return _with_nodes(disk, wanted)
        except BaseException:
            for each in reversed(made):
                blkdev.undo_partition(fd, disk.path, each.number)
            raise


def _with_nodes(disk: Disk, wanted: Sequence[AnyPartition]) -> list[Mapping]:
    numbers = {each.number for each in wanted}
    return [each for each in kernel_mappings(disk, Means.BLKPG) if each.number in numbers]


def kernel_mappings(disk: Disk, means: Means = Means.KERNEL) -> list[Mapping]:
    """Return the kernel's partitions of the disk; a node that is missing, as in containers, is made."""
    found = []
    for each in blkdev.partitions(disk.path):
        make_node(each.path, stat.S_IFBLK, each.major, each.minor)
        found.append(Mapping(each.path, disk.path, each.number, each.start, each.size, means))
    return found


def _make_mapped(disk: Disk, wanted: Sequence[AnyPartition], *, read_only: bool) -> list[Mapping]:
    made: list[Mapping] = []
    with dm.Mapper() as mapper:
        try:
            for each in wanted:
                path = mapper.create(
                    disk.part_name(each.number),
                    [dm.Linear(each.size, f"{disk.major}:{disk.minor}", each.start)],
                    uuid=disk.uuid(each.number),
                    read_only=read_only,
                )
                made.append(Mapping(path, disk.path, each.number, each.start, each.size, Means.DEVICE_MAPPER))
        except BaseException:
            for done in reversed(made):
                with contextlib.suppress(BlockwrightError):
                    mapper.remove(os.path.basename(done.path))
            raise
    return made


def mapped(disk: Disk, mapper: dm.Mapper) -> list[Mapping]:
    """Return the mapped devices over the disk's partitions that are ours, by their UUIDs."""
    found = []
    for entry in mapper.devices():
        number, _, _ = (entry.uuid or "").removeprefix("part").partition("-")
        if number.isdigit() and entry.uuid == disk.uuid(int(number)):
            # One that has no table yet is what a process left that was killed while it made it.
            table = mapper.table(entry.name)
            start = table[0].offset if table and isinstance(table[0], dm.Linear) else 0
            path = nodes.path_of(entry.name)
            place = (int(number), start, dm.size_of(table))
            found.append(Mapping(path, disk.path, *place, Means.DEVICE_MAPPER))
    return sorted(found, key=lambda each: each.number)


def unmake(disk: Disk, mappings: Sequence[Mapping]) -> list[str]:
    """Have none of the mappings any more; return the paths of those that were there, all or none of them.

    Raises InUse, naming who, where one is held.
    """
    through_dm = [each for each in mappings if each.means is Means.DEVICE_MAPPER]
    through_kernel = [each for each in mappings if each.means is not Means.DEVICE_MAPPER]
    gone: list[str] = []
    if through_dm:
        gone += _unmake_mapped(disk, through_dm)
    if through_kernel:
        gone += _delete(disk, through_kernel)
    return gone


def _unmake_mapped(disk: Disk, mappings: Sequence[Mapping]) -> list[str]:
    with dm.Mapper() as mapper:
        found = [mapper.by_uuid(disk.uuid(each.number)) for each in mappings]
        end, pause = time.monotonic() + blkdev.BUSY_TIMEOUT_S, 0.001
        while held := [info for info in found if info.open_count]:
            if time.monotonic() >= end:
                who = ", ".join(blkdev.users(held[0].path)[:4]) or f"{held[0].open_count} have it open"
                raise InUse(f"{nodes.path_of(held[0].name)}: is in use: {who}")
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
            found = [mapper.by_uuid(info.uuid) for info in found]
        for info in found:
            mapper.remove(info.name, info=info)
    return [each.path for each in mappings]


def _delete(disk: Disk, mappings: Sequence[Mapping]) -> list[str]:
    wanted = {(each.number, each.start, each.size) for each in mappings}
    there = [each for each in blkdev.partitions(disk.path) if (each.number, each.start, each.size) in wanted]
    with opened(disk.path, os.O_RDONLY) as fd:
        try:
            blkdev.delete_partitions(fd, disk.path, there, timeout_s=blkdev.BUSY_TIMEOUT_S)
        except KernelError as error:
            if error.errno == errno.EBUSY:
                who = ", ".join(blkdev.users(disk.path)[:4]) or "somebody has a partition open"
                raise InUse(f"{disk.path}: is in use: {who}") from None
            raise
    return [each.path for each in there]
