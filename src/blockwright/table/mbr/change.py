"""Changes of a master boot record's table, each of them one change of one record: a table in, a table out.

Knows: which partitions are primary and which logical, and where there is room. Refuses to know: any device.
"""

from __future__ import annotations

from dataclasses import replace

from blockwright.errors import NoSpace, UsageError
from blockwright.table.gaps import Run, Wish, choose, free_runs, grown
from blockwright.table.mbr import layout
from blockwright.table.mbr.plan import check_table
from blockwright.table.partition import FIRST_LOGICAL, Extended, MbrPartition, MbrTable


def new_table(size: int, *, sector_size: int = 512, disk_signature: int) -> MbrTable:
    """Return the table of a disk without partitions; a part of a sector at the end is left out."""
    table = MbrTable(disk_signature=disk_signature, sector_size=sector_size, size=size // sector_size * sector_size)
    check_table(table)
    return table


def add(
    table: MbrTable,
    os_type: int,
    wish: Wish,
    *,
    number: int | None = None,
    active: bool = False,
    logical: bool = False,
) -> tuple[MbrTable, int]:
    """Return the table with one more partition, and its number.

    It gets the first free primary number; with ``logical``, a number from 5 on, or where no primary one fits and
    there is an extended partition, it is the next logical one. An active one is the only one. A type that is
    extended makes the extended partition. Raises NoSpace, UsageError.
    """
    taken = {each.number for each in table.primary}
    if logical or (number is not None and number >= FIRST_LOGICAL):
        return _add_logical(table, os_type, wish, number, active=active)
    free = [each for each in range(1, layout.COUNT + 1) if each not in taken]
    if number is not None and number not in free:
        raise UsageError(f"partition {number}: expected a number that is free, found it taken")
    try:
        if not free:
            raise NoSpace("table: all four primary partitions are taken, and none of them is an extended one")
        start, end = choose(primary_room(table), wish, table.sector_size)
    except NoSpace:
        if number is not None or not table.extended or os_type in layout.EXTENDED:
            raise
        return _add_logical(table, os_type, wish, None, active=active)
    chosen = number or free[0]
    if os_type in layout.EXTENDED:
        if active:
            raise UsageError(f"partition {chosen}: an extended partition cannot be active")
        outer = Extended(chosen, start, end - start, os_type)
        return _checked(replace(table, extended=(*table.extended, outer))), chosen
    others = _inactive(table) if active else table
    made = MbrPartition(chosen, start, end - start, os_type, active, table.disk_signature)
    return _checked(_with(others, made)), chosen


def _add_logical(
    table: MbrTable, os_type: int, wish: Wish, number: int | None, *, active: bool
) -> tuple[MbrTable, int]:
    if os_type in layout.EXTENDED:
        raise UsageError("partition: an extended partition lies in no other")
    if not table.extended:
        raise UsageError("partition: expected an extended partition for it to lie in: add one of type extended")
    following = FIRST_LOGICAL + len(table.logical)
    if active:
        raise UsageError("partition: expected a primary one to be active: no BIOS starts a logical one")
    if number not in (None, following):
        raise UsageError(f"partition {number}: expected {following}, the next logical one")
    sector = table.sector_size
    start, end = choose([(low + sector, high) for low, high in logical_room(table)], wish, sector)
    record = start - sector if table.logical else table.extended[0].start
    made = MbrPartition(following, start, end - start, os_type, False, table.disk_signature, record)
    return _checked(_with(table, made)), following


def remove(table: MbrTable, number: int) -> MbrTable:
    """Return the table without that partition; logical ones behind it get the numbers before theirs.

    Raises NotFound; UsageError for an extended partition that holds others.
    """
    if any(each.number == number for each in table.extended):
        if table.logical:
            held = ", ".join(str(each.number) for each in table.logical)
            raise UsageError(f"partition {number}: holds the logical partitions {held}: remove those first")
        return replace(table, extended=tuple(each for each in table.extended if each.number != number))
    table.partition(number)
    kept = [each for each in table.partitions if each.number != number]
    if number >= FIRST_LOGICAL:
        kept = [replace(each, number=each.number - 1) if each.number > number else each for each in kept]
        # The first record cannot go, so it takes over the partition of the second.
        if kept and number == FIRST_LOGICAL:
            outer = table.extended[0]
            kept = [replace(each, record=outer.start) if each.number == number else each for each in kept]
    return _checked(replace(table, partitions=tuple(kept)))


def change(table: MbrTable, number: int, *, os_type: int | None = None, active: bool | None = None) -> MbrTable:
    """Return the table with a partition's type or flag changed. An active one is the only one.

    Raises NotFound; UsageError for a type that would make it another kind of partition.
    """
    outer = next((each for each in table.extended if each.number == number), None)
    if outer is not None:
        if active or os_type not in (None, *layout.EXTENDED):
            raise UsageError(f"partition {number}: an extended partition stays one, and cannot be active")
        retyped = replace(outer, os_type=outer.os_type if os_type is None else os_type)
        return _checked(replace(table, extended=(retyped,)))
    found = table.partition(number)
    if active and number >= FIRST_LOGICAL:
        raise UsageError(f"partition {number}: expected a primary one to be active: no BIOS starts a logical one")
    made = replace(
        found,
        os_type=found.os_type if os_type is None else os_type,
        active=found.active if active is None else active,
    )
    return _checked(_changed(_inactive(table) if active else table, made))


def resize(table: MbrTable, number: int, size: int | None) -> MbrTable:
    """Return the table with a partition of ``size`` bytes, None for all that is free behind it; its start stays.

    Raises NotFound; NoSpace with both numbers; UsageError.
    """
    outer = next((each for each in table.extended if each.number == number), None)
    found: MbrPartition | Extended = outer or table.partition(number)
    runs = logical_room(table) if number >= FIRST_LOGICAL else primary_room(table)
    limit = grown(runs, found.end)
    size = limit - found.start if size is None else size
    if size % table.sector_size or size <= 0:
        raise UsageError(f"partition {number}: expected a multiple of {table.sector_size} bytes, found {size}")
    if found.start + size > limit:
        raise NoSpace(f"partition {number}: expected room for {size} bytes, found {limit - found.start}")
    if outer is not None:
        return _checked(replace(table, extended=(replace(outer, size=size),)))
    return _checked(_changed(table, replace(table.partition(number), size=size)))


def fit(table: MbrTable, size: int) -> MbrTable:
    """Return the table for a disk of ``size`` bytes. Raises NoSpace where a partition would not fit any more."""
    size = size // table.sector_size * table.sector_size
    needed = max((each.end for each in table.primary), default=table.sector_size)
    if size < needed:
        raise NoSpace(f"mbr: expected a disk of {needed} bytes at the least, found {size}")
    return replace(table, size=size)


def primary_room(table: MbrTable) -> list[Run]:
    """Return the runs that no primary partition takes, as far as an entry can tell of them."""
    taken = [(each.start, each.end) for each in table.primary]
    return free_runs(table.sector_size, min(table.size, layout.MAX_SECTORS * table.sector_size), taken)


def logical_room(table: MbrTable) -> list[Run]:
    """Return the runs of the extended partition that neither logical partitions nor their records take."""
    if not table.extended:
        return []
    outer, sector, logical = table.extended[0], table.sector_size, table.logical
    taken = [(each.start, each.end) for each in logical]
    taken += [(each.record, each.record + sector) for each in logical]
    if logical:
        taken.append((outer.start, outer.start + sector))
    return free_runs(outer.start, outer.end, taken)


def _with(table: MbrTable, made: MbrPartition) -> MbrTable:
    return replace(table, partitions=tuple(sorted((*table.partitions, made), key=lambda each: each.number)))


def _changed(table: MbrTable, made: MbrPartition) -> MbrTable:
    return replace(table, partitions=tuple(made if each.number == made.number else each for each in table.partitions))


def _inactive(table: MbrTable) -> MbrTable:
    """Return the table in which no primary partition is active."""
    return replace(
        table,
        partitions=tuple(replace(each, active=False) if not each.is_logical else each for each in table.partitions),
    )


def _checked(table: MbrTable) -> MbrTable:
    check_table(table)
    return table
