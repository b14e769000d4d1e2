"""Who else holds a file or a block device of this host: processes, loop devices, mounts.

Everything is told by device and inode, never by name alone, and as text for a message. What cannot be found out
(another user's processes, a host without /proc and /sys) is left out; only a lock or O_EXCL proves absence.

Knows: where Linux tells it. Refuses to know: whether holding is a reason to refuse.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import sys
from collections.abc import Iterator
from typing import Final

MAX_NAMED: Final = 4
"""Holders that a message names."""

_LOOP_GET_STATUS64: Final = 0x4C05
_LOOP_INFO64: Final = struct.Struct("=QQ216x")
"""The start of struct loop_info64 (linux/loop.h): lo_device, lo_inode."""


def processes(target: os.stat_result) -> list[str]:
    """Return the processes that have the file open, those with a lock on it before all others.

    A block device is told by its number, whatever node it was opened by.
    """
    locking: list[str] = []
    opening: list[str] = []
    for pid in _entries("/proc"):
        if not pid.isdigit():
            continue
        locked: bool | None = None
        for number in _entries(f"/proc/{pid}/fd"):
            if _opens(f"/proc/{pid}/fd/{number}", target):
                locked = bool(locked) or "\nlock:" in f"\n{_text(f'/proc/{pid}/fdinfo/{number}')}"
        if locked is None or (int(pid) == os.getpid() and not locked):
            continue
        name = "this process" if int(pid) == os.getpid() else f"process {pid} ({_text(f'/proc/{pid}/comm').strip()})"
        (locking if locked else opening).append(name)
    return locking or opening


def loop_devices(target: os.stat_result) -> list[str]:
    """Return the loop devices that the regular file is attached to, as ``/dev/loop0``."""
    return [
        f"/dev/{name}"
        for name in sorted(_entries("/sys/block"))
        if name.startswith("loop") and os.path.exists(f"/sys/block/{name}/loop") and _is_backed_by(name, target)
    ]


def users_of_block_device(target: os.stat_result) -> list[str]:
    """Return what uses the block device or a partition of it: mounts, swap, devices on top."""
    base = sysfs_folder(target)
    folders = {_text(f"{folder}/dev").strip(): folder for folder in (base, *(f"{base}/{n}" for n in _entries(base)))}
    folders.pop("", None)
    found = [f"mounted on {point}" for number, point in _mounts() if number in folders]
    for folder in folders.values():
        found += [f"used by /dev/{name}" for name in sorted(_entries(f"{folder}/holders"))]
    for line in _text("/proc/swaps").splitlines()[1:]:
        path = line.split()[0]
        try:
            swap = sysfs_folder(os.stat(path))
        except OSError:
            continue
        if _text(f"{swap}/dev").strip() in folders:
            found.append(f"swap on {path}")
    return list(dict.fromkeys(found))


def sysfs_folder(target: os.stat_result) -> str:
    """Return the folder in which Linux tells of the block device."""
    if sys.platform == "win32":
        return ""
    return f"/sys/dev/block/{os.major(target.st_rdev)}:{os.minor(target.st_rdev)}"


def named(holders: list[str]) -> str:
    """Return the holders as one phrase."""
    more = len(holders) - MAX_NAMED
    return ", ".join(holders[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_backed_by(name: str, target: os.stat_result) -> bool:
    """Compare with the path the kernel tells; where that leads elsewhere, with the loop device's own status."""
    path = _text(f"/sys/block/{name}/loop/backing_file").rstrip("\n")
    if path and _same(path, target):
        return True
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fd = os.open(f"/dev/{name}", os.O_RDONLY)
    except OSError:
        return False
    try:
        device, inode = _LOOP_INFO64.unpack(fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO64.size)))
    except OSError:
        return False
    finally:
        os.close(fd)
    return (device, inode) == (target.st_dev, target.st_ino)


def _mounts() -> Iterator[tuple[str, str]]:
    """Yield (major:minor, mount point) of this mount namespace."""
    for line in _text("/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        if len(fields) > 4:
            yield fields[2], re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])


def _opens(path: str, target: os.stat_result) -> bool:
    if sys.platform == "win32" or not stat.S_ISBLK(target.st_mode):
        return _same(path, target)
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) and found.st_rdev == target.st_rdev


def _same(path: str, target: os.stat_result) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (target.st_dev, target.st_ino)


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
