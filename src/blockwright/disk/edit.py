"""A disk opened so that its partition table can change: images, block devices and exports.

Knows: whether a disk has a table, who has to hear of a new one. Refuses to know: what tables say.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from blockwright.address import parse_address, part_name
from blockwright.device.base import BlockDevice
from blockwright.device.file import HostBlockDevice
from blockwright.device.inplace import check_blank
from blockwright.device.window import Window
from blockwright.errors import FormatError, KernelError, UsageError
from blockwright.format.policy import REFUSE, Policy
from blockwright.fs.fat.read import FatFileSystem as FatFiles
from blockwright.nbd.client.options import ClientOptions
from blockwright.resolve import (
    Known,
    identify,
    naming,
    no_table,
    open_device,
    open_file_system,
    refuse_container,
    sector_size_of,
)
from blockwright.table import edit
from blockwright.table import read as tables
from blockwright.table.gpt.hybrid import Shown
from blockwright.table.partition import AnyPartition, AnyTable, PartitionTable
from blockwright.units import SECTOR

_RESCAN_TIMEOUT_S: Final = 5.0
_RESCAN_PAUSE_S: Final = 0.05


def split_target(text: str, number: int | None = None) -> tuple[str, int | None]:
    """Return the whole disk that ``text`` names, and the partition: ``disk.img:2`` and ``disk.img`` with 2 are one.

    Raises UsageError where both say one, and for a range of bytes.
    """
    address = parse_address(text)
    if address.start is not None or (number is not None and address.partition is not None):
        raise UsageError(f"{text}: expected a whole disk, or one of its partitions named once")
    return str(replace(address, partition=None)), number if address.partition is None else address.partition


class DiskEditor:
    """The whole disk that ``image`` names, open for writing; as a context manager it closes it at the end.

    ``sector_size`` is what a master boot record counts in, and a new table; without it the device's own, else 512.
    ``form`` and ``policy`` are as ``open_device`` has them. Raises InUse naming the holder; NotFound, UsageError as
    ``open_device`` does.
    """

    def __init__(
        self,
        image: str,
        *,
        sector_size: int | None = None,
        force_unlocked: bool = False,
        client: ClientOptions | None = None,
        form: str | None = None,
        policy: Policy = REFUSE,
        writable: bool = True,
    ) -> None:
        address = parse_address(image)
        refuse_container(image, address)
        if address.is_part:
            raise UsageError(f"{image}: expected a whole disk, found a part of one")
        self.name = image
        self.device = open_device(
            image,
            writable=writable,
            force_unlocked=force_unlocked,
            alone=writable,
            client=client,
            form=form,
            policy=policy,
        )
        self._given = sector_size or sector_size_of(self.device)
        self._changed = False

    @property
    def sector_size(self) -> int:
        """What a new table counts in, in bytes."""
        return self._given or max(SECTOR, self.device.traits.minimum_block)

    def table(self) -> AnyTable:
        """Return the table that the disk has. Raises NotThisFormat where it has none; Corrupt."""
        return read_table(self.device, self.name, sector_size=self._given)

    def require_blank(self) -> None:
        """Raise UsageError where the disk holds a table, a file system, or anything that is not known at its ends."""
        found = identify(self.device)
        if found is not None:
            raise UsageError(f"{self.name}: holds {found.value} already; --force overwrites it")
        if not tables.probe_any(self.device, sector_size=self._given):
            check_blank(self.device, self.name)

    def require_room(self, part: AnyPartition, size: int) -> None:
        """Raise UsageError where the file system in the partition would not fit ``size`` bytes any more."""
        with Window(self.device, part.start, part.size, owns=False) as window:
            least = _file_system_size(window, part_name(self.name, part.number))
        if size < least:
            raise UsageError(
                f"partition {part.number}: expected at least the {least} bytes of the file system in it,"
                f" found {size}: make that smaller first, or use --force"
            )

    def write(self, table: AnyTable) -> None:
        """Make ``table`` the disk's, and durable. Raises as ``table.edit.write`` does."""
        self._changed = True
        edit.write(self.device, table)

    def write_boot_code(self, code: bytes) -> None:
        """Have ``code`` where a BIOS starts the disk. Raises NotThisFormat for a disk without a table; UsageError."""
        self.table()
        edit.write_boot_code(self.device, code)

    def write_hybrid(self, shown: Sequence[Shown]) -> None:
        """Have the MBR tell of partitions of the GPT too. Raises UsageError for a disk without a GPT; NotFound."""
        table = self.table()
        if not isinstance(table, PartitionTable):
            raise UsageError(f"{self.name}: expected a GPT for a hybrid MBR, found {table.kind}")
        self._changed = True
        edit.write_hybrid(self.device, table, shown)

    def close(self) -> None:
        """Close the disk, and have the kernel read a table that changed. Raises KernelError where it does not."""
        self.device.close()
        if self._changed and isinstance(self.device, HostBlockDevice):
            self._changed = False
            reread(self.device.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(KernelError):
            self.close()


def read_table(device: BlockDevice, name: str, *, sector_size: int | None = None) -> AnyTable:
    """Return the table of an open disk. Raises NotThisFormat where it has none, or a file system instead; Corrupt."""
    with naming(name):
        found = identify(device)
        if found in (Known.EXT4, Known.FAT):
            raise no_table(found)
        if found is None and not tables.probe_any(device, sector_size=sector_size):
            raise no_table(found)
        return tables.read(device, sector_size=sector_size)


def _file_system_size(device: BlockDevice, name: str) -> int:
    """Return the bytes that the device's file system says it has; 0 where there is none, or none that holds."""
    try:
        with open_file_system(device, source=name) as files:
            return files.geometry.size if isinstance(files, FatFiles) else files.usage().size
    except FormatError:
        return 0


def reread(path: str) -> None:
    """Have the kernel's partitions of the block device be those of its table.

    Whoever looks into a new device by itself, as udevd does, is waited for. A device that has no partitions in the
    kernel (most loop devices) stays without. Raises KernelError where one of them is in use.
    """
    if sys.platform != "linux":
        return
    from blockwright.system.linux import blkdev
    from blockwright.system.linux.ioctl import opened

    end = time.monotonic() + _RESCAN_TIMEOUT_S
    while True:
        try:
            with opened(path, os.O_RDONLY) as fd:
                blkdev.rescan(fd, path)
        except KernelError as error:
            if error.errno == errno.EINVAL:
                return
            if error.errno != errno.EBUSY or time.monotonic() >= end:
                raise
        else:
            return
        time.sleep(_RESCAN_PAUSE_S)
