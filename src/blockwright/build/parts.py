"""The partitions that a disk asks for become a table of the kind it has, and that table's bytes.

Knows: what a partition is called and marked as in each kind. Refuses to know: what partitions hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from blockwright.build.definition import Definition, Table
from blockwright.device.planned import SegmentTable
from blockwright.table.gpt import plan as gpt
from blockwright.table.gpt.names import TYPES, parse_attributes
from blockwright.table.partition import MbrTable

if TYPE_CHECKING:
    from blockwright.table.partition import AnyTable

_MARKED = parse_attributes(["legacy-boot"])
_READ_ONLY = parse_attributes(["read-only"])


@dataclass(frozen=True, slots=True)
class Wish:
    """A partition to be: at least ``size`` bytes, with ``rest`` a share of what is left, of a type by its GPT name.

    ``marked`` is the one that a BIOS starts.
    """

    role: str
    type_name: str
    size: int
    name: str = ""
    rest: bool = False
    guid: UUID | None = None
    read_only: bool = False
    marked: bool = False


def plan_table(wishes: Sequence[Wish], definition: Definition, seed: bytes) -> AnyTable:
    """Return the table that holds the partitions, numbered from 1 in their order. Raises NoSpace, UsageError."""
    if definition.table is Table.MBR:
        from blockwright.build.parts_mbr import plan_mbr

        return plan_mbr(wishes, definition, seed)
    requests = [
        gpt.Request(
            TYPES[wish.type_name],
            wish.size,
            wish.name,
            wish.rest,
            guid=wish.guid,
            attributes=wish.read_only * _READ_ONLY | wish.marked * _MARKED,
        )
        for wish in wishes
    ]
    return gpt.plan(requests, seed=seed, size=definition.disk_size, sector_size=definition.sector_size)


def table_segments(table: AnyTable, boot_code: bytes) -> SegmentTable:
    """Return the bytes of the table, with what a BIOS runs in the first sector."""
    if isinstance(table, MbrTable):
        from blockwright.build.parts_mbr import mbr_segments

        return mbr_segments(table, boot_code)
    return gpt.segments(table, boot_code=boot_code)
