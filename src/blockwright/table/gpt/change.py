"""Changes of a GUID partition table: a table in, a table out.

Knows: numbers, and where there is room. Refuses to know: any device, and where identities come from.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from blockwright.errors import NoSpace, UsageError
from blockwright.table.gaps import Run, Wish, choose, free_runs, grown
from blockwright.table.gpt.names import ATTRIBUTES
from blockwright.table.gpt.plan import check_table
from blockwright.table.partition import Partition, PartitionTable

LEGACY_BOOT = 1 << ATTRIBUTES["legacy-boot"]
"""The attribute by which a BIOS's boot code finds the partition to start; it wants exactly one."""


def free_number(table: PartitionTable) -> int:
    """Return the lowest number that no partition has. Raises NoSpace."""
    taken = {each.number for each in table.partitions}
    found = next((each for each in range(1, table.entry_count + 1) if each not in taken), None)
    if found is None:
        raise NoSpace(f"table: all {table.entry_count} entries are taken")
    return found


def add(
    table: PartitionTable,
    type_guid: UUID,
    wish: Wish,
    *,
    guid: UUID,
    number: int | None = None,
    name: str = "",
    attributes: int = 0,
) -> tuple[PartitionTable, int]:
    """Return the table with one more partition, and its number. Raises NoSpace, UsageError."""
    _check_name(name)
    chosen = free_number(table) if number is None else number
    if any(each.number == chosen for each in table.partitions):
        raise UsageError(f"partition {chosen}: expected a number that is free, found it taken")
    start, end = choose(room(table), wish, table.sector_size)
    made = Partition(chosen, type_guid, guid, start, end - start, name, attributes)
    partitions = sorted((*table.partitions, made), key=lambda each: each.number)
    return _checked(replace(table, partitions=tuple(partitions))), chosen


def _check_name(name: str) -> None:
    """Raise UsageError for a new name that is no text. One that is there already stays whatever it is."""
    if any("\ud800" <= each <= "\udfff" for each in name):
        raise UsageError(f"partition name: expected text in UTF-8, found {name[:64]!a}")


def remove(table: PartitionTable, number: int) -> PartitionTable:
    """Return the table without that partition; all others keep their numbers. Raises NotFound."""
    table.partition(number)
    return replace(table, partitions=tuple(each for each in table.partitions if each.number != number))


def change(
    table: PartitionTable,
    number: int,
    *,
    type_guid: UUID | None = None,
    guid: UUID | None = None,
    name: str | None = None,
    attributes: int | None = None,
) -> PartitionTable:
    """Return the table with what is given changed of a partition. Raises NotFound, UsageError."""
    found = table.partition(number)
    if name is not None:
        _check_name(name)
    made = replace(
        found,
        type_guid=found.type_guid if type_guid is None else type_guid,
        guid=found.guid if guid is None else guid,
        name=found.name if name is None else name,
        attributes=found.attributes if attributes is None else attributes,
    )
    return _checked(_with(table, made))


def resize(table: PartitionTable, number: int, size: int | None) -> PartitionTable:
    """Return the table with a partition of ``size`` bytes, None for all that is free behind it; its start stays.

    Raises NotFound; NoSpace with both numbers; UsageError.
    """
    found = table.partition(number)
    limit = grown(room(table), found.end)
    size = limit - found.start if size is None else size
    if size % table.sector_size or size <= 0:
        raise UsageError(f"partition {number}: expected a multiple of {table.sector_size} bytes, found {size}")
    if found.start + size > limit:
        raise NoSpace(f"partition {number}: expected room for {size} bytes, found {limit - found.start}")
    return _checked(_with(table, replace(found, size=size)))


def only_legacy_boot(table: PartitionTable, number: int) -> PartitionTable:
    """Return the table in which that partition alone has the legacy boot attribute. Raises NotFound."""
    table.partition(number)
    partitions = [
        replace(
            each,
            attributes=each.attributes | LEGACY_BOOT if each.number == number else each.attributes & ~LEGACY_BOOT,
        )
        for each in table.partitions
    ]
    return replace(table, partitions=tuple(partitions))


def room(table: PartitionTable) -> list[Run]:
    """Return the usable runs that no partition takes."""
    taken = [(each.start, each.end) for each in table.partitions]
    return free_runs(table.usable_start, table.usable_end, taken)


def _with(table: PartitionTable, made: Partition) -> PartitionTable:
    return replace(table, partitions=tuple(made if each.number == made.number else each for each in table.partitions))


def _checked(table: PartitionTable) -> PartitionTable:
    check_table(table)
    return table
