"""Writes a master boot record's table to a device: the record itself, and the chain of logical partitions.

Records that nothing leads to yet are written first and made durable. Then one sector changes, which is the moment
between the old table and the new one. How long a link says that the next step of the chain is, is read by nobody
we know, and brought up to date last.

Knows: the order of writes. Refuses to know: what a table should say.
"""

from __future__ import annotations

from typing import NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.errors import UsageError
from blockwright.table.mbr import layout, read
from blockwright.table.mbr.plan import Records, check_table, records
from blockwright.table.partition import MbrTable


class _Steps(NamedTuple):
    """Sectors to write, by byte: before the change, the change itself, and behind it."""

    before: dict[int, bytes]
    change: dict[int, bytes]
    behind: dict[int, bytes]


def write(device: BlockDevice, table: MbrTable) -> None:
    """Make ``table`` the device's; boot code and partitions stay. A power cut leaves the old table or the new one.

    Raises UsageError for a table that cannot be written or is for another size, and for one that differs from what
    is there in more than one record, since no single write leads to it: write one change after the other. ReadOnly;
    what the device raises.
    """
    check_table(table)
    sector = table.sector_size
    if device.size // sector * sector != table.size:
        raise UsageError(f"table: expected one for a disk of {device.size} bytes, found one for {table.size}")
    for step in _steps(device, table, records(table)):
        differing = {offset: content for offset, content in step.items() if device.read(offset, sector) != content}
        for offset, content in differing.items():
            device.write(offset, content)
        if differing:
            device.flush()


def _steps(device: BlockDevice, table: MbrTable, wanted: Records) -> _Steps:
    sector = table.sector_size
    reached, taken = _present(device, table)
    steps = _Steps({}, {}, {})
    for offset, entries in wanted.items():
        old = device.read(offset, sector)
        new = _patched(old if offset in reached else bytes(sector), entries)
        if offset == 0:
            new = new[: layout.DISK_SIGNATURE] + table.disk_signature.to_bytes(4, "little") + new[444:]
            changed = old != new
        else:
            changed = _meaning(old) != _meaning(new)
        if offset in reached:
            (steps.change if changed else steps.behind)[offset] = new
        elif any(start <= offset < end for start, end in taken):
            raise UsageError(f"table: expected a new record where no partition was, found byte {offset} to be in one")
        else:
            steps.before[offset] = new
    if len(steps.change) > 1:
        found = ", ".join(str(offset // sector) for offset in steps.change)
        raise UsageError(f"table: expected a change of one record, found those of sectors {found} to differ")
    return steps


def _present(device: BlockDevice, table: MbrTable) -> tuple[set[int], list[tuple[int, int]]]:
    """Return the records and the partitions of the table on the device; the master boot record always is one."""
    if not read.probe(device, sector_size=table.sector_size):
        return {0}, []
    found = read.examine(device, sector_size=table.sector_size)
    size = found.sector_size
    taken = [(start * size, (start + entry.size_in_lba) * size) for _, entry, start, _ in found.partitions]
    return {0, *(position * size for position in found.records)}, taken


def _patched(old: bytes, entries: list[layout.Entry]) -> bytes:
    """Return a record with these entries. One that says the same as before keeps its other form of the address."""
    result = bytearray(old)
    before = layout.entries(old) if layout.is_signed(old) else []
    for index, entry in enumerate(entries):
        same = next((each for each in before if _place(each) == _place(entry) != (0, 0)), None)
        kept = entry.replace(starting_chs=same.starting_chs, ending_chs=same.ending_chs) if same else entry
        kept.pack_into(result, layout.PARTITIONS + 16 * index)
    result[510:512] = layout.SIGNATURE.to_bytes(2, "little")
    return bytes(result)


def _place(entry: layout.Entry) -> tuple[int, int]:
    return entry.starting_lba, entry.size_in_lba


def _meaning(sector: bytes) -> tuple[list[tuple[int, int, int, int]], int | None]:
    """Return what a record of the chain says: its partitions, and where it leads; a blank one says nothing."""
    found = layout.entries(sector) if layout.is_signed(sector) else []
    data = [(each.boot_indicator, each.os_type, *_place(each)) for each in found if each.is_data]
    return data, next((each.starting_lba for each in found if each.is_extended), None)
