"""A master boot record's table as the records that say it: the entries of each, and where it lies.

Knows: what a table may say, and how the chain of logical partitions says it. Refuses to know: any device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from blockwright.errors import UsageError
from blockwright.table.mbr import layout
from blockwright.table.partition import FIRST_LOGICAL, Extended, MbrPartition, MbrTable

LINK: Final = 0x05
"""The type of an entry that leads to the next record; what the extended partition itself has does not matter."""

Records = dict[int, list[layout.Entry]]
"""By the byte where a record begins: its four entries."""


def check_table(table: MbrTable) -> None:
    """Raise UsageError where the table cannot be written: bad numbers, types, range or overlap."""
    _check_disk(table)
    numbers = [each.number for each in table.primary]
    if len(set(numbers)) != len(numbers) or not all(1 <= number <= layout.COUNT for number in numbers):
        raise UsageError(f"table: expected primary partitions of the numbers 1 to 4, each once, found {numbers}")
    if [each.number for each in table.logical] != [*range(FIRST_LOGICAL, FIRST_LOGICAL + len(table.logical))]:
        raise UsageError("table: expected the logical partitions to be numbered from 5 on, without gaps")
    for each in table.partitions:
        if each.os_type in (layout.EMPTY, layout.PROTECTIVE, *layout.EXTENDED) or not 0 < each.os_type < 256:
            raise UsageError(f"partition {each.number}: expected a type of its own, found {each.os_type:#04x}")
    for placed in (*table.primary, *table.logical):
        _check_place(table, placed)
    _check_apart([(each.start, each.end, f"partition {each.number}") for each in table.primary])
    if table.logical:
        _check_logical(table)


def _check_disk(table: MbrTable) -> None:
    sector = table.sector_size
    if sector < 512 or sector.bit_count() != 1 or table.size % sector:
        raise UsageError(f"table: expected a disk of whole sectors, found {table.size} bytes in sectors of {sector}")
    if not 0 <= table.disk_signature <= 0xFFFFFFFF:
        raise UsageError(f"table: expected a disk signature of 32 bits, found {table.disk_signature:#x}")
    if len(table.extended) > 1:
        raise UsageError("table: expected one extended partition at most, found several, which is read only")


def _check_place(table: MbrTable, each: MbrPartition | Extended) -> None:
    what, sector = f"partition {each.number}", table.sector_size
    if each.start % sector or each.size % sector or each.size <= 0:
        raise UsageError(f"{what}: expected whole sectors of {sector} bytes, found {each.size} bytes at {each.start}")
    if each.start < sector or each.end > table.size:
        raise UsageError(
            f"{what}: expected to lie in bytes {sector} to {table.size}, found {each.start} to {each.end}"
        )
    most = layout.MAX_SECTORS
    if each.start // sector > most or each.size // sector > most:
        raise UsageError(
            f"{what}: expected a start and a size of at most {most} sectors, which is all that a master boot record"
            f" can say, found {each.size // sector} sectors from {each.start // sector} on: use a GPT"
        )


def _check_apart(runs: list[tuple[int, int, str]]) -> None:
    furthest, holder = 0, ""
    for start, end, what in sorted(runs):
        if start < furthest:
            raise UsageError(f"{what}: overlaps {holder}, which ends at byte {furthest}")
        furthest, holder = end, what


def _check_logical(table: MbrTable) -> None:
    if not table.extended:
        raise UsageError("table: expected an extended partition around the logical ones, found none")
    outer, sector, logical = table.extended[0], table.sector_size, table.logical
    if len(logical) > layout.MAX_LOGICAL:
        raise UsageError(f"table: expected at most {layout.MAX_LOGICAL} logical partitions, found {len(logical)}")
    runs = [(outer.start, outer.start + sector, "the extended partition's first record")]
    for each in logical:
        what = f"partition {each.number}"
        if each.record % sector or not outer.start <= each.record < each.start or each.end > outer.end:
            raise UsageError(
                f"{what}: expected to lie behind its record in bytes {outer.start} to {outer.end},"
                f" found {each.start} to {each.end} and the record at {each.record}"
            )
        if each.record != outer.start:
            runs.append((each.record, each.record + sector, f"the record of {what}"))
        runs.append((each.start, each.end, what))
    if len({each.record for each in logical}) != len(logical):
        raise UsageError("table: expected a record for each logical partition, found one that tells of two")
    _check_apart(runs)


def records(table: MbrTable) -> Records:
    """Return the entries that say the table, by the byte of their record; the master boot record's is 0."""
    sector = table.sector_size
    first = [layout.Entry() for _ in range(layout.COUNT)]
    for each in table.partitions:
        if not each.is_logical:
            first[each.number - 1] = _entry(each, sector)
    for outer in table.extended:
        first[outer.number - 1] = layout.entry_at(outer.start // sector, outer.size // sector, outer.os_type)
    return {0: first} | dict(_chain(table))


def _entry(each: MbrPartition, sector: int, base: int = 0) -> layout.Entry:
    start, size = each.start // sector, each.size // sector
    return layout.entry_at(start, size, each.os_type, base=base // sector, active=each.active)


def _chain(table: MbrTable) -> Iterator[tuple[int, list[layout.Entry]]]:
    """Yield the records of the chain: the first one begins the extended partition, with or without a partition."""
    if not table.extended:
        return
    outer, sector = table.extended[0], table.sector_size
    steps: list[tuple[int, MbrPartition | None]] = [(each.record, each) for each in table.logical]
    if not steps or steps[0][0] != outer.start:
        steps.insert(0, (outer.start, None))
    for index, (record, partition) in enumerate(steps):
        entries = [layout.Entry() for _ in range(layout.COUNT)]
        if partition is not None:
            entries[0] = _entry(partition, sector, record)
        if index + 1 < len(steps):
            follower = steps[index + 1][1]
            assert follower is not None, "only the first record can be without a partition"
            start, end = follower.record // sector, follower.end // sector
            entries[1] = layout.entry_at(start, end - start, LINK, base=outer.start // sector)
        yield record, entries
