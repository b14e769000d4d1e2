"""Block devices as the kernel's objects: their identity, their partitions, who holds them.

A /dev node as a run of bytes is ``device.hostblock``; this is what belongs to the node itself.

Knows: BLK* requests (linux/fs.h, linux/blkpg.h) and what sysfs tells. Refuses to know: any one driver.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from blockwright.device import holders
from blockwright.errors import KernelError, NotFound, UsageError
from blockwright.system.linux.ioctl import call, number_in

_BLKRRPART: Final = 0x125F
_BLKSSZGET: Final = 0x1268
_BLKPG: Final = 0x1269
_BLKROGET: Final = 0x125E
_BLKGETSIZE64: Final = number_in(0x12, 114, struct.calcsize("P"))
_BLKGETDISKSEQ: Final = number_in(0x12, 128, 8)

_PARTITION: Final = struct.Struct("=qqi132x")
"""struct blkpg_partition: start and length in bytes, number; names that the kernel does not look at."""
_ARGUMENT: Final = struct.Struct("@iiiP")
"""struct blkpg_ioctl_arg."""
BUSY_TIMEOUT_S: Final = 2.0
"""How long users that come and go by themselves are waited for, as udevd does with whatever is new."""
_FIRST_PAUSE_S: Final = 0.001
_MAX_PAUSE_S: Final = 0.05
_ADD: Final = 1
_DELETE: Final = 2


@dataclass(frozen=True, slots=True)
class Node:
    """A block device: its path, number, and start and size in bytes; ``number`` is a partition's, else 0."""

    path: str
    major: int
    minor: int
    number: int
    start: int
    size: int


def size(fd: int, device: str) -> int:
    """Return the size in bytes."""
    return _u64(fd, _BLKGETSIZE64, "BLKGETSIZE64", device)


def sector_size(fd: int, device: str) -> int:
    """Return the logical sector's size in bytes."""
    return _int(fd, _BLKSSZGET, "BLKSSZGET", device)


def is_read_only(fd: int, device: str) -> bool:
    """Whether the kernel refuses writes."""
    return bool(_int(fd, _BLKROGET, "BLKROGET", device))


def disk_sequence(fd: int, device: str) -> int | None:
    """Return the number that no other disk, and no later attachment, has in this boot; None before Linux 5.15."""
    try:
        return _u64(fd, _BLKGETDISKSEQ, "BLKGETDISKSEQ", device)
    except KernelError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ENOSYS):
            return None
        raise


def _u64(fd: int, request: int, operation: str, device: str) -> int:
    buffer = bytearray(8)
    call(fd, request, buffer, operation=operation, device=device)
    return int.from_bytes(buffer, sys.byteorder)


def _int(fd: int, request: int, operation: str, device: str) -> int:
    buffer = bytearray(4)
    call(fd, request, buffer, operation=operation, device=device)
    return int.from_bytes(buffer, sys.byteorder)


def rescan(fd: int, device: str, *, timeout_s: float = BUSY_TIMEOUT_S) -> None:
    """Have the partitions that the kernel finds by itself.

    Where one that was there is open it is tried for ``timeout_s``, since udevd looks into what is new. Raises
    KernelError: EBUSY then, EINVAL where the kernel does not look.
    """
    end, pause = time.monotonic() + timeout_s, _FIRST_PAUSE_S
    while True:
        try:
            call(fd, _BLKRRPART, operation="BLKRRPART", device=device)
        except KernelError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= end:
                raise
        else:
            return
        time.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE_S)


def add_partition(fd: int, device: str, number: int, start: int, length: int) -> None:
    """Have the kernel's partition ``number`` over that range in bytes.

    Raises KernelError: EBUSY where that number, or a part of that range, is a partition already.
    """
    _partition(fd, device, _ADD, number, start, length)


def undo_partition(fd: int, device: str, number: int) -> None:
    """Have no partition of that number where that can soon be: for whoever has another error to tell.

    One that is open is tried for BUSY_TIMEOUT_S, since udevd looks into what is new.
    """
    with contextlib.suppress(KernelError):
        _delete_soon(fd, device, number, time.monotonic() + BUSY_TIMEOUT_S)


def delete_partitions(fd: int, device: str, wanted: Sequence[Node], *, timeout_s: float = BUSY_TIMEOUT_S) -> None:
    """Have none of the ``wanted`` partitions of the open disk, or all that there were.

    One that is open is tried for ``timeout_s``, since udevd looks into what is new; raises KernelError (EBUSY) then.
    What is gone already is passed over.
    """
    gone: list[Node] = []
    end = time.monotonic() + timeout_s
    try:
        for each in wanted:
            if _delete_soon(fd, device, each.number, end):
                gone.append(each)  # noqa: PERF401 - a failure needs to know how far it came
    except BaseException:
        for each in gone:
            with contextlib.suppress(KernelError):
                add_partition(fd, device, each.number, each.start, each.size)
        raise


def _delete_soon(fd: int, device: str, number: int, end: float) -> bool:
    pause = _FIRST_PAUSE_S
    while True:
        try:
            _partition(fd, device, _DELETE, number, 0, 0)
        except KernelError as error:
            if error.errno == errno.ENXIO:
                return False
            if error.errno != errno.EBUSY or time.monotonic() >= end:
                raise
        else:
            return True
        time.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE_S)


def _partition(fd: int, device: str, operation: int, number: int, start: int, length: int) -> None:
    import ctypes

    packed = _PARTITION.pack(start, length, number)
    data = ctypes.create_string_buffer(packed, len(packed))
    argument = _ARGUMENT.pack(operation, 0, len(packed), ctypes.addressof(data))
    what = "BLKPG_ADD_PARTITION" if operation == _ADD else "BLKPG_DEL_PARTITION"
    call(fd, _BLKPG, argument, operation=f"{what} {number}", device=device)


def folder_of(path: str) -> str:
    """Return the folder in which sysfs tells of the block device. Raises NotFound, UsageError."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path}: no such device") from None
    if not stat.S_ISBLK(found.st_mode):
        raise UsageError(f"{path}: expected a block device, found something else")
    return holders.sysfs_folder(found)


def partitions(path: str) -> list[Node]:
    """Return the kernel's partitions of the disk at ``path``, ascending. Raises NotFound, UsageError."""
    base = folder_of(path)
    try:
        disk = os.path.basename(os.readlink(base))
    except OSError:
        return []
    return partitions_in(base, disk)


def partitions_in(base: str, disk: str) -> list[Node]:
    """Return the kernel's partitions of the ``disk`` (its kernel name) that sysfs tells of in ``base``, ascending."""
    found = []
    try:
        names = os.listdir(base)
    except OSError:
        return []
    for name in names:
        if not name.startswith(disk):
            continue
        number = text(f"{base}/{name}/partition")
        if number.isdigit():
            major, _, minor = text(f"{base}/{name}/dev").partition(":")
            start, length = text(f"{base}/{name}/start"), text(f"{base}/{name}/size")
            if major.isdigit() and minor.isdigit() and start.isdigit() and length.isdigit():
                node = f"/dev/{name.replace('!', '/')}"
                found.append(Node(node, int(major), int(minor), int(number), int(start) * 512, int(length) * 512))
    return sorted(found, key=lambda each: each.number)


def users(path: str) -> list[str]:
    """Return who holds the device or a partition of it, as phrases for a message: mounts, devices on top, processes.

    Processes are told where nothing else holds it; those of other users only to root.
    """
    try:
        status = os.stat(path)
    except OSError:
        return []
    found = holders.users_of_block_device(status) or holders.processes(status)
    for node in [] if found else partitions(path):
        with contextlib.suppress(OSError):
            found += holders.processes(os.stat(node.path))
    return found


def number_of(device: str | int, *, prefix: str, major: int, what: str) -> int:
    """Return the number of the device named ``/dev/PREFIX3``, ``PREFIX3`` or ``3``, or by another node of ``major``.

    Raises NotFound where there is no such node, UsageError, which says ``what`` was expected, where it is another's.
    """
    if isinstance(device, int):
        return device
    match = re.fullmatch(rf"(?:/dev/)?(?:{prefix})?([0-9]{{1,7}})", device)
    if match:
        return int(match[1])
    try:
        found = os.stat(device)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{device}: no such device") from None
    if sys.platform != "win32" and stat.S_ISBLK(found.st_mode) and os.major(found.st_rdev) == major:
        name = os.path.basename(os.path.realpath(f"/sys/dev/block/{major}:{os.minor(found.st_rdev)}"))
        match = re.fullmatch(rf"{prefix}([0-9]{{1,7}})", name)
        if match:
            return int(match[1])
    raise UsageError(f"{device}: expected a {what} such as /dev/{prefix}0")


def node_of(major: int, minor: int) -> str | None:
    """Return the kernel's own node of the device of that number; None where it tells none."""
    for line in text(f"/sys/dev/block/{major}:{minor}/uevent").splitlines():
        if line.startswith("DEVNAME="):
            return "/dev/" + line.removeprefix("DEVNAME=")
    return None


def text(path: str) -> str:
    """Return what a sysfs attribute holds, without the newline; empty where there is none."""
    # A file object costs three times what the attribute does, and these are read by the dozen.
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(fd, 1 << 16).decode("utf-8", "surrogateescape").removesuffix("\n")
    except OSError:
        return ""
    finally:
        os.close(fd)
