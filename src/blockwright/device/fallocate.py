"""Holes and zeros made by the host's file system, where it can.

Each function answers False where the host cannot do it, and then nothing was changed; a failure while doing it
is an OSError. This is Linux's fallocate(2), which ``os`` lacks, so it is called through ctypes. Elsewhere zeros are
written, and a new file is sparse where nothing is.

Knows: the calls and their flags. Refuses to know: what to do instead.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Final

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_ZERO_RANGE: Final = 0x10
_BLKDISCARD: Final = 0x1277

_CANNOT: Final = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ENOTTY}
"""What says that the file system or device has no such operation, or not for this alignment."""


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Give the range's space back, if that is possible; it reads as zeros then."""
    return sys.platform == "linux" and _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)


def zero_range(fd: int, offset: int, length: int) -> bool:
    """Make the range read as zeros and keep its space, if that is possible."""
    return sys.platform == "linux" and _fallocate(fd, _ZERO_RANGE | _KEEP_SIZE, offset, length)


def can_punch(fd: int, size: int) -> bool:
    """Whether ``punch_hole`` works on this regular file: tried behind its end, where nothing changes."""
    status = os.fstat(fd)
    try:
        punched = punch_hole(fd, size + (1 << 20), 4096)
    except OSError:
        return False
    if punched and sys.platform == "linux":
        # A file that is only opened was not modified. Its owner may say so; others cannot help it.
        with suppress(OSError):
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
    return punched


def discard_blocks(fd: int, offset: int, length: int) -> bool:
    """Tell a block device that the range is not needed; sector boundaries are the caller's."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(fd, _BLKDISCARD, struct.pack("=QQ", offset, length))
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def _fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    function = _library_function()
    if function is None:
        return False
    while True:
        number = function(fd, mode, offset, length)
        if not number:
            return True
        if number in _CANNOT:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


@cache
def _library_function() -> Callable[[int, int, int, int], int] | None:
    """Return a call of the C library's fallocate that answers an errno, or None where there is none."""
    try:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        # glibc names the one with 64-bit offsets so on every architecture; musl has only the other, always 64-bit.
        function = getattr(library, "fallocate64", None) or library.fallocate
    except (ImportError, OSError, AttributeError, TypeError):
        return None
    function.restype = ctypes.c_int
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

    def call(fd: int, mode: int, offset: int, length: int) -> int:
        return 0 if function(fd, mode, offset, length) == 0 else ctypes.get_errno()

    return call
