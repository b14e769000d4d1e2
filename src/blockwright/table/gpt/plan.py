"""A GUID partition table for a new disk: requests become a table, and a table becomes its bytes.

Knows: where the two copies lie. Refuses to know: what partitions hold, and any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from blockwright.codec.checksum import crc32
from blockwright.codec.identity import derive_uuid
from blockwright.device.planned import SegmentTable
from blockwright.errors import UsageError
from blockwright.table.gpt import layout
from blockwright.table.gpt.hybrid import Shown, with_hybrid
from blockwright.table.partition import Partition, PartitionTable
from blockwright.table.plan import ALIGNMENT, Space, place
from blockwright.units import align_up


@dataclass(frozen=True, slots=True)
class Request:
    """A partition to be: ``size`` bytes at the least, and with ``remaining`` a share of what is left.

    ``start`` pins the first byte. Without ``guid`` the identity follows from the seed and the number. ``space`` says
    all of its room instead.
    """

    type_guid: UUID
    size: int
    name: str = ""
    remaining: bool = False
    start: int | None = None
    guid: UUID | None = None
    attributes: int = 0
    space: Space | None = None


def entries_bytes(
    sector_size: int, entry_count: int = layout.ENTRY_COUNT, entry_size: int = layout.ENTRY_SIZE
) -> int:
    """Return the bytes that the entries take on disk, in whole sectors."""
    return align_up(entry_count * entry_size, sector_size)


def plan(
    requests: Sequence[Request],
    *,
    seed: bytes,
    size: int | None = None,
    sector_size: int = 512,
    alignment: int = ALIGNMENT,
    disk_guid: UUID | None = None,
    entry_count: int = layout.ENTRY_COUNT,
) -> PartitionTable:
    """Return the table that holds the requests in order, numbered from 1.

    Sizes in bytes; without ``size`` the disk is as small as it can be. Raises NoSpace with both numbers;
    UsageError for what no table can say. Source: UEFI 2.10 section 5.3; positions as ``table.plan.place`` has them.
    """
    if sector_size not in layout.SECTOR_SIZES:
        raise UsageError(f"sector size: expected 512 or 4096 bytes, found {sector_size}")
    if not 0 < entry_count * layout.ENTRY_SIZE <= layout.MAX_ENTRIES_BYTES:
        most = layout.MAX_ENTRIES_BYTES // layout.ENTRY_SIZE
        raise UsageError(f"partition entries: expected 1 to {most}, found {entry_count}")
    if len(requests) > entry_count:
        raise UsageError(f"partitions: expected at most {entry_count}, found {len(requests)}")
    reserved = max(entries_bytes(sector_size, entry_count), layout.MIN_ENTRIES_BYTES)
    spaces = [
        request.space or Space(f"partition {number}", request.size, request.remaining, request.start)
        for number, request in enumerate(requests, 1)
    ]
    front, back = 2 * sector_size + reserved, sector_size + reserved
    placement = place(spaces, front=front, back=back, sector_size=sector_size, size=size, alignment=alignment)
    partitions = [
        Partition(
            number=number,
            type_guid=request.type_guid,
            guid=request.guid or derive_uuid(seed, f"gpt.partition.{number}"),
            start=start,
            size=length,
            name=request.name,
            attributes=request.attributes,
        )
        for number, (request, (start, length)) in enumerate(zip(requests, placement.runs, strict=True), 1)
    ]
    table = PartitionTable(
        kind="gpt",
        disk_guid=disk_guid or derive_uuid(seed, "gpt.disk"),
        sector_size=sector_size,
        size=placement.size,
        usable_start=front,
        usable_end=placement.size - back,
        entries_start=2 * sector_size,
        partitions=tuple(partitions),
        entry_count=entry_count,
    )
    check_table(table)
    return table


def check_table(table: PartitionTable) -> None:
    """Raise UsageError where the table cannot be written: bad numbers, types, names, alignment, range or overlap."""
    sector = table.sector_size
    if (
        sector not in layout.SECTOR_SIZES
        or table.size % sector
        or table.usable_start % sector
        or table.usable_end % sector
        or table.entries_start % sector
    ):
        raise UsageError(f"table: expected sizes in whole sectors of 512 or 4096 bytes, found sectors of {sector}")
    array = entries_bytes(sector, table.entry_count, table.entry_size)
    low, high = table.entries_start + array, table.size - sector - array
    if table.entries_start < 2 * sector or not low <= table.usable_start <= table.usable_end <= high:
        raise UsageError(
            f"table: expected the usable bytes to lie in {low} to {high},"
            f" found {table.usable_start} to {table.usable_end}"
        )
    seen: set[int] = set()
    guids: set[UUID] = set()
    end = 0
    for each in sorted(table.partitions, key=lambda partition: partition.start):
        what = f"partition {each.number}"
        if not 1 <= each.number <= table.entry_count or each.number in seen:
            raise UsageError(f"{what}: expected a number from 1 to {table.entry_count}, each once")
        if each.guid in guids:
            raise UsageError(f"{what}: expected a GUID of its own, found {each.guid} twice")
        if each.type_guid == layout.UNUSED:
            raise UsageError(f"{what}: expected a type, found the one that marks an unused entry")
        if not 0 <= each.attributes < 1 << 64:
            raise UsageError(f"{what}: expected attributes of 64 bits, found {each.attributes:#x}")
        if each.start % sector or each.size % sector or each.size <= 0:
            raise UsageError(
                f"{what}: expected whole sectors of {sector} bytes, found {each.size} bytes at {each.start}"
            )
        if each.start < table.usable_start or each.end > table.usable_end:
            raise UsageError(
                f"{what}: expected to lie in bytes {table.usable_start} to {table.usable_end},"
                f" found {each.start} to {each.end}"
            )
        if each.start < end:
            raise UsageError(f"{what}: overlaps the one before it, which ends at byte {end}")
        layout.encode_name(each.name)
        end = each.end
        seen.add(each.number)
        guids.add(each.guid)


def pack_entries(table: PartitionTable) -> bytes:
    """Return the entries' bytes, without the padding behind them."""
    result = bytearray(table.entry_count * table.entry_size)
    for each in table.partitions:
        entry = layout.Entry(
            partition_type_guid=each.type_guid.bytes_le,
            unique_partition_guid=each.guid.bytes_le,
            starting_lba=each.start // table.sector_size,
            ending_lba=each.end // table.sector_size - 1,
            attributes=each.attributes,
            partition_name=layout.encode_name(each.name),
        )
        entry.pack_into(result, (each.number - 1) * table.entry_size)
    return bytes(result)


def pack_headers(table: PartitionTable, entries: bytes) -> tuple[bytes, bytes]:
    """Return the primary and the backup header, one sector each, for the packed ``entries``."""
    sector = table.sector_size
    last_lba = table.size // sector - 1
    array_lbas = entries_bytes(sector, table.entry_count, table.entry_size) // sector
    header = layout.Header(
        signature=layout.SIGNATURE,
        my_lba=1,
        alternate_lba=last_lba,
        first_usable_lba=table.usable_start // sector,
        last_usable_lba=table.usable_end // sector - 1,
        disk_guid=table.disk_guid.bytes_le,
        partition_entry_lba=table.entries_start // sector,
        number_of_partition_entries=table.entry_count,
        size_of_partition_entry=table.entry_size,
        partition_entry_array_crc32=crc32(entries),
    )
    backup = header.replace(my_lba=last_lba, alternate_lba=1, partition_entry_lba=last_lba - array_lbas)
    return header.seal().ljust(sector, b"\0"), backup.seal().ljust(sector, b"\0")


def segments(
    table: PartitionTable, *, boot_code: bytes = b"", disk_signature: int = 0, shown: Sequence[Shown] = ()
) -> SegmentTable:
    """Return the bytes of a new disk that are the table's: protective MBR and primary in front, backup behind.

    ``boot_code`` is what a BIOS runs, at most 440 bytes; ``shown`` makes the MBR a hybrid one. Raises UsageError
    where the table cannot be written.
    """
    check_table(table)
    if len(boot_code) > 440:
        raise UsageError(f"boot code: expected at most 440 bytes, found {len(boot_code)}")
    sector = table.sector_size
    first = boot_code.ljust(440, b"\0") + disk_signature.to_bytes(4, "little")
    mbr = with_hybrid(first.ljust(512, b"\0"), table, shown)
    entries = pack_entries(table)
    primary, backup = pack_headers(table, entries)
    array = entries_bytes(sector, table.entry_count, table.entry_size)
    result = SegmentTable()
    result.add_bytes(0, mbr.ljust(sector, b"\0") + primary)
    result.add_bytes(table.entries_start, entries.ljust(array, b"\0"))
    result.add_bytes(table.size - sector - array, entries.ljust(array, b"\0") + backup)
    result.freeze()
    return result
