"""What refuses transfers as a raw disk does: offsets, lengths and memory that are no multiples of its sector."""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Container, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from blockwright.device import darwin, hostfile

SECTOR_SIZE = 4096


def address(buffer) -> int:
    """Where in memory a writable buffer begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Strict:
    """Makes positioned reads and writes refuse what is no whole sector, and keeps their lengths.

    With ``files`` those of the descriptors in it only.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, sector: int = SECTOR_SIZE, files: Container[int] | None = None
    ) -> None:
        self.sector = sector
        self.calls: list[tuple[str, int, int]] = []

        def strict(name, real):
            def call(fd, buffers, offset, *flags):
                if files is None or fd in files:
                    self.check(name, buffers, offset)
                return real(fd, buffers, offset, *flags)

            return call

        for name in ("preadv", "pwritev"):
            monkeypatch.setattr(os, name, strict(name, getattr(os, name)))

    def check(self, name: str, buffers: Sequence[memoryview], offset: int) -> None:
        lengths = [len(each) for each in buffers]
        self.calls.append((name, offset, sum(lengths)))
        places = [address(each) for each in buffers]
        if any(each % self.sector for each in (offset, *lengths, *places)):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class Mac:
    """Has this process take itself for one on macOS: ``/dev/rdisk9`` and ``/dev/disk9`` are the file ``medium``.

    The file has no end to seek to by these names, and its size and sector by ioctl; ``mounts`` are what is mounted.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, medium: Path, sector: int = SECTOR_SIZE) -> None:
        self.medium = medium
        self.sector = sector
        self.mounts: list[tuple[str, str]] = []
        self.writable = True
        self.opened: list[str] = []
        self._raw: set[int] = set()
        self._buffered: set[int] = set()
        self._real = SimpleNamespace(open=os.open, stat=os.stat, fstat=os.fstat, lseek=os.lseek, close=os.close)
        monkeypatch.setattr("sys.platform", "darwin")
        monkeypatch.setattr(hostfile, "HAS_FUA", False)
        monkeypatch.setattr(darwin, "_read_mounts", self._statfs)
        for name in ("open", "close", "stat", "fstat", "lseek"):
            monkeypatch.setattr(os, name, getattr(self, name))
        monkeypatch.setattr("fcntl.ioctl", self.ioctl)
        self.strict = Strict(monkeypatch, sector, self._raw)

    def _is_disk(self, path) -> bool:
        return isinstance(path, str) and path in ("/dev/disk9", "/dev/rdisk9")

    def open(self, path, flags, mode=0o777, *, dir_fd=None):
        if not self._is_disk(path):
            return self._real.open(path, flags, mode, dir_fd=dir_fd)
        self.opened.append(path)
        fd = self._real.open(self.medium, flags & ~os.O_EXCL)
        (self._raw if path == "/dev/rdisk9" else self._buffered).add(fd)
        return fd

    def close(self, fd):
        self._raw.discard(fd)
        self._buffered.discard(fd)
        self._real.close(fd)

    def _as_disk(self, status, kind):
        fields = list(status)
        fields[0] = kind | 0o640
        return os.stat_result(fields, {"st_rdev": 9, "st_blksize": 4096})

    def stat(self, path, **more):
        if not self._is_disk(path):
            return self._real.stat(path, **more)
        return self._as_disk(self._real.stat(self.medium), stat.S_IFCHR if "rdisk" in path else stat.S_IFBLK)

    def fstat(self, fd):
        status = self._real.fstat(fd)
        if fd in self._raw or fd in self._buffered:
            return self._as_disk(status, stat.S_IFCHR if fd in self._raw else stat.S_IFBLK)
        return status

    def lseek(self, fd, offset, whence):
        return (
            0 if fd in self._raw | self._buffered and whence == os.SEEK_END else self._real.lseek(fd, offset, whence)
        )

    def ioctl(self, fd, request, argument=0, *_):
        size = self._real.fstat(fd).st_size
        known = {
            darwin.DKIOCGETBLOCKSIZE: struct.pack("=I", self.sector),
            darwin.DKIOCGETPHYSICALBLOCKSIZE: struct.pack("=I", self.sector),
            darwin.DKIOCGETBLOCKCOUNT: struct.pack("=Q", size // self.sector),
            darwin.DKIOCISWRITABLE: struct.pack("=I", self.writable),
        }
        if fd not in self._raw | self._buffered or request not in known:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        if isinstance(argument, bytearray):
            argument[:] = known[request]
            return 0
        return known[request]

    def _statfs(self) -> bytes:
        parts = []
        for source, point in self.mounts:
            data = bytearray(darwin.STATFS)
            struct.pack_into("1024s1024s", data, 88, os.fsencode(point), os.fsencode(source))
            parts.append(bytes(data))
        return b"".join(parts)
