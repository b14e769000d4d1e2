"""Reads a GUID partition table from a device: each copy by itself, then the one that can be trusted.

Every number is checked before it is used: the specification's rules (UEFI 2.10 section 5.3.2), and limits of ours
on what a disk can make us allocate.

Knows: what makes one copy valid. Refuses to know: how copies differ (``check``) and how to mend them (``repair``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from blockwright.codec.checksum import crc32
from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, NotThisFormat
from blockwright.finding import Finding
from blockwright.table.gpt import layout
from blockwright.table.partition import Partition, PartitionTable

SPEC: Final = "UEFI 2.10 section 5.3"


@dataclass(slots=True)
class Copy:
    """One copy of the table as it was found, and what is wrong with it.

    ``header`` is None without its signature; ``entries`` is None where they cannot be located. ``entries_offset``
    is the byte where they begin.
    """

    role: str
    lba: int
    sector_size: int
    header: layout.Header | None = None
    entries: bytes | None = None
    entries_offset: int = 0
    header_valid: bool = False
    findings: list[Finding] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Whether header and entries are both as their checksums say."""
        return self.header_valid and self.entries is not None and not self.findings

    def found(self, rule: str, message: str, offset: int) -> None:
        """Note that a rule is broken; another copy may mend it."""
        text = f"{self.role} header: {message}"
        self.findings.append(Finding(f"gpt.{self.role}.{rule}", text, offset, repairable=True))


@dataclass(frozen=True, slots=True)
class Reading:
    """The table, which copy it came from (``primary`` or ``backup``), and what is wrong with the copies."""

    table: PartitionTable
    source: str
    findings: tuple[Finding, ...]


def probe(device: BlockDevice) -> bool:
    """Whether a GUID partition table's signature lies where one must, in front or at the end of the device."""
    return any(
        device.size >= 2 * sector
        and layout.SIGNATURE in (_signature(device, sector), _signature(device, device.size - sector))
        for sector in sector_sizes(device)
    )


def probe_primary(device: BlockDevice) -> bool:
    """Whether the signature lies in front of the device, where only the primary copy has it."""
    return any(
        device.size >= 2 * sector and _signature(device, sector) == layout.SIGNATURE
        for sector in sector_sizes(device)
    )


def read(device: BlockDevice, *, sector_size: int | None = None) -> PartitionTable:
    """Return the partition table of the device, from the backup where the primary is broken.

    Raises NotThisFormat without a table; Corrupt where no copy is valid, or where a partition overlaps another,
    leaves the usable range or the disk, or ends before it starts.
    """
    return load(device, sector_size=sector_size).table


def load(device: BlockDevice, *, sector_size: int | None = None) -> Reading:
    """Return the table with its source and what is wrong with either copy. Raises as ``read`` does."""
    primary, backup = copies(device, sector_size=sector_size)
    source = primary if primary.valid else backup
    if not source.valid:
        worst = (primary.findings or backup.findings)[0]
        raise Corrupt(f"gpt: no copy is valid: {worst.message}", offset=worst.offset, spec=SPEC)
    table = to_table(source, device.size)
    return Reading(table, source.role, tuple(primary.findings + backup.findings))


def sector_sizes(device: BlockDevice) -> list[int]:
    """Return the sector sizes that a table on this device can have been made for."""
    return [each for each in layout.SECTOR_SIZES if each >= device.traits.minimum_block]


def copies(device: BlockDevice, *, sector_size: int | None = None) -> tuple[Copy, Copy]:
    """Return the primary and the backup copy as they are, for the sector size at which most is valid.

    Raises NotThisFormat where no copy shows its signature at any sector size.
    """
    candidates = []
    for sector in sector_sizes(device) if sector_size is None else [sector_size]:
        if device.size < 3 * sector:
            continue
        primary = examine(device, 1, sector, "primary")
        backup = examine(device, _backup_lba(device, primary, sector), sector, "backup")
        if primary.header is None and backup.header is None:
            continue
        rank = (primary.valid, backup.valid, primary.header is not None)
        candidates.append((rank, -sector, primary, backup))
    if not candidates:
        raise NotThisFormat("gpt: found no header at LBA 1 or at the end of the disk", offset=512, spec=SPEC)
    _, _, primary, backup = max(candidates, key=lambda each: each[:2])
    return primary, backup


def _backup_lba(device: BlockDevice, primary: Copy, sector: int) -> int:
    """Return where the backup is: where a valid primary says, else at the end of the disk."""
    last = device.size // sector - 1
    if primary.header_valid and primary.header is not None and 1 < primary.header.alternate_lba <= last:
        return primary.header.alternate_lba
    return last


def _signature(device: BlockDevice, offset: int) -> bytes:
    block = max(device.traits.minimum_block, 512)
    return device.read(offset, block)[:8] if offset % block == 0 else b""


def examine(device: BlockDevice, lba: int, sector_size: int, role: str) -> Copy:
    """Return the copy whose header is at ``lba``, with all that is wrong with it by itself."""
    copy = Copy(role, lba, sector_size)
    start = lba * sector_size
    sector = device.read(start, sector_size)
    if not sector.startswith(layout.SIGNATURE):
        copy.found("signature", f"expected {layout.SIGNATURE!r}, found {sector[:8]!r}", start)
        return copy
    header = copy.header = layout.Header.parse(sector)
    if header.revision != layout.REVISION:
        copy.found("revision", f"revision: expected {layout.REVISION:#x}, found {header.revision:#x}", start + 8)
    if not layout.HEADER_SIZE <= header.header_size <= sector_size:
        expected = f"{layout.HEADER_SIZE} to {sector_size}"
        copy.found("header-size", f"size: expected {expected} bytes, found {header.header_size}", start + 12)
        return copy
    computed = layout.header_crc(sector, header.header_size)
    if header.header_crc32 != computed:
        copy.found("header-crc", f"CRC: expected {computed:#010x}, found {header.header_crc32:#010x}", start + 16)
        return copy
    if header.my_lba != lba:
        copy.found("my-lba", f"own LBA: expected {lba}, found {header.my_lba}", start + 24)
    _check_usable(copy, header, device.size // sector_size, start)
    copy.header_valid = not copy.findings
    _read_entries(device, copy, header, start)
    return copy


def _check_usable(copy: Copy, header: layout.Header, sectors: int, start: int) -> None:
    first, last = header.first_usable_lba, header.last_usable_lba
    if not 2 <= first <= last + 1 or last >= sectors:
        found = f"{first} to {last}"
        copy.found("usable", f"usable LBAs: expected to lie in 2 to {sectors - 1}, found {found}", start + 40)


def _read_entries(device: BlockDevice, copy: Copy, header: layout.Header, start: int) -> None:
    """Read the entries that the header describes, where they can be what it says."""
    size, count, sector = header.size_of_partition_entry, header.number_of_partition_entries, copy.sector_size
    if size % layout.ENTRY_SIZE or size.bit_count() != 1 or size > layout.MAX_ENTRY_SIZE:
        copy.found("entry-size", f"entry size: expected 128 * 2**n bytes up to 4096, found {size}", start + 84)
        return
    if not 0 < count * size <= layout.MAX_ENTRIES_BYTES:
        most = layout.MAX_ENTRIES_BYTES // size
        copy.found("entry-count", f"entries: expected 1 to {most}, found {count}", start + 80)
        return
    length = -(-count * size // sector) * sector
    first, end = header.partition_entry_lba, device.size // sector
    low, high = (2, header.first_usable_lba) if copy.role == "primary" else (header.last_usable_lba + 1, copy.lba)
    if not low <= first or first + length // sector > min(high, end):
        found = f"{first} to {first + length // sector - 1}"
        copy.found("entries-lba", f"entries: expected in LBA {low} to {high - 1}, found {found}", start + 72)
        if not 0 < first <= end - length // sector:
            return
    copy.entries_offset = first * sector
    copy.entries = device.read(first * sector, length)[: count * size]
    computed = crc32(copy.entries)
    if computed != header.partition_entry_array_crc32:
        found = f"{header.partition_entry_array_crc32:#010x}"
        copy.found("entries-crc", f"CRC of the entries: expected {computed:#010x}, found {found}", start + 88)


def used_entries(copy: Copy) -> list[tuple[int, layout.Entry]]:
    """Return the number and entry of each partition in the copy's entries."""
    if copy.header is None or copy.entries is None:
        return []
    size, unused = copy.header.size_of_partition_entry, bytes(16)
    return [
        (position // size + 1, layout.Entry.parse(copy.entries, position))
        for position in range(0, len(copy.entries), size)
        if copy.entries[position : position + 16] != unused
    ]


def to_table(copy: Copy, disk_size: int) -> PartitionTable:
    """Return a valid copy as a table value. Raises Corrupt for partitions that cannot be."""
    header = copy.header
    assert header is not None, "only a valid copy becomes a table"
    wrong = partition_findings(copy, disk_size)
    if wrong:
        raise Corrupt(f"gpt: {wrong[0].message}", offset=wrong[0].offset, spec=SPEC)
    sector = copy.sector_size
    return PartitionTable(
        kind="gpt",
        disk_guid=UUID(bytes_le=header.disk_guid),
        sector_size=sector,
        size=disk_size // sector * sector,
        entries_start=copy.entries_offset if copy.role == "primary" else 2 * sector,
        usable_start=header.first_usable_lba * sector,
        usable_end=(header.last_usable_lba + 1) * sector,
        partitions=tuple(_to_partition(number, entry, sector) for number, entry in used_entries(copy)),
        entry_count=header.number_of_partition_entries,
        entry_size=header.size_of_partition_entry,
    )


def _to_partition(number: int, entry: layout.Entry, sector: int) -> Partition:
    return Partition(
        number=number,
        type_guid=UUID(bytes_le=entry.partition_type_guid),
        guid=UUID(bytes_le=entry.unique_partition_guid),
        start=entry.starting_lba * sector,
        size=(entry.ending_lba + 1 - entry.starting_lba) * sector,
        name=layout.decode_name(entry.partition_name),
        attributes=entry.attributes,
    )


def partition_findings(copy: Copy, disk_size: int) -> list[Finding]:
    """Return what is wrong with where the copy's partitions lie: order, range, overlap."""
    header, sector = copy.header, copy.sector_size
    if header is None:
        return []
    found: list[Finding] = []
    placed: list[tuple[int, int, int]] = []
    sectors = disk_size // sector
    first, last = header.first_usable_lba, header.last_usable_lba
    for number, entry in used_entries(copy):
        offset = copy.entries_offset + (number - 1) * header.size_of_partition_entry
        start, end = entry.starting_lba, entry.ending_lba
        what = f"partition {number}"
        if start > end:
            message = f"{what}: expected to end at LBA {start} or later, found {end}"
            found.append(Finding("gpt.partition.order", message, offset + 40))
            continue
        if end >= sectors:
            message = f"{what}: expected to end before LBA {sectors}, where the disk ends, found LBA {end}"
            found.append(Finding("gpt.partition.beyond-disk", message, offset + 40))
        elif start < first or end > last:
            message = f"{what}: expected to lie in the usable LBAs {first} to {last}, found {start} to {end}"
            found.append(Finding("gpt.partition.beyond-usable", message, offset + 32))
        placed.append((start, end, number))
    placed.sort()
    furthest, holder = -1, 0
    for start, end, number in placed:
        if start <= furthest:
            message = (
                f"partition {number}: starts at LBA {start}, within partition {holder}, which ends at {furthest}"
            )
            at = copy.entries_offset + (number - 1) * header.size_of_partition_entry + 32
            found.append(Finding("gpt.partition.overlap", message, at))
        if end > furthest:
            furthest, holder = end, number
    return found
