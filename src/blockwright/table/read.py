"""A disk's partition table, of whichever kind it has.

Knows: which kind counts where a disk shows signs of several. Refuses to know: how any kind is laid out.
"""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.table.gpt import read as gpt
from blockwright.table.mbr import read as mbr
from blockwright.table.partition import AnyTable


def read(device: BlockDevice, *, sector_size: int | None = None) -> AnyTable:
    """Return the device's table: a GUID partition table, else a master boot record.

    A protective record alone, in front of a GUID partition table whose copies are gone, is no table of its own; a
    boot record without partitions is one where nothing else is found.
    ``sector_size`` is what a master boot record counts in; a GUID partition table tells that by itself. Raises
    NotThisFormat, Corrupt, LimitExceeded.
    """
    if is_mbr(device, sector_size=sector_size):
        return mbr.read(device, sector_size=sector_size)
    if mbr.is_empty(device, sector_size=sector_size) and not gpt.probe(device):
        return mbr.read(device, sector_size=sector_size)
    return gpt.read(device)


def is_mbr(device: BlockDevice, *, sector_size: int | None = None) -> bool:
    """Whether the device's table is a master boot record: one with partitions, and no GUID partition table behind."""
    return not gpt.probe_primary(device) and mbr.probe(device, sector_size=sector_size)


def probe_any(device: BlockDevice, *, sector_size: int | None = None) -> bool:
    """Whether ``read`` finds a table, one without partitions too, which a master boot record shows by little."""
    return probe(device, sector_size=sector_size) or mbr.is_empty(device, sector_size=sector_size)


def probe(device: BlockDevice, *, sector_size: int | None = None) -> bool:
    """Whether the device shows a partition table that ``read`` knows."""
    return gpt.probe(device) or mbr.probe(device, sector_size=sector_size)
