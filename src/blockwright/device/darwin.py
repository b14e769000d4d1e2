"""What macOS tells of disks without another program: mounts by getfsstat, sizes by ioctl, names by what they are.

Each disk has two files: /dev/diskN, a block device behind the cache, and /dev/rdiskN, a character device past it.

The bytes of both are parsed by functions on bytes, so that they can be tried anywhere.

Knows: struct statfs of sys/mount.h (64-bit inodes) and sys/disk.h. Refuses to know: what a mount is a reason for.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Iterator
from typing import Final

STATFS: Final = 2168
"""Bytes of struct statfs: names of 1024 bytes from 88 (where) and from 1112 (what) on."""
MAX_MOUNTS: Final = 4096
_NO_WAIT: Final = 2
DKIOCGETBLOCKSIZE: Final = 0x4004_6418
DKIOCGETBLOCKCOUNT: Final = 0x4008_6419
DKIOCISWRITABLE: Final = 0x4004_641D
DKIOCGETPHYSICALBLOCKSIZE: Final = 0x4004_644D
_DISK: Final = re.compile(r"/dev/(?P<raw>r?)(?P<name>(?P<whole>disk[0-9]+)(?:s[0-9]+)*)")


def parse_mounts(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield (what is mounted, where) of each struct statfs in ``data``."""
    for at in range(0, len(data) - STATFS + 1, STATFS):
        point, source = data[at + 88 : at + 1112], data[at + 1112 : at + 2136]
        yield os.fsdecode(source.partition(b"\0")[0]), os.fsdecode(point.partition(b"\0")[0])


def on_disk(mounts: Iterator[tuple[str, str]], name: str) -> list[str]:
    """Return where the disk ``name`` (``disk2``), or a slice of it, is mounted."""
    pattern = re.compile(rf"/dev/r?{re.escape(name)}(s[0-9]+)*")
    return [point for source, point in mounts if pattern.fullmatch(source)]


def mounted_from(name: str) -> list[str]:
    """Return where the disk or a slice of it is mounted; nothing elsewhere than on macOS."""
    return on_disk(parse_mounts(_read_mounts()), name)


def _read_mounts() -> bytes:
    if sys.platform != "darwin":
        return b""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "getfsstat$INODE64", None) or library.getfsstat
    count = min(MAX_MOUNTS, function(None, 0, _NO_WAIT) + 16)
    buffer = ctypes.create_string_buffer(count * STATFS)
    found = function(buffer, len(buffer), _NO_WAIT)
    return buffer.raw[: max(0, found) * STATFS]


def disk_name(path: str) -> tuple[str, str] | None:
    """Return (``disk2s1``, ``disk2``): what the disk or slice at a path is called, by either file, and what it is of.

    None for what has no such name.
    """
    found = _DISK.fullmatch(os.path.realpath(path))
    return None if found is None else (found["name"], found["whole"])


def is_raw(path: str) -> bool:
    """Whether a character device at that path is a disk, of which only macOS has such."""
    if sys.platform != "darwin":
        return False
    found = _DISK.fullmatch(os.path.realpath(path))
    return found is not None and bool(found["raw"])


def disk_size(path: str) -> int:
    """Return the bytes of a disk of macOS, whose files have no end to seek to; 0 where that is not told."""
    if sys.platform != "darwin":
        return 0
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return 0
    try:
        return open_size(fd)
    finally:
        os.close(fd)


def open_size(fd: int) -> int:
    """Return the bytes of an open disk, 0 where that is not told."""
    if sys.platform != "darwin":
        return 0
    import fcntl

    try:
        (size,) = struct.unpack("=I", fcntl.ioctl(fd, DKIOCGETBLOCKSIZE, bytes(4)))
        (count,) = struct.unpack("=Q", fcntl.ioctl(fd, DKIOCGETBLOCKCOUNT, bytes(8)))
    except OSError:
        return 0
    return int(size) * int(count)
