"""Ties an open file to an open loop device, and makes sure that the result is what was asked for.

LOOP_CONFIGURE does it at once (Linux 5.8); older kernels need LOOP_SET_FD and what follows it, with the device taken
apart again where a later step fails. Kernels accept wishes that they do not fulfil (direct I/O on a file system
without it; in 5.8 a size limit), so the device is asked afterwards.

Knows: one attachment. Refuses to know: which device is free, and who else uses the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import time
from dataclasses import dataclass
from typing import Final

from blockwright.errors import KernelError
from blockwright.system.linux import blkdev
from blockwright.system.linux.ioctl import call, kernel_error
from blockwright.system.linux.loop import layout
from blockwright.system.linux.loop.layout import Flag
from blockwright.system.linux.loop.state import info

TRIES: Final = 64
"""How often a step is tried that the kernel answers with EAGAIN, or that somebody else was faster at."""
_MAX_PAUSE_S: Final = 0.25
_NO_CONFIGURE: Final = {errno.EINVAL, errno.ENOTTY, errno.ENOSYS}
"""What kernels before 5.8 answer to LOOP_CONFIGURE; EINVAL also says that a value does not please."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be attached, and how. Bytes; ``size`` is what the device must have then."""

    name: str
    offset: int
    size_limit: int
    size: int
    block_size: int | None
    read_only: bool
    direct_io: bool
    autoclear: bool
    partition_scan: bool

    @property
    def flags(self) -> int:
        """The driver's flags."""
        return (
            Flag.READ_ONLY * self.read_only
            | Flag.AUTOCLEAR * self.autoclear
            | Flag.PARTSCAN * self.partition_scan
            | Flag.DIRECT_IO * self.direct_io
        )


def pause(attempt: int) -> None:
    """Wait before another attempt: at random, so that those who met part; longer each time, up to 0.25 s."""
    time.sleep(random.uniform(0, min(_MAX_PAUSE_S, 0.002 * 2**attempt)))  # noqa: S311 - not for secrets


def configure(fd: int, path: str, file: int, wish: Wish) -> None:
    """Have ``file`` attached to the open device as wished, or not at all.

    Raises KernelError: EBUSY where the device is taken; EINVAL for a block size that the kernel does not take.
    """
    try:
        _configure(fd, path, file, wish)
    except KernelError as error:
        if error.errno not in _NO_CONFIGURE:
            raise
        _set_step_by_step(fd, path, file, wish)
    try:
        _settle(fd, path, wish)
    except BaseException:
        clear(fd, path)
        raise


def clear(fd: int, path: str) -> None:
    """Tell the driver to let go of the file; what is free already stays so."""
    with contextlib.suppress(KernelError):
        call(fd, layout.CLR_FD, operation="LOOP_CLR_FD", device=path)


def _configure(fd: int, path: str, file: int, wish: Wish) -> None:
    config = layout.Config(fd=file, block_size=wish.block_size or 0, info=_info(wish).pack())
    _again(fd, path, layout.CONFIGURE, config.pack(), "LOOP_CONFIGURE")


def _info(wish: Wish) -> layout.Info:
    return layout.Info(
        lo_offset=wish.offset,
        lo_sizelimit=wish.size_limit,
        lo_flags=wish.flags,
        lo_file_name=os.fsencode(wish.name)[: layout.NAME_SIZE - 1],
    )


def _set_step_by_step(fd: int, path: str, file: int, wish: Wish) -> None:
    call(fd, layout.SET_FD, file, operation="LOOP_SET_FD", device=path)
    try:
        if wish.block_size is not None:
            _again(fd, path, layout.SET_BLOCK_SIZE, wish.block_size, "LOOP_SET_BLOCK_SIZE")
        _again(fd, path, layout.SET_STATUS64, _info(wish).pack(), "LOOP_SET_STATUS64")
        if wish.direct_io:
            _again(fd, path, layout.SET_DIRECT_IO, 1, "LOOP_SET_DIRECT_IO")
    except BaseException:
        clear(fd, path)
        raise


def _again(fd: int, path: str, request: int, argument: int | bytes, operation: str) -> None:
    """Ask until the driver answers anything but EAGAIN, as it does while pages of the device are in use."""
    for attempt in range(TRIES):
        try:
            call(fd, request, argument, operation=operation, device=path)
        except KernelError as error:
            if error.errno != errno.EAGAIN or attempt == TRIES - 1:
                raise
            pause(attempt)
        else:
            return


def _settle(fd: int, path: str, wish: Wish) -> None:
    """Check what came of it; set once more what LOOP_CONFIGURE of Linux 5.8 passes over."""
    found = info(fd, path)
    if found is None:
        raise KernelError("attach", path, errno.ENXIO, "the device is free at once: somebody else detached it")
    wanted = wish.flags & (Flag.AUTOCLEAR | Flag.PARTSCAN)
    size = blkdev.size(fd, path)
    if found.lo_flags & wanted != wanted or size != wish.size:
        _again(fd, path, layout.SET_STATUS64, _info(wish).pack(), "LOOP_SET_STATUS64")
        found = info(fd, path) or layout.Info()
        size = blkdev.size(fd, path)
    flags = found.lo_flags
    direct_io = bool(flags & Flag.DIRECT_IO)
    direct = "; the file system under the image cannot do it" if wish.direct_io else ""
    for what, expected, shown in (
        ("offset", wish.offset, found.lo_offset),
        ("size", wish.size, size),
        ("block size", wish.block_size, wish.block_size and blkdev.sector_size(fd, path)),
        ("read-only", wish.read_only, bool(flags & Flag.READ_ONLY) and blkdev.is_read_only(fd, path)),
        ("autoclear", wish.autoclear, bool(flags & Flag.AUTOCLEAR)),
        ("partition scan", wish.partition_scan, bool(flags & Flag.PARTSCAN)),
        (f"direct I/O{direct}", wish.direct_io or direct_io, direct_io),
    ):
        if expected != shown:
            raise kernel_error("attach", path, errno.EINVAL, f"{what}: expected {expected}, found {shown}")
