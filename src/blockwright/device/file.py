"""Regular files of the host as devices, which can grow; ``open_path`` takes disks of the host too.

A file opened for writing is locked the way QEMU locks images, and refused where another process or a loop device
holds it.

Knows: regular files, their holes and sizes. Refuses to know: what the bytes mean.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from typing import Final, Self

from blockwright.device import fallocate, hostfile, mounts
from blockwright.device.base import ResizableDevice, Traits, Waits
from blockwright.device.descriptor import (
    PARALLELISM,
    HostDevice,
    Path,
    block_size,
    check_unwritten,
    claim,
    is_disk,
    kind_of,
    named_error,
    open_descriptor,
)
from blockwright.device.extent import DATA, HOLE, ZERO, Extent
from blockwright.device.hostblock import HostBlockDevice
from blockwright.device.rawdisk import RawDiskDevice
from blockwright.errors import OutOfRange, UsageError
from blockwright.units import MAX_SIZE, KiB

__all__ = ["FileDevice", "HostBlockDevice", "Path", "open_path"]

_NO_SEEK: Final = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


def open_path(
    path: Path, *, writable: bool = False, force_unlocked: bool = False, alone: bool = False
) -> FileDevice | HostBlockDevice:
    """Return the open file or block device at ``path``.

    Raises InUse where it is to be written and somebody else holds it, or with ``alone`` reads it, unless
    ``force_unlocked``; UsageError for
    anything that is neither; OSError from the host.
    """
    if is_disk(path, mode := os.stat(path).st_mode):
        kind = RawDiskDevice if stat.S_ISCHR(mode) else HostBlockDevice
        return kind(path, writable=writable, force_unlocked=force_unlocked, alone=alone)
    return FileDevice(path, writable=writable, force_unlocked=force_unlocked, alone=alone)


class FileDevice(HostDevice, ResizableDevice):
    """A regular file. Holes are told as the file system tells them, and made where it can.

    With ``create`` the file must not exist and is made empty, with ``mode`` less the umask. ``name`` is what
    messages call it. Raises as ``open_path`` does.
    """

    def __init__(
        self,
        path: Path,
        *,
        writable: bool = False,
        create: bool = False,
        mode: int = 0o666,
        force_unlocked: bool = False,
        alone: bool = False,
        name: str | None = None,
    ) -> None:
        name = os.fsdecode(path) if name is None else name
        fd = open_descriptor(path, writable=writable or create, create=create, mode=mode)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{name}: expected a regular file, found a {kind_of(status.st_mode)}")
            if not force_unlocked:
                claim(fd, status, name, writable=writable or create, alone=alone)
            self._take(fd, name, status, writable=writable or create)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def adopt(cls, fd: int, name: str, *, writable: bool) -> Self:
        """Return a device over an open regular file, which it owns from now on; whoever opened it has claimed it."""
        device = cls.__new__(cls)
        device._take(fd, name, os.fstat(fd), writable=writable)  # noqa: SLF001 - a second constructor
        return device

    def _take(self, fd: int, name: str, status: os.stat_result, *, writable: bool) -> None:
        super().__init__(fd, name, status.st_size, _traits(fd, status, writable=writable))
        self._seeks = hasattr(os, "SEEK_DATA")

    def check_unwritten(self) -> None:
        """Raise InUse where somebody else may be writing to the file, which is open here to be read."""
        check_unwritten(self._fd, os.fstat(self._fd), self._name)

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        try:
            punched = length and self._traits.discard and fallocate.punch_hole(self._fd, offset, length)
            if punched and durable:
                hostfile.sync_data(self._fd)
        except OSError as error:
            raise named_error(error, self._name) from None

    def _resize(self, size: int) -> None:
        if size > MAX_SIZE:
            raise OutOfRange(f"{self._name}: expected a size of at most {MAX_SIZE} bytes, found {size}")
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise named_error(error, self._name) from None

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        while offset < end and self._seeks:
            data = self._seek_data(offset, end)
            if data is None:
                self._seeks = False
                break
            if data > offset:
                yield Extent(offset, data - offset, HOLE | ZERO)
                if data >= end:
                    return
            hole = self._seek_hole(data, end)
            yield Extent(data, hole - data, DATA)
            offset = hole
        if offset < end:
            yield Extent(offset, end - offset, DATA)

    def _seek_data(self, offset: int, end: int) -> int | None:
        """Return where data begins, ``end`` where none follows, None where the file system does not tell.

        Behind the end of a file that others have cut off there is no data, and no zeros either: reading raises.
        """
        if sys.platform == "win32":
            return None
        try:
            return min(end, os.lseek(self._fd, offset, os.SEEK_DATA))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return end if os.fstat(self._fd).st_size >= self._size else None
            if error.errno in _NO_SEEK:
                return None
            raise named_error(error, self._name) from None

    def _seek_hole(self, offset: int, end: int) -> int:
        if sys.platform == "win32":
            return end
        try:
            return max(offset + 1, min(end, os.lseek(self._fd, offset, os.SEEK_HOLE)))
        except OSError as error:
            raise named_error(error, self._name) from None


def _traits(fd: int, status: os.stat_result, *, writable: bool) -> Traits:
    punches = writable and fallocate.can_punch(fd, status.st_size)
    return Traits(
        writable=writable,
        discard=punches,
        fast_zero=punches,
        fua=writable and hostfile.HAS_FUA,
        waits=_waits(fd, status),
        parallelism=PARALLELISM,
        preferred_block=block_size(getattr(status, "st_blksize", 4 * KiB)),
    )


def _waits(fd: int, status: os.stat_result) -> Waits:
    if hostfile.can_read_cached(fd):
        return Waits.SOMETIMES
    return Waits.NEVER if mounts.is_in_memory(status.st_dev) else Waits.ALWAYS
