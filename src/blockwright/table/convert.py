"""A table of one kind as one of the other: the same partitions, at the same places, where that can be said.

Knows: which types are counterparts, and which partitions can be logical. Refuses to know: any device, and who wants
to lose names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from blockwright.codec.identity import derive_uuid
from blockwright.errors import UsageError
from blockwright.table.gpt.change import LEGACY_BOOT
from blockwright.table.gpt.names import TYPES, type_name
from blockwright.table.gpt.plan import check_table as check_gpt
from blockwright.table.gpt.plan import plan
from blockwright.table.mbr import layout
from blockwright.table.mbr.names import type_name as mbr_type_name
from blockwright.table.mbr.plan import check_table as check_mbr
from blockwright.table.partition import FIRST_LOGICAL, Extended, MbrPartition, MbrTable, Partition, PartitionTable

_BOTH: Final = {
    0x07: "microsoft-basic-data",
    0x27: "microsoft-recovery",
    0x41: "prep",
    0x82: "swap",
    0x83: "linux-generic",
    0x8E: "lvm",
    0xAF: "apple-hfs",
    0xE8: "luks",
    0xEA: "xbootldr",
    0xEF: "esp",
    0xFD: "raid",
}
"""Types that are each other's counterparts."""
_FAT: Final = (0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0E)
"""What a GUID partition table has one type for, Microsoft's basic data."""
_LINUX: Final = ("home", "srv", "var", "tmp", "user-home")
"""Types that say what a Linux file system is for; beside these, all that begin with root- and usr-."""


def os_type_of(partition: Partition) -> int:
    """Return the type that a master boot record has for the partition. Raises UsageError where there is none."""
    name = type_name(partition.type_guid)
    for os_type, counterpart in _BOTH.items():
        if name == counterpart:
            return os_type
    if name in _LINUX or (name.startswith(("root-", "usr-")) and "verity" not in name):
        return 0x83
    raise UsageError(
        f"partition {partition.number}: its type {name} has no counterpart in a master boot record:"
        " set another type first, or remove it"
    )


def type_guid_of(partition: MbrPartition) -> UUID:
    """Return the type that a GUID partition table has for the partition. Raises UsageError where there is none."""
    name = "microsoft-basic-data" if partition.os_type in _FAT else _BOTH.get(partition.os_type)
    if name is None:
        raise UsageError(
            f"partition {partition.number}: its type {mbr_type_name(partition.os_type)} has no counterpart in a GPT:"
            " set another type first, or remove it"
        )
    return TYPES[name]


def to_gpt(table: MbrTable, *, seed: bytes) -> PartitionTable:
    """Return the partitions in a GUID partition table, with their numbers; an active one gets legacy boot.

    Identities follow from ``seed``. Raises UsageError where the new table would lie on a partition, and for what it
    cannot say.
    """
    empty = plan([], seed=seed, size=table.size, sector_size=table.sector_size)
    for each in table.partitions:
        if each.start < empty.usable_start or each.end > empty.usable_end:
            raise UsageError(
                f"partition {each.number}: expected to lie in bytes {empty.usable_start} to {empty.usable_end}, since"
                f" a GPT takes those before and behind, found {each.start} to {each.end}"
            )
    partitions = tuple(
        Partition(
            number=each.number,
            type_guid=type_guid_of(each),
            guid=derive_uuid(seed, f"gpt.partition.{each.number}"),
            start=each.start,
            size=each.size,
            attributes=LEGACY_BOOT if each.active else 0,
        )
        for each in table.partitions
    )
    made = replace(empty, partitions=partitions)
    check_gpt(made)
    return made


def to_mbr(table: PartitionTable, *, disk_signature: int) -> MbrTable:
    """Return the partitions in a master boot record; the one with legacy boot is active.

    Up to four keep their numbers where these are 1 to 4. Of more, as many as must become logical, the last on the
    disk that can: each needs a free sector before it, and no primary one may lie between them. GUIDs, names and the
    other attributes are lost. Raises UsageError for what lies past the end of what can be said, for types without a
    counterpart, where more than one has legacy boot, and where too few can be logical.
    """
    active = [each.number for each in table.partitions if each.attributes & LEGACY_BOOT]
    if len(active) > 1:
        raise UsageError(f"table: expected one partition with legacy-boot at most, found {active}")
    ordered = sorted(table.partitions, key=lambda each: each.start)
    inner = _logical(ordered, table.sector_size, active) if len(ordered) > layout.COUNT else []
    numbers = _primary_numbers([each for each in ordered if each not in inner])
    partitions = [
        MbrPartition(
            numbers[each.number],
            each.start,
            each.size,
            os_type_of(each),
            each.number in active,
            disk_signature,
        )
        for each in ordered
        if each not in inner
    ]
    extended: tuple[Extended, ...] = ()
    if inner:
        sector = table.sector_size
        free = next(each for each in range(1, layout.COUNT + 1) if each not in numbers.values())
        start = inner[0].start - sector
        extended = (Extended(free, start, inner[-1].end - start),)
        partitions += [
            MbrPartition(number, each.start, each.size, os_type_of(each), False, disk_signature, each.start - sector)
            for number, each in enumerate(inner, FIRST_LOGICAL)
        ]
    made = MbrTable(
        disk_signature=disk_signature,
        sector_size=table.sector_size,
        size=table.size,
        partitions=tuple(sorted(partitions, key=lambda each: each.number)),
        extended=extended,
    )
    check_mbr(made)
    return made


def _logical(ordered: Sequence[Partition], sector: int, active: list[int]) -> Sequence[Partition]:
    """Return the run of partitions, in the order of the disk, that become logical."""
    length = len(ordered) - (layout.COUNT - 1)
    for first in range(len(ordered) - length, -1, -1):
        run = ordered[first : first + length]
        ends = [0 if first == 0 else ordered[first - 1].end, *(each.end for each in run)]
        if all(each.start - end >= sector for each, end in zip(run, ends, strict=False)) and not any(
            each.number in active for each in run
        ):
            return run
    raise UsageError(
        f"table: expected {length} of {len(ordered)} partitions one behind the other, each with a free sector before"
        " it, which can be logical ones, found none: a master boot record has room for four without"
    )


def _primary_numbers(partitions: Sequence[Partition]) -> dict[int, int]:
    """Return the new number of each: its own where that can be, else the lowest free one."""
    kept = {each.number: each.number for each in partitions if each.number <= layout.COUNT}
    free = [each for each in range(1, layout.COUNT + 1) if each not in kept]
    for each in partitions:
        if each.number not in kept:
            kept[each.number] = free.pop(0)
    return kept
