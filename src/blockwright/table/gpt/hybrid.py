"""A hybrid master boot record: partitions of a GPT that an MBR tells of too, for what reads nothing else.

No standard has it. As gdisk, genimage and Apple do, one entry of type EEh covers what lies before the first partition
that is shown, the header among it, and up to three others are partitions of the GPT.

Knows: which entries there are. Refuses to know: any device.

Source: UEFI 2.10 section 5.2.3 for the entry of type EEh; Roderick Smith, "Hybrid MBRs", for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from blockwright.errors import UsageError
from blockwright.table.gpt import layout
from blockwright.table.mbr import layout as mbr
from blockwright.table.partition import PartitionTable

MAX_SHOWN: Final = 3


class Shown(NamedTuple):
    """A partition of the GPT, by its number, and what the MBR says of it."""

    number: int
    os_type: int
    active: bool = False


def with_hybrid(sector: bytes, table: PartitionTable, shown: Sequence[Shown]) -> bytes:
    """Return the first 512 bytes of a disk with the table's partitions shown; none leaves the protective entry alone.

    Boot code and disk signature stay. Raises UsageError for more than three, for one twice, for a type that is none,
    and for what lies beyond the sectors that an MBR can count; NotFound for a number that is not in the table.
    """
    result = bytearray(sector[:512])
    result[layout.MBR_PARTITIONS : 510] = bytes(64)
    result[510:512] = mbr.SIGNATURE.to_bytes(2, "little")
    if not shown:
        return layout.with_protective(bytes(result), table.size // table.sector_size)
    if len(shown) > MAX_SHOWN:
        raise UsageError(f"hybrid mbr: expected at most {MAX_SHOWN} partitions of the GPT, found {len(shown)}")
    if len({each.number for each in shown}) != len(shown):
        raise UsageError(f"hybrid mbr: expected each partition once, found {[each.number for each in shown]}")
    if sum(each.active for each in shown) > 1:
        raise UsageError("hybrid mbr: expected one active partition at most, found several")
    entries = sorted((_entry(table, each) for each in shown), key=lambda entry: entry.starting_lba)
    protective = mbr.entry_at(1, entries[0].starting_lba - 1, mbr.PROTECTIVE)
    for index, entry in enumerate([protective, *entries]):
        entry.pack_into(result, layout.MBR_PARTITIONS + 16 * index)
    return bytes(result)


def _entry(table: PartitionTable, shown: Shown) -> mbr.Entry:
    what = f"hybrid mbr: partition {shown.number}"
    if not 0 < shown.os_type < 256 or shown.os_type in (mbr.PROTECTIVE, *mbr.EXTENDED):
        raise UsageError(f"{what}: expected a type of its own, found {shown.os_type:#04x}")
    part = table.partition(shown.number)
    start, size = part.start // table.sector_size, part.size // table.sector_size
    most = mbr.MAX_SECTORS
    if start > most or size > most:
        raise UsageError(
            f"{what}: expected a start and a size of at most {most} sectors, which is all that a master boot record"
            f" can say, found {size} sectors from {start} on"
        )
    return mbr.entry_at(start, size, shown.os_type, active=shown.active)
