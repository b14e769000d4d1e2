"""Reads a master boot record's partitions from a device: primary ones, and the chain of logical ones.

Logical partitions are told by a chain of records. Each says where its partition lies, counted from itself, and where
the next record is, counted from the extended partition; a disk can make it a loop, or lead it anywhere.

Knows: what is wrong with a table, all of it. Refuses to know: how it is mended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, LimitExceeded, NotThisFormat
from blockwright.finding import Finding
from blockwright.table.mbr import layout
from blockwright.table.partition import FIRST_LOGICAL, Extended, MbrPartition, MbrTable
from blockwright.units import SECTOR

_FILE_SYSTEMS: Final = (b"NTFS    ", b"EXFAT   ")
"""What stands at byte 3 of a boot sector that is signed as a boot record is, and has no partitions."""


@dataclass(slots=True)
class Examined:
    """The table as it was found, in sectors, and what is wrong with it.

    Each of ``partitions`` has its number, its entry, where it starts, and the sector of the record that tells of it;
    ``extended`` have their numbers; ``records`` are all of them that were read, in the order of the chain.
    """

    sector_size: int
    sectors: int
    disk_signature: int
    partitions: list[tuple[int, layout.Entry, int, int]] = field(default_factory=list)
    extended: list[tuple[int, layout.Entry]] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def found(self, rule: str, message: str, offset: int) -> None:
        """Note that a rule is broken."""
        self.findings.append(Finding(f"mbr.{rule}", message, offset))


def probe(device: BlockDevice, *, sector_size: int | None = None) -> bool:
    """Whether the device begins with a boot record that has partitions of its own.

    A boot sector of a file system is signed as well, so the entries must be such that they can be meant. One
    partition within the device is enough: of a disk that was cut short, others lie behind its end.
    """
    size = _sector_size(device, sector_size)
    if device.size < 2 * size:
        return False
    sector = device.read(0, size)
    if not layout.is_signed(sector) or sector[3:11] in _FILE_SYSTEMS:
        return False
    found = layout.entries(sector)
    if any(entry.boot_indicator & ~layout.ACTIVE or entry.os_type == layout.PROTECTIVE for entry in found):
        return False
    used = [entry for entry in found if entry.is_data or entry.is_extended]
    return all(entry.starting_lba for entry in used) and any(
        entry.starting_lba < device.size // size for entry in used
    )


def is_empty(device: BlockDevice, *, sector_size: int | None = None) -> bool:
    """Whether the device begins with a boot record that has no partition, and is no file system's boot sector.

    Those of FAT and NTFS are signed too, and often have nothing where the entries would be; their parameters tell.
    """
    size = _sector_size(device, sector_size)
    if device.size < 2 * size:
        return False
    sector = device.read(0, size)
    if not layout.is_signed(sector) or any(sector[layout.PARTITIONS : 510]):
        return False
    bytes_per_sector, sectors_per_cluster = int.from_bytes(sector[11:13], "little"), sector[13]
    return bytes_per_sector not in (512, 1024, 2048, 4096) or sectors_per_cluster.bit_count() != 1


def read(device: BlockDevice, *, sector_size: int | None = None) -> MbrTable:
    """Return the partition table of the device: numbers 1 to 4 are primary, 5 and on logical, as Linux has them.

    ``sector_size`` is what the table counts in, 512 unless the device has larger sectors. An extended partition is
    not among the partitions: its bytes are those of the logical ones. Raises NotThisFormat without a table; Corrupt
    where a partition overlaps another or leaves the disk, or the chain is broken; LimitExceeded.
    """
    found = examine(device, sector_size=sector_size)
    if found.findings:
        first = found.findings[0]
        raise Corrupt(f"mbr: {first.message}", offset=first.offset)
    size = found.sector_size
    partitions = [
        MbrPartition(
            number=number,
            start=start * size,
            size=entry.size_in_lba * size,
            os_type=entry.os_type,
            active=entry.boot_indicator == layout.ACTIVE,
            disk_signature=found.disk_signature,
            record=record * size,
        )
        for number, entry, start, record in found.partitions
    ]
    return MbrTable(
        disk_signature=found.disk_signature,
        sector_size=size,
        size=found.sectors * size,
        partitions=tuple(sorted(partitions, key=lambda each: each.number)),
        extended=tuple(
            Extended(number, entry.starting_lba * size, entry.size_in_lba * size, entry.os_type)
            for number, entry in found.extended
        ),
    )


def examine(device: BlockDevice, *, sector_size: int | None = None) -> Examined:
    """Return the table with all that is wrong with it. Raises NotThisFormat, LimitExceeded."""
    size = _sector_size(device, sector_size)
    if device.size < size:
        raise NotThisFormat(f"mbr: expected a device of {size} bytes or more, found {device.size}")
    sector = device.read(0, size)
    if not layout.is_signed(sector):
        found = sector[510:512].hex(" ")
        raise NotThisFormat(f"mbr: expected the signature 55 aa, found {found}", offset=510)
    result = Examined(size, device.size // size, layout.Signature.parse(sector).disk_signature)
    for index, entry in enumerate(layout.entries(sector)):
        where = layout.PARTITIONS + 16 * index
        if entry.boot_indicator & ~layout.ACTIVE:
            text = f"partition {index + 1}: boot indicator: expected 0x00 or 0x80, found {entry.boot_indicator:#04x}"
            result.found("partition.boot-indicator", text, where)
        if entry.is_data:
            _place(result, index + 1, entry, entry.starting_lba, where)
        elif entry.is_extended and _place(result, index + 1, entry, entry.starting_lba, where):
            result.extended.append((index + 1, entry))
    for _, entry in result.extended:
        _follow(device, result, entry.starting_lba, entry.size_in_lba)
    _check_overlaps(result)
    return result


def _sector_size(device: BlockDevice, given: int | None) -> int:
    return given or max(SECTOR, device.traits.minimum_block)


def _place(result: Examined, number: int, entry: layout.Entry, start: int, where: int) -> bool:
    """Take a partition in, where it lies on the disk."""
    end = start + entry.size_in_lba
    if not 0 < start < end <= result.sectors:
        text = f"partition {number}: expected to lie in sectors 1 to {result.sectors - 1}, found {start} to {end - 1}"
        result.found("partition.beyond-disk", text, where + 8)
        return False
    if entry.is_data:
        result.partitions.append((number, entry, start, 0))
    return True


def _follow(device: BlockDevice, result: Examined, start: int, length: int) -> None:
    """Walk the chain of an extended partition, which begins in its first sector."""
    size = result.sector_size
    position, seen = start, set[int]()
    while True:
        seen.add(position)
        result.records.append(position)
        offset = position * size
        sector = device.read(offset, size)
        if not layout.is_signed(sector):
            if position != start or any(sector):  # one that never had a partition in it is blank
                text = f"extended partition: expected the signature 55 aa, found {sector[510:512].hex(' ')}"
                result.found("logical.signature", text, offset + 510)
            return
        records = layout.entries(sector)
        for index, entry in enumerate(records):
            if entry.is_data:
                _place_logical(result, entry, position, (start, length), offset + layout.PARTITIONS + 16 * index)
        link = next(((index, entry) for index, entry in enumerate(records) if entry.is_extended), None)
        if link is None:
            return
        where = offset + layout.PARTITIONS + 16 * link[0] + 8
        position = start + link[1].starting_lba
        if position >= start + length:
            text = f"extended partition: expected the next record before sector {start + length}, found {position}"
            result.found("logical.chain", text, where)
            return
        if position in seen:
            text = f"extended partition: expected a record that was not read yet, found sector {position} again"
            result.found("logical.loop", text, where)
            return
        if len(seen) > layout.MAX_LOGICAL:
            raise LimitExceeded(f"mbr: expected at most {layout.MAX_LOGICAL} logical partitions", offset=where)


def _place_logical(result: Examined, entry: layout.Entry, record: int, extended: tuple[int, int], where: int) -> None:
    number = FIRST_LOGICAL + sum(each[0] >= FIRST_LOGICAL for each in result.partitions)
    if number >= FIRST_LOGICAL + layout.MAX_LOGICAL:
        raise LimitExceeded(f"mbr: expected at most {layout.MAX_LOGICAL} logical partitions", offset=where)
    first, end = record + entry.starting_lba, extended[0] + extended[1]
    if not extended[0] < first < first + entry.size_in_lba <= end:
        found = f"{first} to {first + entry.size_in_lba - 1}"
        text = f"partition {number}: expected to lie in sectors {extended[0] + 1} to {end - 1}, found {found}"
        result.found("logical.outside", text, where + 8)
    else:
        result.partitions.append((number, entry, first, record))


def _check_overlaps(result: Examined) -> None:
    """Note which partitions lie within others; an extended one may hold logical ones and nothing else."""
    placed = [
        (number, (start, start + entry.size_in_lba, f"partition {number}"))
        for number, entry, start, _ in result.partitions
    ]
    primary = [run for number, run in placed if number < FIRST_LOGICAL]
    primary += [
        (entry.starting_lba, entry.starting_lba + entry.size_in_lba, "the extended partition")
        for _, entry in result.extended
    ]
    for group in ([run for _, run in placed], primary):
        furthest, holder = 0, ""
        for start, end, what in sorted(group):
            if start < furthest:
                text = f"{what}: starts at sector {start}, within {holder}, which ends at {furthest - 1}"
                if all(each.message != text for each in result.findings):
                    result.found("partition.overlap", text, layout.PARTITIONS)
            if end > furthest:
                furthest, holder = end, what
