"""Writes a table of either kind over whatever table the device has, so that a power cut leaves one that is whole.

Between two kinds the order is: what the old table does not look at, then the sector that decides which kind counts,
then what is left of the old one.

Knows: which kind counts, boot code. Refuses to know: what a table should say (``gpt.change``, ``mbr.change``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from blockwright.device.base import BlockDevice
from blockwright.errors import FormatError, UsageError
from blockwright.table.gpt import change as gpt_change
from blockwright.table.gpt import edit as gpt
from blockwright.table.gpt import layout as gpt_layout
from blockwright.table.gpt import read as gpt_read
from blockwright.table.gpt.hybrid import Shown, with_hybrid
from blockwright.table.mbr import change as mbr_change
from blockwright.table.mbr import edit as mbr
from blockwright.table.mbr import layout
from blockwright.table.partition import AnyTable, MbrTable, PartitionTable
from blockwright.table.read import is_mbr


def write(device: BlockDevice, table: AnyTable) -> None:
    """Make ``table`` the device's, and durable; boot code and what is in the partitions stay.

    A power cut leaves the table that was there or this one. Raises UsageError for what cannot be written (also: a
    change of a partition that a hybrid MBR has too); ReadOnly; what the device raises.
    """
    if isinstance(table, PartitionTable):
        _refuse_hybrid(device, table)
        gpt.write(device, table, primary_first=_backup_counts(device, table.sector_size))
        return
    kept = [(each.start, each.end) for each in table.primary]
    if not gpt_read.probe_primary(device):
        gpt.erase(device, keep=kept)  # a copy that was left at the end would count again, were there no partitions
    mbr.write(device, table)
    gpt.erase(device, keep=kept)


def _backup_counts(device: BlockDevice, sector_size: int) -> bool:
    """Whether the device's table is the backup of a GUID partition table, whose primary copy is broken."""
    if is_mbr(device, sector_size=sector_size):
        return False
    try:
        return gpt_read.load(device, sector_size=sector_size).source == "backup"
    except FormatError:
        return False


def remove(table: AnyTable, number: int) -> AnyTable:
    """Return the table without that partition, as ``remove`` of its kind has it."""
    return gpt_change.remove(table, number) if isinstance(table, PartitionTable) else mbr_change.remove(table, number)


def resize(table: AnyTable, number: int, size: int | None) -> AnyTable:
    """Return the table with that partition of another size, as ``resize`` of its kind has it."""
    if isinstance(table, PartitionTable):
        return gpt_change.resize(table, number, size)
    return mbr_change.resize(table, number, size)


def only_bootable(table: AnyTable, number: int) -> AnyTable:
    """Return the table in which a BIOS's boot code finds that partition, and no other.

    By the legacy boot attribute in a GUID partition table, by the active flag in a master boot record. Raises
    NotFound; UsageError for a logical partition.
    """
    if isinstance(table, PartitionTable):
        return gpt_change.only_legacy_boot(table, number)
    return mbr_change.change(table, number, active=True)


def fit(table: AnyTable, size: int) -> AnyTable:
    """Return the table for a disk of ``size`` bytes. Raises NoSpace where a partition would not fit any more."""
    return gpt.fit(table, size) if isinstance(table, PartitionTable) else mbr_change.fit(table, size)


def with_disk_guid(table: PartitionTable, guid: UUID) -> PartitionTable:
    """Return the table of a disk of that GUID."""
    return replace(table, disk_guid=guid)


def with_signature(table: MbrTable, signature: int) -> MbrTable:
    """Return the table of a disk of that signature, which is a part of every partition's identity."""
    partitions = tuple(replace(each, disk_signature=signature) for each in table.partitions)
    return replace(table, disk_signature=signature, partitions=partitions)


def write_hybrid(device: BlockDevice, table: PartitionTable, shown: Sequence[Shown]) -> None:
    """Have the MBR in front of a GPT tell of those partitions too; of none, and it only protects.

    One sector is written; boot code and disk signature stay. Raises UsageError and NotFound as ``with_hybrid`` does;
    ReadOnly.
    """
    size = max(512, device.traits.minimum_block)
    sector = bytearray(device.read(0, size))
    sector[:512] = with_hybrid(bytes(sector[:512]), table, shown)
    device.write(0, bytes(sector))
    device.flush()


def write_boot_code(device: BlockDevice, code: bytes) -> None:
    """Have ``code``, 440 bytes at most, where a BIOS starts a disk; disk signature and partitions stay.

    What is shorter is filled up with zeros; no bytes at all clear it. One sector is written. Raises UsageError for
    more bytes; ReadOnly.
    """
    if len(code) > layout.BOOT_CODE:
        raise UsageError(f"boot code: expected at most {layout.BOOT_CODE} bytes, found {len(code)}")
    size = max(512, device.traits.minimum_block)
    sector = bytearray(device.read(0, size))
    sector[: layout.BOOT_CODE] = code.ljust(layout.BOOT_CODE, b"\0")
    device.write(0, bytes(sector))
    device.flush()


def disk_signature(device: BlockDevice) -> int:
    """Return the number in the first sector that tells this disk from others, 0 where there is none."""
    sector = device.read(0, max(512, device.traits.minimum_block))
    return layout.Signature.parse(sector).disk_signature if layout.is_signed(sector) else 0


def _refuse_hybrid(device: BlockDevice, table: PartitionTable) -> None:
    """Raise UsageError where the new table has lost a run that a hybrid MBR tells of too."""
    sector = device.read(0, table.sector_size)
    if not gpt_layout.has_protective(sector):
        return
    size = table.sector_size
    known = {(each.start // size, each.size // size) for each in table.partitions}
    for index, entry in enumerate(gpt_layout.mbr_entries(sector)):
        if entry.os_type in (layout.EMPTY, layout.PROTECTIVE) or not entry.size_in_lba:
            continue
        if (entry.starting_lba, entry.size_in_lba) not in known:
            raise UsageError(
                f"table: expected the partition at sector {entry.starting_lba} to stay, since entry {index + 1} of"
                " the hybrid MBR tells of it too, found it changed or gone"
            )
