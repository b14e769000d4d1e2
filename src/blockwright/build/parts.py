"""The partitions that a disk asks for become a table of the kind it has, and that table's bytes.

Knows: what a partition is called and marked as in each kind. Refuses to know: what partitions hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from blockwright.build.definition import Definition, Table
from blockwright.build.partition import PartitionDefinition
from blockwright.device.planned import SegmentTable
from blockwright.errors import UsageError
from blockwright.table.gpt import plan as gpt
from blockwright.table.gpt.names import parse_attributes, parse_type
from blockwright.table.partition import MbrTable
from blockwright.table.plan import ALIGNMENT, Padding, Space

if TYPE_CHECKING:
    from blockwright.table.partition import AnyTable

_MARKED = parse_attributes(["legacy-boot"])
_READ_ONLY = parse_attributes(["read-only"])


@dataclass(frozen=True, slots=True)
class Wish:
    """A partition to be: at least ``size`` bytes, of a type by its GPT name, and what else ``part`` says of it.

    ``marked`` is the one that a BIOS starts.
    """

    role: str
    part: PartitionDefinition
    type_name: str
    size: int
    name: str = ""
    guid: UUID | None = None
    read_only: bool = False
    marked: bool = False

    def space(self, number: int, start: int | None, before: int = 0) -> Space:
        """Return the room that it asks for, from ``start`` on where that is given."""
        part = self.part
        return Space(
            f"partition {number}",
            self.size,
            part.rest,
            start,
            None if part.maximum is None else max(part.maximum, self.size),
            part.weight,
            Padding(part.padding, part.padding_maximum, part.padding_weight),
            part.alignment,
            before,
        )


def spaces(wishes: Sequence[Wish], definition: Definition, before: Sequence[int] = ()) -> list[Space]:
    """Return the room that each asks for, and what stays free ``before`` it.

    The first takes room from a MiB on, unless it says otherwise: what a BIOS runs lies before that.
    """
    alignment = definition.alignment or ALIGNMENT
    asked = []
    for index, wish in enumerate(wishes):
        start, room = wish.part.start, before[index] if before else 0
        if start is None and not index and alignment < ALIGNMENT:
            start = ALIGNMENT + room
        asked.append(wish.space(index + 1, start, room))
    return asked


def plan_table(wishes: Sequence[Wish], definition: Definition, seed: bytes) -> AnyTable:
    """Return the table that holds the partitions, numbered from 1 in their order. Raises NoSpace, UsageError."""
    if definition.table is Table.MBR:
        from blockwright.build.parts_mbr import plan_mbr

        return plan_mbr(wishes, definition, seed)
    requests = [
        gpt.Request(
            parse_type(wish.type_name),
            wish.size,
            wish.name,
            guid=wish.guid,
            attributes=wish.part.attribute_bits
            | (wish.read_only * _READ_ONLY)
            | ((wish.marked or wish.part.marked) * _MARKED),
            space=space,
        )
        for wish, space in zip(wishes, spaces(wishes, definition), strict=True)
    ]
    return gpt.plan(
        requests,
        seed=seed,
        size=definition.disk_size,
        sector_size=definition.sector_size,
        alignment=definition.alignment or ALIGNMENT,
        disk_guid=_guid(definition.disk_id),
    )


def partition_numbers(wishes: Sequence[Wish], definition: Definition) -> list[int]:
    """Return the number that each gets. Raises UsageError where no table has such an order."""
    if definition.table is not Table.MBR:
        return list(range(1, len(wishes) + 1))
    from blockwright.build.parts_mbr import numbers

    return numbers([wish.part.logical for wish in wishes])[0]


def _guid(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError:
        raise UsageError(f"build: disk id: expected a GUID, found {text!a}") from None


def table_segments(table: AnyTable, wishes: Sequence[Wish], boot_code: bytes) -> SegmentTable:
    """Return the bytes of the table, with what a BIOS runs in the first sector."""
    if isinstance(table, MbrTable):
        from blockwright.build.parts_mbr import mbr_segments

        return mbr_segments(table, boot_code)
    hybrid = [
        (number, wish.part.hybrid, wish.marked or wish.part.marked)
        for number, wish in enumerate(wishes, 1)
        if wish.part.hybrid is not None
    ]
    if not hybrid:
        return gpt.segments(table, boot_code=boot_code)
    from blockwright.table.gpt.hybrid import Shown
    from blockwright.table.mbr.names import parse_type as parse_mbr_type

    shown = [Shown(number, parse_mbr_type(text), active) for number, text, active in hybrid]
    return gpt.segments(table, boot_code=boot_code, shown=shown)
