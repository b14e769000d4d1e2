"""The GUID partition table's bytes: protective MBR, header, entries (UEFI 2.10 section 5.3, and 5.2.3 for the MBR).

Knows: fields, checksums, names as UTF-16. Refuses to know: where a table lies, and whether two copies agree.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from blockwright.codec.checksum import crc32
from blockwright.codec.record import Buffer, Record, raw, u32, u64
from blockwright.errors import UsageError
from blockwright.table.mbr import layout as mbr

SIGNATURE: Final = b"EFI PART"
REVISION: Final = 0x00010000
HEADER_SIZE: Final = 92
ENTRY_SIZE: Final = 128
ENTRY_COUNT: Final = 128
MIN_ENTRIES_BYTES: Final = 16384
"""Bytes that the specification reserves for the entries at the least."""
MAX_ENTRY_SIZE: Final = 4096
MAX_ENTRIES_BYTES: Final = 4 << 20
"""Bytes of entries that are accepted from a disk; real tables have 16 KiB."""
SECTOR_SIZES: Final = (512, 4096)
NAME_UNITS: Final = 36
"""UTF-16 code units in a name; a shorter one ends at its first NUL."""
UNUSED: Final = UUID(int=0)
"""The type of an entry that holds no partition."""

MBR_PARTITIONS: Final = mbr.PARTITIONS
PROTECTIVE: Final = mbr.PROTECTIVE
MbrEntry = mbr.Entry


class Header(Record, size=HEADER_SIZE):
    """The table's header, at LBA 1 and at the last LBA. LBAs count in the disk's sectors."""

    signature: bytes = raw(0, 8)
    revision: int = u32(8, REVISION)
    header_size: int = u32(12, HEADER_SIZE)
    header_crc32: int = u32(16)
    reserved: int = u32(20)
    my_lba: int = u64(24)
    alternate_lba: int = u64(32)
    first_usable_lba: int = u64(40)
    last_usable_lba: int = u64(48)
    disk_guid: bytes = raw(56, 16)
    partition_entry_lba: int = u64(72)
    number_of_partition_entries: int = u32(80, ENTRY_COUNT)
    size_of_partition_entry: int = u32(84, ENTRY_SIZE)
    partition_entry_array_crc32: int = u32(88)

    def seal(self) -> bytes:
        """Return the header's bytes with its checksum set."""
        self.header_crc32 = 0
        self.header_crc32 = crc32(self.pack())
        return self.pack()


class Entry(Record, size=ENTRY_SIZE):
    """One partition. ``ending_lba`` is inclusive; the name is UTF-16LE."""

    partition_type_guid: bytes = raw(0, 16)
    unique_partition_guid: bytes = raw(16, 16)
    starting_lba: int = u64(32)
    ending_lba: int = u64(40)
    attributes: int = u64(48)
    partition_name: bytes = raw(56, 72)


def header_crc(sector: Buffer, header_size: int) -> int:
    """Return the checksum over the first ``header_size`` bytes of the header's sector, its own field as zeros."""
    return crc32(bytes(sector[:16]) + bytes(4) + bytes(sector[20:header_size]))


def encode_name(name: str) -> bytes:
    """Return the name as UTF-16LE, without padding. Raises UsageError past 36 units, or with a NUL."""
    data = name.encode("utf-16-le", "surrogatepass")
    if len(data) > 2 * NAME_UNITS:
        raise UsageError(
            f"partition name {ascii(name)[:100]}: expected at most {NAME_UNITS} UTF-16 units, found {len(data) // 2}"
        )
    if "\0" in name:
        raise UsageError(f"partition name {name!a}: expected no NUL")
    return data


def decode_name(data: bytes) -> str:
    """Return the name up to its first NUL; lone surrogates stay as they are."""
    return data.decode("utf-16-le", "surrogatepass").partition("\0")[0]


def protective_entry(size_sectors: int) -> MbrEntry:
    """Return the entry that covers a disk of ``size_sectors`` behind its first sector (UEFI 2.10 table 5.4)."""
    length = min(size_sectors - 1, 0xFFFFFFFF)
    return MbrEntry(
        starting_chs=b"\x00\x02\x00",
        os_type=PROTECTIVE,
        ending_chs=mbr.chs(length) or b"\xff\xff\xff",
        starting_lba=1,
        size_in_lba=length,
    )


def mbr_entries(sector: Buffer) -> list[MbrEntry]:
    """Return the four entries of a master boot record."""
    return mbr.entries(sector)


def has_protective(sector: Buffer) -> bool:
    """Whether the first sector is an MBR that protects a GPT: signed, with an entry of type EEh from LBA 1."""
    return mbr.is_signed(sector) and any(
        entry.os_type == PROTECTIVE and entry.starting_lba == 1 for entry in mbr_entries(sector)
    )


def with_protective(sector: Buffer, size_sectors: int) -> bytes:
    """Return the first 512 bytes with their partitions replaced by the protective one.

    Boot code and disk signature before them stay. A hybrid MBR stays as it is: its other partitions are somebody's.
    """
    result = bytearray(sector[:512])
    entries = mbr_entries(result)
    if has_protective(result) and sum(entry.os_type != 0 for entry in entries) > 1:
        return bytes(result)
    result[MBR_PARTITIONS:510] = bytes(64)
    protective_entry(size_sectors).pack_into(result, MBR_PARTITIONS)
    result[510:512] = mbr.SIGNATURE.to_bytes(2, "little")
    return bytes(result)
