"""The same partitions in a master boot record.

Knows: types and places there. Refuses to know: what partitions hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from blockwright.codec.identity import derive_u32
from blockwright.device.planned import SegmentTable
from blockwright.errors import UsageError
from blockwright.table.mbr import layout
from blockwright.table.mbr.plan import check_table, records
from blockwright.table.partition import MbrPartition, MbrTable
from blockwright.table.plan import Space, place

if TYPE_CHECKING:
    from blockwright.build.definition import Definition
    from blockwright.build.parts import Wish

SIGNATURE: Final = "mbr.disk"
"""What the disk's signature follows from, beside the seed."""
_TYPES: Final = {"esp": 0xEF, "xbootldr": 0x0C}
_LINUX: Final = 0x83


def plan_mbr(wishes: Sequence[Wish], definition: Definition, seed: bytes) -> MbrTable:
    """Return the table that holds the partitions, numbered from 1 in their order.

    Raises NoSpace with both numbers, UsageError for more partitions or sectors than it can tell of.
    """
    sector = definition.sector_size
    if len(wishes) > layout.COUNT:
        raise UsageError(f"mbr: expected at most {layout.COUNT} partitions, found {len(wishes)}")
    spaces = [Space(f"partition {number}", wish.size, wish.rest) for number, wish in enumerate(wishes, 1)]
    placed = place(spaces, front=sector, back=0, sector_size=sector, size=definition.disk_size)
    signature = derive_u32(seed, SIGNATURE)
    partitions = [
        MbrPartition(number, start, size, _TYPES.get(wish.type_name, _LINUX), wish.marked, signature)
        for number, (wish, (start, size)) in enumerate(zip(wishes, placed.runs, strict=True), 1)
    ]
    table = MbrTable(signature, sector, placed.size, tuple(partitions))
    check_table(table)
    return table


def mbr_segments(table: MbrTable, boot_code: bytes) -> SegmentTable:
    """Return the bytes of the first sector, with what a BIOS runs there: at most 440 bytes."""
    assert len(boot_code) <= layout.DISK_SIGNATURE, "checked where it was found"
    record = bytearray(boot_code.ljust(table.sector_size, b"\0"))
    layout.Signature(disk_signature=table.disk_signature).pack_into(record)
    for index, entry in enumerate(records(table)[0]):
        entry.pack_into(record, layout.PARTITIONS + 16 * index)
    segments = SegmentTable()
    segments.add_bytes(0, bytes(record))
    return segments
