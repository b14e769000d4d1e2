"""The same partitions in a master boot record, and in the records of logical ones behind it.

Knows: types, places and numbers there. Refuses to know: what partitions hold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from blockwright.build.parts import spaces
from blockwright.codec.identity import derive_u32
from blockwright.device.planned import SegmentTable
from blockwright.errors import UsageError
from blockwright.table.gpt.names import TYPES as GPT_TYPES
from blockwright.table.mbr import layout
from blockwright.table.mbr.names import parse_type
from blockwright.table.mbr.plan import check_table, records
from blockwright.table.partition import FIRST_LOGICAL, Extended, MbrPartition, MbrTable
from blockwright.table.plan import ALIGNMENT, place

if TYPE_CHECKING:
    from blockwright.build.definition import Definition
    from blockwright.build.parts import Wish

SIGNATURE: Final = "mbr.disk"
"""What the disk's signature follows from, beside the seed."""
_TYPES: Final = {
    "esp": 0xEF,
    "xbootldr": 0x0C,
    "microsoft-basic-data": 0x0C,
    "swap": 0x82,
    "lvm": 0x8E,
    "raid": 0xFD,
    "luks": 0xE8,
    "prep": 0x41,
    "microsoft-recovery": 0x27,
    "apple-hfs": 0xAF,
}
_NONE: Final = ("bios-boot", "microsoft-reserved", "apple-apfs", "chromeos-kernel")
"""Types of a GPT that no master boot record has. What is left is Linux's."""
_FAT_TYPES: Final = {"fat12": 0x01, "fat16": 0x0E}
_LINUX: Final = 0x83

_SIGNATURE: Final = re.compile(r"(0[xX])?[0-9a-fA-F]{1,8}")


def numbers(logical: Sequence[bool]) -> tuple[list[int], int | None]:
    """Return the number of each partition, and that of the extended one, None where none is needed.

    ``logical`` says which are asked to be. Where none is and there are more than four, all from the fourth on are.
    Raises UsageError where no table has such an order.
    """
    within = list(logical)
    if not any(within) and len(within) > layout.COUNT:
        within = [index >= layout.COUNT - 1 for index in range(len(within))]
    if not any(within):
        return list(range(1, len(within) + 1)), None
    first, last = within.index(True), len(within) - within[::-1].index(True)
    if not all(within[first:last]):
        raise UsageError("mbr: expected logical partitions beside one another, since they lie in one extended one")
    primary = len(within) - sum(within)
    if primary >= layout.COUNT:
        raise UsageError(f"mbr: expected at most 3 primary partitions beside the extended one, found {primary}")
    found = list(range(1, first + 1))
    found += range(FIRST_LOGICAL, FIRST_LOGICAL + last - first)
    found += range(first + 2, first + 2 + len(within) - last)
    return found, first + 1


def os_type(wish: Wish) -> int:
    """Return the type of a partition there. Raises UsageError where it has none."""
    name = wish.type_name
    if wish.part.type is not None and name not in GPT_TYPES:
        return parse_type(name)
    if name in _NONE:
        raise UsageError(f"{wish.part.what}: expected a type that an MBR has, or a number such as 0x83, found {name}")
    if name == "microsoft-basic-data":
        return _FAT_TYPES.get(wish.part.kind, _TYPES[name])
    return _TYPES.get(name, _LINUX)


def plan_mbr(wishes: Sequence[Wish], definition: Definition, seed: bytes) -> MbrTable:
    """Return the table that holds the partitions, numbered from 1 in their order, logical ones from 5.

    Raises NoSpace with both numbers, UsageError for more partitions or sectors than it can tell of.
    """
    sector = definition.sector_size
    alignment = definition.alignment or ALIGNMENT
    found, outer = numbers([wish.part.logical for wish in wishes])
    before = [alignment if number >= FIRST_LOGICAL else 0 for number in found]
    asked = spaces(wishes, definition, before)
    placed = place(asked, front=sector, back=0, sector_size=sector, size=definition.disk_size, alignment=alignment)
    signature = _signature(definition, seed)
    partitions = [
        MbrPartition(
            number,
            start,
            size,
            os_type(wish),
            wish.marked or wish.part.marked,
            signature,
            start - room if number >= FIRST_LOGICAL else 0,
        )
        for number, wish, (start, size), room in zip(found, wishes, placed.runs, before, strict=True)
    ]
    extended: tuple[Extended, ...] = ()
    if outer is not None:
        logical = [each for each in partitions if each.is_logical]
        extended = (Extended(outer, logical[0].record, logical[-1].end - logical[0].record),)
    for each in partitions:
        if each.is_logical and each.active:
            raise UsageError(
                f"partition {each.number}: expected a primary one for a BIOS to start, found a logical one"
            )
    if sum(each.active for each in partitions) > 1:
        raise UsageError("mbr: expected one active partition at most, found several")
    table = MbrTable(
        signature, sector, placed.size, tuple(sorted(partitions, key=lambda each: each.number)), extended
    )
    check_table(table)
    return table


def _signature(definition: Definition, seed: bytes) -> int:
    text = definition.disk_id
    if text is None:
        return derive_u32(seed, SIGNATURE)
    if not _SIGNATURE.fullmatch(text):
        raise UsageError(f"build: disk id: expected an MBR's signature of eight hexadecimal digits, found {text!a}")
    return int(text, 16)


def identity(definition: Definition, seed: bytes, number: int) -> str:
    """Return what Linux will have as the PARTUUID of a partition."""
    return f"{_signature(definition, seed):08x}-{number:02x}"


def mbr_segments(table: MbrTable, boot_code: bytes) -> SegmentTable:
    """Return the bytes of all records, with what a BIOS runs in the first: at most 440 bytes."""
    assert len(boot_code) <= layout.DISK_SIGNATURE, "checked where it was found"
    segments = SegmentTable()
    for at, entries in sorted(records(table).items()):
        record = bytearray((b"" if at else boot_code).ljust(table.sector_size, b"\0"))
        layout.Signature(disk_signature=0 if at else table.disk_signature).pack_into(record)
        for index, entry in enumerate(entries):
            entry.pack_into(record, layout.PARTITIONS + 16 * index)
        segments.add_bytes(at, bytes(record))
    return segments
