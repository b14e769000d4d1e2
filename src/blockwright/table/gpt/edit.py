"""Writes a GUID partition table to a device: both copies and the protective MBR, and nothing else.

The copy that is not trusted yet is written first and made durable, so that a power cut at any point leaves one
copy that is whole.

Knows: the order of writes. Refuses to know: what a table should say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from blockwright.device.base import BlockDevice
from blockwright.errors import NoSpace, NotThisFormat, UsageError
from blockwright.table.gpt import layout
from blockwright.table.gpt.plan import check_table, entries_bytes, pack_entries, pack_headers
from blockwright.table.gpt.read import copies, load
from blockwright.table.partition import PartitionTable
from blockwright.units import align_up


def write(device: BlockDevice, table: PartitionTable, *, primary_first: bool = False) -> None:
    """Make ``table`` the device's: backup, then primary, then protective MBR; boot code and partitions stay.

    ``primary_first`` is for a disk whose backup is what can be read. Raises UsageError for a table that cannot be
    written or is for another size; ReadOnly; what the device raises.
    """
    check_table(table)
    sector = table.sector_size
    if device.size // sector * sector != table.size:
        raise UsageError(f"table: expected one for a disk of {device.size} bytes, found one for {table.size}")
    entries = pack_entries(table)
    primary, backup = pack_headers(table, entries)
    array = entries.ljust(entries_bytes(sector, table.entry_count, table.entry_size), b"\0")
    first = device.read(0, sector)
    rest = bytes(sector - 512) if first[512:].startswith(layout.SIGNATURE) else first[512:]  # of smaller sectors
    mbr = layout.with_protective(first, table.size // sector) + rest

    def write_primary() -> None:
        device.write(table.entries_start, array)
        device.write(sector, primary)
        device.flush()
        # Behind it, so that a master boot record with partitions of its own holds until this table does.
        if mbr != first:
            device.write(0, mbr)
            device.flush()

    def write_backup() -> None:
        device.write(table.size - sector - len(array), array, backup)
        device.flush()

    for step in (write_primary, write_backup) if primary_first else (write_backup, write_primary):
        step()


def erase(device: BlockDevice, *, keep: Sequence[tuple[int, int]] = (), sector_size: int | None = None) -> None:
    """Leave no copy of a GUID partition table on the device; the first sector stays. Idempotent.

    The primary copy goes first, since it is what counts. No byte of the runs in ``keep`` (start, end) is touched.
    """
    try:
        found = copies(device, sector_size=sector_size)
    except NotThisFormat:
        return
    for copy in found:
        if copy.header is None:
            continue
        start, sector = copy.lba * copy.sector_size, copy.sector_size
        runs = [(start, start + sector)]
        if copy.entries is not None:
            runs.append((copy.entries_offset, align_up(copy.entries_offset + len(copy.entries), sector)))
        for low, high in runs:
            if not any(low < end and begin < high for begin, end in keep):
                device.write(low, bytes(high - low))
        device.flush()


def fit(table: PartitionTable, size: int) -> PartitionTable:
    """Return the table for a disk of ``size`` bytes: its usable range ends before the backup at the new end.

    Raises NoSpace where a partition would not fit any more.
    """
    sector = table.sector_size
    size = size // sector * sector
    array = entries_bytes(sector, table.entry_count, table.entry_size)
    end = size - sector - array
    needed = max((each.end for each in table.partitions), default=table.usable_start)
    if end < needed:
        raise NoSpace(
            f"gpt: a disk of {size} bytes has room for partitions up to byte {end}, and they reach to {needed}"
        )
    return replace(table, size=size, usable_end=end)


def move_backup(device: BlockDevice, *, sector_size: int | None = None) -> PartitionTable:
    """Put the backup at the end of a disk that has grown, and return the table with the new usable range.

    Raises as ``read.read`` and ``write`` do, and NoSpace where a shrunk disk cuts a partition.
    """
    reading = load(device, sector_size=sector_size)
    table = fit(reading.table, device.size)
    write(device, table, primary_first=reading.source == "backup")
    return table
