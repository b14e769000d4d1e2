"""What loop devices there are and what each is attached to, as sysfs and the driver tell.

Knows: where Linux tells it, and when two names are one file. Refuses to know: how anything is changed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blockwright.errors import KernelError, NotFound, Unavailable
from blockwright.system.linux import blkdev
from blockwright.system.linux.ioctl import call, is_node, join_device, make_node, opened, require_linux
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.loop import layout
from blockwright.units import SECTOR

_BLOCK: Final = "/sys/devices/virtual/block"
"""Where loop devices are; what /sys/block has of them are links to here, and each one takes longer."""
_NAME: Final = re.compile(r"loop([0-9]{1,7})")
_DELETED: Final = " (deleted)"


@dataclass(frozen=True, slots=True)
class LoopState:
    """An attached loop device. Sizes and positions in bytes; ``size_limit`` is 0 where there is none.

    ``backing`` is the file's path as the kernel has it now, and ``deleted`` says that no name leads there any more.
    ``sequence`` tells this attachment from every other, None before Linux 5.15.
    """

    number: int
    path: str
    backing: str
    deleted: bool
    offset: int
    size_limit: int
    size: int
    block_size: int
    read_only: bool
    autoclear: bool
    partition_scan: bool
    direct_io: bool
    sequence: int | None

    def overlaps(self, offset: int, length: int) -> bool:
        """Whether the device covers any of that range of its backing file."""
        return offset < self.offset + self.size and self.offset < offset + length


def state(number: int) -> LoopState | None:
    """Return what loop device ``number`` is attached to, None where it is free or does not exist."""
    folder = folder_of(number)
    backing = backing_of(number)
    if not backing:
        return None
    deleted = backing.endswith(_DELETED) and not os.path.lexists(backing)
    return LoopState(
        number=number,
        path=f"/dev/loop{number}",
        backing=backing.removesuffix(_DELETED) if deleted else backing,
        deleted=deleted,
        offset=_number(f"{folder}/loop/offset"),
        size_limit=_number(f"{folder}/loop/sizelimit"),
        size=_number(f"{folder}/size") * SECTOR,
        block_size=_number(f"{folder}/queue/logical_block_size") or SECTOR,
        read_only=_number(f"{folder}/ro") == 1,
        autoclear=_number(f"{folder}/loop/autoclear") == 1,
        partition_scan=_number(f"{folder}/loop/partscan") == 1,
        direct_io=_number(f"{folder}/loop/dio") == 1,
        sequence=sequence_of(number),
    )


def folder_of(number: int) -> str:
    """Return the folder in which sysfs tells of loop device ``number``, if there is one."""
    return f"{_BLOCK}/loop{number}"


def backing_of(number: int) -> str:
    """Return the path that loop device ``number`` stands on, as the kernel has it; empty where it is free."""
    folder = f"{_BLOCK}/loop{number}/loop"
    # Free ones, which are most, lack it; to ask is cheaper than to fail.
    return blkdev.text(f"{folder}/backing_file") if os.access(folder, os.F_OK) else ""


def sequence_of(number: int) -> int | None:
    """Return the disk sequence of loop device ``number``, None where the kernel does not tell."""
    text = blkdev.text(f"{_BLOCK}/loop{number}/diskseq")
    return int(text) if text.isdigit() else None


def states(*, logger: Logger | None = None) -> Iterator[LoopState]:
    """Yield every attached loop device, ascending. Raises Unavailable where sysfs does not tell."""
    require_linux("list", "loop devices")
    for number in _attached():
        found = state(number)
        if found is not None:
            told(logger).debug("%s: attached to %s", found.path, found.backing)
            yield found


def _attached() -> list[int]:
    """Return the numbers of the devices that are attached, ascending."""
    try:
        folder = os.open(_BLOCK, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError as error:
        if error.errno == errno.ENOENT and os.path.isdir("/sys/block"):
            return []  # a kernel that has no such device yet
        raise Unavailable("list", _BLOCK, error.errno or errno.EIO, "sysfs is not mounted") from None
    try:
        # Free ones, which are most, lack the inner folder. By the open folder each costs half a microsecond.
        return sorted(
            int(match[1])
            for match in map(_NAME.fullmatch, os.listdir(folder))
            if match and os.access(f"{match[0]}/loop", os.F_OK, dir_fd=folder)
        )
    finally:
        os.close(folder)


def _number(path: str) -> int:
    text = blkdev.text(path)
    return int(text) if text.isdigit() else 0


def number_of(device: str | int) -> int:
    """Return the number of the loop device that is named ``/dev/loop3``, ``loop3`` or ``3``, or by another node.

    Raises NotFound where there is no such node, UsageError where it is no loop device.
    """
    return blkdev.number_of(device, prefix="loop", major=layout.MAJOR, what="loop device")


def node(number: int) -> str:
    """Return the path of the device's node, which is made where it is missing, as it is in containers.

    Raises Unavailable where it cannot be made, KernelError where its name is another device's.
    """
    path = f"/dev/loop{number}"
    if is_node(path, stat.S_IFBLK, join_device(layout.MAJOR, number)):
        return path  # the usual numbering, which max_part= of the driver changes
    major, _, minor = blkdev.text(f"{_BLOCK}/loop{number}/dev").partition(":")
    if major.isdigit() and minor.isdigit():
        make_node(path, stat.S_IFBLK, int(major), int(minor))
    return path


def info(fd: int, path: str) -> layout.Info | None:
    """Return what the driver itself tells of the open device, None where it is free."""
    buffer = bytearray(layout.Info.SIZE)
    try:
        call(fd, layout.GET_STATUS64, buffer, operation="LOOP_GET_STATUS64", device=path)
    except KernelError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    return layout.Info.parse(buffer)


def is_backed_by(found: LoopState, target: os.stat_result) -> bool:
    """Whether the device stands on that file: by device and inode, as the driver tells them.

    Some file systems (btrfs, overlayfs) show another device number than the driver does; there the name that the
    kernel has for the file counts with the inode, and alone where the driver may not be asked.
    """
    try:
        with opened(found.path, os.O_RDONLY) as fd:
            told = info(fd, found.path)
    except KernelError:
        return _is_named(found, target)
    if told is None:
        return False
    if sys.platform != "win32" and stat.S_ISBLK(target.st_mode):
        return bool(told.lo_rdevice == target.st_rdev)  # whatever node it was opened by
    if told.lo_inode != target.st_ino:
        return False
    return told.lo_device == target.st_dev or _is_named(found, target)


def _is_named(found: LoopState, target: os.stat_result) -> bool:
    try:
        named = os.stat(found.backing)
    except OSError:
        return False
    return not found.deleted and (named.st_dev, named.st_ino) == (target.st_dev, target.st_ino)


def find(
    image: str | os.PathLike[str] | int, *, offset: int | None = None, logger: Logger | None = None
) -> list[LoopState]:
    """Return the loop devices that stand on the file (a path or a descriptor), ascending; at ``offset`` where given.

    Files are told by device and inode, so every name of one leads there. Raises NotFound without such a file.
    """
    require_linux("find", str(image))
    try:
        target = os.stat(image)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{os.fspath(image)}: no such file") from None  # type: ignore[arg-type]  # a path
    return [each for each in states(logger=logger) if offset in (None, each.offset) and is_backed_by(each, target)]
