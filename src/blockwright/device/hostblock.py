"""Block devices of the host as devices.

Knows: what the kernel tells of a disk, and O_EXCL. Refuses to know: partitions, and what the bytes mean.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import Final

from blockwright.device import fallocate, holders, hostfile
from blockwright.device.base import Traits, Waits
from blockwright.device.descriptor import (
    PARALLELISM,
    HostDevice,
    Path,
    block_size,
    claim,
    kind_of,
    named_error,
    open_descriptor,
)
from blockwright.errors import InUse, ReadOnly, UsageError
from blockwright.units import SECTOR, KiB, align_down, align_up

# linux/fs.h
_BLKROGET: Final = 0x125E
_BLKSSZGET: Final = 0x1268
_BLKPBSZGET: Final = 0x127B


class HostBlockDevice(HostDevice):
    """A block device of the host, of the size the kernel tells.

    Opened for writing only while nothing else claims it: a mount, swap, a device on top of it (O_EXCL). Raises
    InUse then, unless ``force_unlocked``; ReadOnly where the kernel takes no writes to it; UsageError where ``path``
    is no block device; OSError from the host.
    """

    def __init__(
        self, path: Path, *, writable: bool = False, force_unlocked: bool = False, alone: bool = False
    ) -> None:
        name = os.fsdecode(path)
        exclusive = writable and not force_unlocked
        try:
            fd = open_descriptor(path, writable=writable, exclusive=exclusive)
        except OSError as error:
            if error.errno != errno.EBUSY or not exclusive:
                raise
            users = holders.users_of_block_device(os.stat(path))
            raise InUse(f"{name}: is in use: {holders.named(users) or 'another program claims it'}") from None
        try:
            status = os.fstat(fd)
            if not stat.S_ISBLK(status.st_mode):
                raise UsageError(f"{name}: expected a block device, found a {kind_of(status.st_mode)}")
            if writable and _is_read_only(fd):
                raise ReadOnly(f"{name}: is read-only")
            if not force_unlocked:
                claim(fd, status, name, writable=writable, alone=alone)
            super().__init__(fd, name, os.lseek(fd, 0, os.SEEK_END), _traits(fd, status, writable=writable))
        except BaseException:
            os.close(fd)
            raise

    @property
    def sector_size(self) -> int:
        """The logical sector in bytes: what partition tables on the device count in. Any range can be read."""
        return _number(self._fd, _BLKSSZGET) or SECTOR

    @property
    def physical_sector_size(self) -> int:
        """The bytes that the medium writes at once."""
        return _number(self._fd, _BLKPBSZGET) or self.sector_size

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        """Discard the whole blocks within the range."""
        block = self._traits.preferred_block
        start, end = align_up(offset, block), align_down(offset + length, block)
        if start < end and self._traits.discard:
            try:
                fallocate.discard_blocks(self._fd, start, end - start)
            except OSError as error:
                raise named_error(error, self._name) from None


def _is_read_only(fd: int) -> bool:
    return bool(_number(fd, _BLKROGET))


def _number(fd: int, request: int) -> int:
    """Return what the kernel answers to a request for an int; 0 where it does not know the request."""
    if sys.platform != "linux":
        return 0
    import fcntl

    buffer = bytearray(4)
    try:
        fcntl.ioctl(fd, request, buffer)
    except OSError:
        return 0
    return int.from_bytes(buffer, sys.byteorder)


def _traits(fd: int, status: os.stat_result, *, writable: bool) -> Traits:
    queue = _queue_limits(status)
    return Traits(
        writable=writable,
        discard=writable and queue.get("discard_max_bytes", 0) > 0,
        fast_zero=writable and queue.get("write_zeroes_max_bytes", 0) > 0,
        fua=writable and hostfile.HAS_FUA,
        waits=Waits.SOMETIMES if hostfile.can_read_cached(fd) else Waits.ALWAYS,
        parallelism=PARALLELISM,
        preferred_block=block_size(max(4 * KiB, queue.get("physical_block_size", SECTOR))),
    )


def _queue_limits(status: os.stat_result) -> dict[str, int]:
    """Return what the kernel tells of the disk behind a device or partition; nothing elsewhere than on Linux."""
    limits = {}
    base = holders.sysfs_folder(status) if sys.platform == "linux" else ""
    for name in ("discard_max_bytes", "write_zeroes_max_bytes", "physical_block_size"):
        for folder in (f"{base}/queue", f"{base}/../queue"):
            try:
                with open(f"{folder}/{name}", encoding="ascii") as file:
                    limits[name] = int(file.read())
                break
            except (OSError, ValueError):
                continue
    return limits
