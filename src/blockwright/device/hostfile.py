"""Whole transfers to and from an open file of the host, at any offset, on every platform.

Knows: vectored calls, short transfers, what makes writes durable. Refuses to know: devices, paths.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Final

from blockwright.device.vector import Cutter, total
from blockwright.units import GiB, KiB

MAX_TRANSFER: Final = GiB
"""Bytes asked of one call: Linux transfers at most 2 GiB, and Darwin refuses more."""

MAX_CACHED: Final = 512 * KiB
"""Bytes that one call writes to the host's cache. For longer writes Linux takes larger pages for its cache, up to
those of 2 MiB: memory that nobody used lately, so that copying there takes up to five times as long."""

IOV_MAX: Final = 1024
"""Buffers handed to one call: the limit of Linux, Darwin and FreeBSD."""

HAS_FUA: Final = sys.platform == "linux" and hasattr(os, "RWF_DSYNC")
"""Whether one write can be made durable by itself."""

_DKIOCSYNCHRONIZECACHE: Final = 0x2000_6416
"""sys/disk.h of Darwin."""

_SYNC_WRITE: Final = 2
"""SYNC_FILE_RANGE_WRITE of Linux."""

_cursor = threading.Lock()
"""Held where a file's own cursor has to be moved: Windows has no positioned reads in ``os``."""


def read_full(fd: int, offset: int, buffers: Sequence[memoryview]) -> int:
    """Fill the buffers from ``offset`` on and return the bytes read, which are fewer only where the file ends."""
    wanted = total(buffers)
    if len(buffers) <= IOV_MAX and wanted <= MAX_TRANSFER:
        done = _read_some(fd, offset, buffers)
        if done in (0, wanted):
            return done
    else:
        done = 0
    cutter = Cutter(buffers)
    cutter.take(done)
    while done < wanted:
        batch = cutter.take_at_most(IOV_MAX, MAX_TRANSFER)
        length, got = total(batch), 0
        while got < length:
            count = _read_some(fd, offset + done + got, batch if not got else _behind(batch, got))
            if not count:
                return done + got
            got += count
        done += length
    return done


def end_of(fd: int) -> int:
    """Return the size of a file or block device as it is now, in bytes."""
    with _cursor:
        return os.lseek(fd, 0, os.SEEK_END)


_NO_WAIT: Final = getattr(os, "RWF_NOWAIT", 0) if sys.platform == "linux" else 0


def read_cached(fd: int, offset: int, buffers: Sequence[memoryview]) -> bool:
    """Fill the buffers if all of it is in the host's cache, and say whether it was."""
    if sys.platform != "linux" or not _NO_WAIT:
        return False
    wanted = total(buffers) if len(buffers) != 1 else len(buffers[0])
    try:
        return os.preadv(fd, buffers, offset, _NO_WAIT) == wanted
    except OSError:
        return False  # not cached, or a file system that cannot tell: an error that lasts is the waiting read's


def can_read_cached(fd: int) -> bool:
    """Whether ``read_cached`` works on this file at all."""
    if sys.platform != "linux" or not _NO_WAIT:
        return False
    try:
        os.preadv(fd, [bytearray(1)], 0, _NO_WAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def write_full(fd: int, offset: int, buffers: Sequence[memoryview], *, durable: bool = False) -> None:
    """Write the buffers at ``offset``, all of them; with ``durable`` they survive a power cut."""
    wanted, done = len(buffers[0]) if len(buffers) == 1 else total(buffers), 0
    most = MAX_TRANSFER if durable and HAS_FUA else MAX_CACHED  # each durable call is a trip to the medium
    if len(buffers) <= IOV_MAX and wanted <= most:
        done = _write_some(fd, offset, buffers, durable=durable)
    if done < wanted:
        cutter = Cutter(buffers)
        cutter.take(done)
        while done < wanted:
            batch = cutter.take_at_most(IOV_MAX, most)
            length, put = total(batch), 0
            while put < length:
                part = batch if not put else _behind(batch, put)
                put += _write_some(fd, offset + done + put, part, durable=durable)
            done += length
    if durable and not HAS_FUA:
        sync_data(fd)


def _behind(batch: Sequence[memoryview], skip: int) -> list[memoryview]:
    cutter = Cutter(batch)
    cutter.take(skip)
    return cutter.take(total(batch) - skip)


if sys.platform == "win32":

    def _read_some(fd: int, offset: int, buffers: Sequence[memoryview]) -> int:
        done = 0
        with _cursor:
            os.lseek(fd, offset, os.SEEK_SET)
            for buffer in buffers:
                data = os.read(fd, len(buffer))
                buffer[: len(data)] = data
                done += len(data)
                if len(data) < len(buffer):
                    break
        return done

    def _write_some(
        fd: int,
        offset: int,
        buffers: Sequence[memoryview],
        *,
        durable: bool,  # noqa: ARG001 - the caller syncs behind the last write
    ) -> int:
        done = 0
        with _cursor:
            os.lseek(fd, offset, os.SEEK_SET)
            for buffer in buffers:
                count = os.write(fd, buffer)
                done += count
                if count < len(buffer):
                    break
        return done

    def sync_data(fd: int) -> None:
        """Make durable what was written to the file."""
        os.fsync(fd)

else:
    _VECTORED = hasattr(os, "preadv") and hasattr(os, "pwritev")

    def _read_some(fd: int, offset: int, buffers: Sequence[memoryview]) -> int:
        if _VECTORED:
            return os.preadv(fd, buffers, offset)
        done = 0
        for buffer in buffers:
            data = os.pread(fd, len(buffer), offset + done)
            buffer[: len(data)] = data
            done += len(data)
            if len(data) < len(buffer):
                break
        return done

    def _write_some(fd: int, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> int:
        if sys.platform == "linux" and durable and HAS_FUA:
            return os.pwritev(fd, buffers, offset, os.RWF_DSYNC)
        if _VECTORED:
            return os.pwritev(fd, buffers, offset)
        done = 0
        for buffer in buffers:
            count = os.pwrite(fd, buffer, offset + done)
            done += count
            if count < len(buffer):
                break
        return done

    if sys.platform == "darwin":

        def sync_data(fd: int) -> None:
            """Make durable what was written to the file: Darwin's fsync leaves it in the drive's cache."""
            import fcntl

            try:
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            except OSError:
                os.fsync(fd)  # a file system without F_FULLFSYNC: the network's; or a disk, which has its own request
                with suppress(OSError):
                    fcntl.ioctl(fd, _DKIOCSYNCHRONIZECACHE)

    else:

        def sync_data(fd: int) -> None:
            """Make durable what was written to the file, with as much metadata as reading it back needs."""
            os.fdatasync(fd)


def begin_sync(fd: int) -> bool:
    """Have all that was written to a file be on its way to the medium; False where the system cannot.

    What goes wrong there is told by the next fsync. Source: sync_file_range(2), SYNC_FILE_RANGE_WRITE.
    """
    function = _sync_function()
    return function is not None and function(fd, 0, 0, _SYNC_WRITE) == 0


@cache
def _sync_function() -> Callable[[int, int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        function = ctypes.CDLL(None).sync_file_range
    except (ImportError, OSError, AttributeError, TypeError):
        return None
    function.restype = ctypes.c_int
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    call: Callable[[int, int, int, int], int] = function
    return call
