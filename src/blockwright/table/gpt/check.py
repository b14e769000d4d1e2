"""Verifies a GUID partition table: protective MBR, both copies, how they agree, and where the partitions lie.

Advice is no finding: a partition that is not aligned is legal. Source: UEFI 2.10 sections 5.2.3 and 5.3.

Knows: rules. Refuses to know: how to mend what breaks them (``repair``).
"""

from __future__ import annotations

from uuid import UUID

from blockwright.device.base import BlockDevice
from blockwright.finding import Finding
from blockwright.table.gpt import layout
from blockwright.table.gpt.read import Copy, copies, partition_findings, used_entries

_SAME = (
    ("first_usable_lba", 40, "first usable LBA"),
    ("last_usable_lba", 48, "last usable LBA"),
    ("disk_guid", 56, "disk GUID"),
    ("number_of_partition_entries", 80, "number of entries"),
    ("size_of_partition_entry", 84, "entry size"),
    ("partition_entry_array_crc32", 88, "CRC of the entries"),
)


def check(device: BlockDevice, *, sector_size: int | None = None) -> list[Finding]:
    """Return every rule that the device's table breaks; an empty list says it is clean.

    Raises NotThisFormat where no copy shows a signature.
    """
    primary, backup = copies(device, sector_size=sector_size)
    found = mbr_findings(device, primary.sector_size)
    found += primary.findings + backup.findings
    if primary.header_valid and backup.header_valid:
        found += _disagreement(primary, backup)
    found += _placement(device, primary, backup)
    source = primary if primary.valid or not backup.valid else backup
    if source.entries is not None:
        found += partition_findings(source, device.size)
        found += _duplicates(source)
        found += _hybrid_strangers(device, source)
    return found


def mbr_findings(device: BlockDevice, sector_size: int) -> list[Finding]:
    """Return what is wrong with the protective MBR in the first sector."""
    sector = device.read(0, sector_size)
    if sector[510:512] != b"\x55\xaa":
        text = f"protective MBR: expected the signature 55 aa, found {sector[510:512].hex(' ')}"
        return [Finding("gpt.mbr.signature", text, 510, repairable=True)]
    entries = layout.mbr_entries(sector)
    protective = [index for index, entry in enumerate(entries) if entry.os_type == layout.PROTECTIVE]
    if not protective:
        found = " ".join(f"{entry.os_type:02x}" for entry in entries)
        text = f"protective MBR: expected a partition of type ee, found types {found}"
        return [Finding("gpt.mbr.protective", text, layout.MBR_PARTITIONS + 4, repairable=True)]
    offset = layout.MBR_PARTITIONS + 16 * protective[0]
    entry = entries[protective[0]]
    if entry.starting_lba != 1:
        text = f"protective MBR: expected to start at LBA 1, found {entry.starting_lba}"
        return [Finding("gpt.mbr.start", text, offset + 8, repairable=True)]
    return _hybrid_overlaps(entries)


def _hybrid_strangers(device: BlockDevice, source: Copy) -> list[Finding]:
    """Return the partitions of a hybrid MBR that are in no GPT entry: writing by either table may destroy them."""
    sector = device.read(0, source.sector_size)
    if not layout.has_protective(sector):
        return []
    known = {(entry.starting_lba, entry.ending_lba) for _, entry in used_entries(source)}
    found = []
    for index, entry in enumerate(layout.mbr_entries(sector)):
        run = (entry.starting_lba, entry.starting_lba + entry.size_in_lba - 1)
        if entry.os_type not in (0, layout.PROTECTIVE) and run not in known:
            text = f"MBR partition {index + 1}: expected one of the GPT's partitions, found LBA {run[0]} to {run[1]}"
            found.append(Finding("gpt.mbr.stranger", text, layout.MBR_PARTITIONS + 16 * index + 8))
    return found


def _hybrid_overlaps(entries: list[layout.MbrEntry]) -> list[Finding]:
    """Return the pairs of a hybrid MBR's partitions that overlap."""
    found, end, holder = [], 0, 0
    used = sorted((entry.starting_lba, index) for index, entry in enumerate(entries) if entry.size_in_lba)
    for start, index in used:
        if start < end:
            text = f"MBR partition {index + 1}: starts at LBA {start}, within partition {holder + 1}"
            found.append(Finding("gpt.mbr.overlap", text, layout.MBR_PARTITIONS + 16 * index + 8))
        stop = start + entries[index].size_in_lba
        if stop > end:
            end, holder = stop, index
    return found


def _disagreement(primary: Copy, backup: Copy) -> list[Finding]:
    """Return the fields that must be the same in both headers and are not."""
    assert primary.header is not None
    assert backup.header is not None
    found = []
    start = backup.lba * backup.sector_size
    for name, offset, what in _SAME:
        first, second = getattr(primary.header, name), getattr(backup.header, name)
        if first != second:
            shown = [value.hex() if isinstance(value, bytes) else value for value in (first, second)]
            text = f"backup header: {what}: expected {shown[0]} as in the primary, found {shown[1]}"
            found.append(Finding(f"gpt.mismatch.{name.replace('_', '-')}", text, start + offset, repairable=True))
    if backup.header.alternate_lba != primary.lba:
        text = f"backup header: alternate LBA: expected {primary.lba}, found {backup.header.alternate_lba}"
        found.append(Finding("gpt.backup.alternate-lba", text, start + 32, repairable=True))
    return found


def _placement(device: BlockDevice, primary: Copy, backup: Copy) -> list[Finding]:
    """Return whether the primary names a backup that is at the end of the disk."""
    if not primary.header_valid or primary.header is None:
        return []
    sector = primary.sector_size
    last, alternate = device.size // sector - 1, primary.header.alternate_lba
    if alternate == last:
        return []
    if alternate > last:
        text = f"backup header: expected at LBA {last}, where the disk ends, found it announced at LBA {alternate}"
        return [Finding("gpt.backup.beyond-disk", text, sector + 32, repairable=backup.valid)]
    text = f"backup header: expected at the end of the disk, LBA {last}, found at LBA {alternate}"
    return [Finding("gpt.backup.not-at-end", text, sector + 32, repairable=True)]


def _duplicates(source: Copy) -> list[Finding]:
    """Return the partitions that share a GUID with one before them, and those that have none."""
    assert source.header is not None
    found = []
    seen: dict[bytes, int] = {}
    for number, entry in used_entries(source):
        guid = entry.unique_partition_guid
        offset = source.entries_offset + (number - 1) * source.header.size_of_partition_entry + 16
        if guid in seen:
            text = f"partition {number}: GUID: {UUID(bytes_le=guid)} is that of partition {seen[guid]}"
            found.append(Finding("gpt.partition.duplicate-guid", text, offset))
        seen.setdefault(guid, number)
    return found
