"""Block devices of the host as devices.

Knows: what the kernel tells of a disk, and O_EXCL. Refuses to know: partitions, and what the bytes mean.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from typing import Final

from blockwright.device import darwin, fallocate, holders, hostfile
from blockwright.device.base import Traits, Waits
from blockwright.device.descriptor import (
    PARALLELISM,
    HostDevice,
    Path,
    block_size,
    claim,
    is_disk,
    kind_of,
    named_error,
    open_descriptor,
)
from blockwright.errors import InUse, ReadOnly, UsageError
from blockwright.units import SECTOR, KiB, align_down, align_up

# linux/fs.h (BLKROGET, BLKSSZGET, BLKPBSZGET, BLKFLSBUF) and sys/disk.h
_READ_ONLY: Final = {"linux": 0x125E}
_WRITABLE: Final = {"darwin": darwin.DKIOCISWRITABLE}
_SECTOR: Final = {"linux": 0x1268, "darwin": darwin.DKIOCGETBLOCKSIZE}
_PHYSICAL_SECTOR: Final = {"linux": 0x127B, "darwin": darwin.DKIOCGETPHYSICALBLOCKSIZE}
_BLKFLSBUF: Final = 0x1261


class HostBlockDevice(HostDevice):
    """A block device of the host, of the size the kernel tells.

    Opened for writing only while nothing else claims it: a mount, swap, a device on top of it (O_EXCL; on macOS its
    list of mounts, and what the disk itself refuses). Raises InUse then, unless ``force_unlocked``; ReadOnly where
    the kernel takes no writes to it; UsageError where ``path`` is no block device; OSError from the host.
    """

    _direct = False
    """Whether it is opened past the host's cache, where the file's kind does not say so."""

    def __init__(
        self, path: Path, *, writable: bool = False, force_unlocked: bool = False, alone: bool = False
    ) -> None:
        name = os.fsdecode(path)
        exclusive = writable and not force_unlocked
        if exclusive and (points := _mounted_on_darwin(name)):
            raise InUse(f"{name}: is in use: {holders.named(points)}")
        try:
            fd = open_descriptor(path, writable=writable, exclusive=exclusive, direct=self._direct)
        except OSError as error:
            if error.errno != errno.EBUSY or not exclusive:
                raise
            users = holders.users_of_block_device(os.stat(path))
            raise InUse(f"{name}: is in use: {holders.named(users) or 'another program claims it'}") from None
        try:
            status = os.fstat(fd)
            if not is_disk(path, status.st_mode):
                raise UsageError(f"{name}: expected a block device, found a {kind_of(status.st_mode)}")
            if writable and _is_read_only(fd):
                raise ReadOnly(f"{name}: is read-only")
            if not force_unlocked:
                claim(fd, status, name, writable=writable, alone=alone)
            size = darwin.open_size(fd) or os.lseek(fd, 0, os.SEEK_END)
            super().__init__(fd, name, size, _traits(fd, status, writable=writable))
        except BaseException:
            os.close(fd)
            raise

    @property
    def sector_size(self) -> int:
        """The logical sector in bytes: what partition tables on the device count in. Any range can be read."""
        return _number(self._fd, _SECTOR) or SECTOR

    @property
    def physical_sector_size(self) -> int:
        """The bytes that the medium writes at once."""
        return _number(self._fd, _PHYSICAL_SECTOR) or self.sector_size

    def forget_cache(self) -> None:
        """Have what is read from now on come from the medium, as far as the host does that: all must be flushed."""
        if sys.platform != "linux":
            return
        import fcntl

        try:
            fcntl.ioctl(self._fd, _BLKFLSBUF, 0)
        except OSError:  # root may only
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

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
    return bool(_number(fd, _READ_ONLY)) or _number(fd, _WRITABLE) == 0


def _mounted_on_darwin(path: str) -> list[str]:
    """Return where something of a disk is mounted, by either of its names; nothing elsewhere than on macOS."""
    found = darwin.disk_name(path) if sys.platform == "darwin" else None
    return [] if found is None else [f"mounted on {point}" for point in darwin.mounted_from(found[0])]


def _number(fd: int, requests: Mapping[str, int]) -> int | None:
    """Return what the kernel answers to the system's request for an int; None where it has or knows none."""
    request = requests.get(sys.platform)
    if sys.platform == "win32" or request is None:
        return None
    import fcntl

    buffer = bytearray(4)
    try:
        fcntl.ioctl(fd, request, buffer)
    except OSError:
        return None
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
