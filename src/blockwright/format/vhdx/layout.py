"""The bytes of a VHDX image: headers, region tables, metadata, block table entries. All numbers are little-endian.

Knows: bytes, checksums and limits. Refuses to know: where they come from. Source: [MS-VHDX] sections 2.2 to 2.6.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from blockwright.codec.checksum import crc32c
from blockwright.codec.record import Record, raw, u16, u32, u64
from blockwright.codec.words import pack_words, unpack_words
from blockwright.errors import Corrupt, LimitExceeded, NotThisFormat, Unsupported
from blockwright.units import KiB, MiB, TiB, ceil_div

SPEC: Final = "MS-VHDX"
MAGIC: Final = b"vhdxfile"
HEADERS: Final = (64 * KiB, 128 * KiB)
REGION_TABLES: Final = (192 * KiB, 256 * KiB)
HEADER_BYTES: Final = 4 * KiB
TABLE_BYTES: Final = 64 * KiB
MAX_ENTRIES: Final = 2047
MAX_LOG: Final = 64 * MiB
MAX_BAT: Final = 64 * MiB
"""Bytes of the block table: 64 TiB in blocks of 8 MiB and more."""
MAX_METADATA: Final = 64 * MiB
MAX_ITEM: Final = MiB
MAX_SIZE: Final = 64 * TiB
MIN_BLOCK: Final = MiB
MAX_BLOCK: Final = 256 * MiB
CHUNK_SECTORS: Final = 1 << 23
"""Sectors for which one block of bits stands."""

NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULL, PARTIAL = 0, 1, 2, 3, 6, 7
STATE: Final = 7
OFFSET: Final = ~(MiB - 1) & (1 << 64) - 1
RESERVED: Final = (MiB - 1) & ~STATE
KEEP: Final = 1
"""Of the file parameters: blocks stay allocated."""
HAS_PARENT: Final = 2

BAT: Final = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
METADATA: Final = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
PARAMETERS: Final = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
DISK_SIZE: Final = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
DISK_ID: Final = UUID("beca12ab-b2e6-4523-93ef-c309e000c746").bytes_le
LOGICAL: Final = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
PHYSICAL: Final = UUID("cda348c7-445d-4471-9cc9-e9885251c556").bytes_le
PARENT: Final = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
KNOWN_ITEMS: Final = frozenset({PARAMETERS, DISK_SIZE, DISK_ID, LOGICAL, PHYSICAL, PARENT})
LOCATOR_TYPE: Final = UUID("b04aefb7-d19e-4a81-b789-25b8e9445913").bytes_le

IS_USER: Final = 1
IS_DISK: Final = 2
REQUIRED: Final = 4


class Header(Record, size=4096):
    """One of the two headers."""

    signature: bytes = raw(0, 4)
    checksum: int = u32(4)
    sequence: int = u64(8)
    file_guid: bytes = raw(16, 16)
    data_guid: bytes = raw(32, 16)
    log_guid: bytes = raw(48, 16)
    log_version: int = u16(64)
    version: int = u16(66, 1)
    log_length: int = u32(68)
    log_offset: int = u64(72)


class TableHeader(Record, size=16):
    """The beginning of a region table."""

    signature: bytes = raw(0, 4)
    checksum: int = u32(4)
    count: int = u32(8)


class RegionEntry(Record, size=32):
    """A region of the file."""

    guid: bytes = raw(0, 16)
    offset: int = u64(16)
    length: int = u32(24)
    required: int = u32(28)


class MetadataHeader(Record, size=32):
    """The beginning of the metadata region."""

    signature: bytes = raw(0, 8)
    count: int = u16(10)


class MetadataEntry(Record, size=32):
    """Where in the region an item of metadata is."""

    guid: bytes = raw(0, 16)
    offset: int = u32(16)
    length: int = u32(20)
    flags: int = u32(24)


class LocatorHeader(Record, size=20):
    """The beginning of a parent locator."""

    kind: bytes = raw(0, 16)
    count: int = u16(18)


class LocatorEntry(Record, size=12):
    """Where in the item a key and its value are."""

    key_offset: int = u32(0)
    value_offset: int = u32(4)
    key_length: int = u16(8)
    value_length: int = u16(10)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the metadata says. Sizes in bytes; ``size_offset`` is where in the file the disk's size stands."""

    size: int
    block: int
    sector: int
    physical: int
    flags: int
    size_offset: int
    parent: Mapping[str, str] | None = None

    @property
    def ratio(self) -> int:
        """Blocks of data for which one block of bits stands."""
        return CHUNK_SECTORS * self.sector // self.block

    @property
    def entries(self) -> int:
        """Entries of the block table."""
        return table_entries(self.size, self.block, self.sector, parent=self.parent is not None)


def table_entries(size: int, block: int, sector: int, *, parent: bool = False) -> int:
    """Return how many entries the block table of a disk has ([MS-VHDX] 2.5)."""
    ratio, blocks = CHUNK_SECTORS * sector // block, ceil_div(size, block)
    if parent:
        return ceil_div(blocks, ratio) * (ratio + 1)
    return blocks + (blocks - 1) // ratio


def sealed(data: bytes) -> bytes:
    """Return a structure with its checksum, at byte 4, set."""
    clear = data[:4] + bytes(4) + data[8:]
    return clear[:4] + crc32c(clear).to_bytes(4, "little") + clear[8:]


def wrong_checksum(data: bytes, what: str, offset: int) -> Corrupt | None:
    """Return the exception for a structure at ``offset`` of the file whose checksum does not hold, else None."""
    wanted, found = crc32c(data[:4] + bytes(4) + data[8:]), int.from_bytes(data[4:8], "little")
    if wanted == found:
        return None
    return Corrupt(f"{what}: expected the checksum {wanted:#010x}, found {found:#010x}", offset=offset + 4, spec=SPEC)


def parse_header(data: bytes, offset: int) -> Header:
    """Return the header that ``data``, at byte ``offset`` of the file, holds. Raises Corrupt."""
    if len(data) < HEADER_BYTES or not data.startswith(b"head"):
        raise Corrupt("vhdx header: expected the signature head, found none", offset=offset, spec=SPEC)
    wrong = wrong_checksum(data, "vhdx header", offset)
    if wrong is not None:
        raise wrong
    return Header.parse(data)


def check_header(header: Header, file_size: int) -> None:
    """Raise Unsupported, Corrupt or LimitExceeded where the header in force breaks a rule."""
    if header.version != 1 or header.log_version:
        raise Unsupported(f"vhdx: expected version 1, log version 0, found {header.version} and {header.log_version}")
    length, offset = header.log_length, header.log_offset
    if length > MAX_LOG:
        raise LimitExceeded(f"vhdx log: expected at most {MAX_LOG} bytes, found {length}")
    if not length or length % MiB or offset % MiB or offset < MiB or offset + length > file_size:
        raise Corrupt(
            f"vhdx log: expected whole MiB within {file_size} bytes of the file, found {length} bytes at {offset}",
            spec=SPEC,
        )


def parse_regions(data: bytes, offset: int, file_size: int) -> dict[bytes, RegionEntry]:
    """Return the regions that a table, at byte ``offset`` of the file, names, by GUID.

    Raises Corrupt, Unsupported for one that is required and not known.
    """
    if len(data) < TABLE_BYTES or not data.startswith(b"regi"):
        raise Corrupt("vhdx region table: expected the signature regi, found none", offset=offset, spec=SPEC)
    wrong = wrong_checksum(data, "vhdx region table", offset)
    if wrong is not None:
        raise wrong
    count = TableHeader.parse(data).count
    if count > MAX_ENTRIES:
        raise Corrupt(f"vhdx region table: expected at most {MAX_ENTRIES} regions, found {count}", offset=offset + 8)
    found: dict[bytes, RegionEntry] = {}
    for number in range(count):
        entry = RegionEntry.parse(data, 16 + 32 * number)
        at = offset + 16 + 32 * number
        if entry.guid not in (BAT, METADATA):
            if entry.required & 1:
                raise Unsupported(f"vhdx region {_name(entry.guid)}: is required and not known", offset=at)
            continue
        if entry.guid in found:
            raise Corrupt(f"vhdx region {_name(entry.guid)}: expected one, found two", offset=at, spec=SPEC)
        start, length = entry.offset, entry.length
        if start % MiB or length % MiB or start < MiB or not length or start + length > file_size:
            raise Corrupt(
                f"vhdx region {_name(entry.guid)}: expected whole MiB within {file_size} bytes of the file, found "
                f"{length} bytes at {start}",
                offset=at,
                spec=SPEC,
            )
        found[entry.guid] = entry
    for guid, what in ((BAT, "block table"), (METADATA, "metadata")):
        if guid not in found:
            raise Corrupt(f"vhdx region table: expected a region of the {what}, found none", offset=offset, spec=SPEC)
    if found[METADATA].length > MAX_METADATA:
        raise LimitExceeded(f"vhdx metadata: expected at most {MAX_METADATA} bytes, found {found[METADATA].length}")
    return found


def parse_items(data: bytes, offset: int, length: int) -> dict[bytes, MetadataEntry]:
    """Return where the items of metadata are that are known, of a region of ``length`` bytes at byte ``offset``.

    Raises Corrupt, Unsupported for one that is required and not known.
    """
    if not data.startswith(b"metadata"):
        raise Corrupt("vhdx metadata: expected the signature metadata, found none", offset=offset, spec=SPEC)
    count = MetadataHeader.parse(data).count
    if count > MAX_ENTRIES:
        raise Corrupt(f"vhdx metadata: expected at most {MAX_ENTRIES} items, found {count}", offset=offset + 10)
    found: dict[bytes, MetadataEntry] = {}
    for number in range(count):
        at = 32 + 32 * number
        entry = MetadataEntry.parse(data, at)
        if entry.guid not in KNOWN_ITEMS or entry.flags & IS_USER:
            if entry.flags & REQUIRED:
                raise Unsupported(f"vhdx metadata {_name(entry.guid)}: is required and not known", offset=offset + at)
            continue
        if entry.guid in found:
            raise Corrupt(
                f"vhdx metadata {_name(entry.guid)}: expected one, found two", offset=offset + at, spec=SPEC
            )
        if entry.offset < TABLE_BYTES or entry.length > MAX_ITEM or entry.offset + entry.length > length:
            raise Corrupt(
                f"vhdx metadata {_name(entry.guid)}: expected at most {MAX_ITEM} bytes behind the table and within "
                f"{length}, found {entry.length} at {entry.offset}",
                offset=offset + at,
                spec=SPEC,
            )
        found[entry.guid] = entry
    return found


def check_parameters(found: Parameters) -> None:
    """Raise Corrupt or LimitExceeded where sizes break a rule."""
    block, sector = found.block, found.sector
    if block & (block - 1) or not MIN_BLOCK <= block <= MAX_BLOCK:
        raise Corrupt(f"vhdx block size: expected a power of two from 1 MiB to 256 MiB, found {block}", spec=SPEC)
    if sector not in (512, 4096) or found.physical not in (512, 4096):
        raise Corrupt(
            f"vhdx sectors: expected 512 or 4096 bytes, found {sector}, physical {found.physical}", spec=SPEC
        )
    if found.size > MAX_SIZE:
        raise LimitExceeded(f"vhdx: expected a disk of at most {MAX_SIZE} bytes, found {found.size}")
    if not found.size or found.size % sector:
        raise Corrupt(
            f"vhdx: expected a disk of whole sectors of {sector} bytes, found {found.size} bytes",
            offset=found.size_offset,
            spec=SPEC,
        )
    if found.entries * 8 > MAX_BAT:
        raise LimitExceeded(f"vhdx block table: expected at most {MAX_BAT} bytes, found {found.entries * 8}")


def parse_locator(data: bytes) -> dict[str, str]:
    """Return the keys and values of a parent locator. Raises Corrupt, Unsupported."""
    if len(data) < LocatorHeader.SIZE:
        raise Corrupt(f"vhdx parent locator: expected at least 20 bytes, found {len(data)}", spec=SPEC)
    header = LocatorHeader.parse(data)
    if header.kind != LOCATOR_TYPE:
        raise Unsupported(f"vhdx parent locator {_name(header.kind)}: is not known")
    if LocatorHeader.SIZE + header.count * LocatorEntry.SIZE > len(data):
        raise Corrupt(f"vhdx parent locator: found {header.count} keys in {len(data)} bytes", spec=SPEC)
    found = {}
    for number in range(header.count):
        entry = LocatorEntry.parse(data, LocatorHeader.SIZE + number * LocatorEntry.SIZE)
        if max(entry.key_offset + entry.key_length, entry.value_offset + entry.value_length) > len(data):
            raise Corrupt(f"vhdx parent locator: key {number} reaches beyond its {len(data)} bytes", spec=SPEC)
        key = data[entry.key_offset : entry.key_offset + entry.key_length].decode("utf-16-le", "replace")
        value = data[entry.value_offset : entry.value_offset + entry.value_length].decode("utf-16-le", "replace")
        found[key] = value
    return found


def check_magic(data: bytes) -> None:
    """Raise NotThisFormat where a file does not begin as a VHDX image does."""
    if not data.startswith(MAGIC):
        raise NotThisFormat("vhdx: expected vhdxfile at its beginning, found none", offset=0, spec=SPEC)


def _name(guid: bytes) -> str:
    return str(UUID(bytes_le=guid))


def entries(data: bytes) -> array[int]:
    """Return the block table's entries, of the machine's own order, that ``data`` holds."""
    return unpack_words(data, "Q", "little")


def entry_bytes(found: array[int]) -> bytes:
    """Return entries as they are stored."""
    return pack_words(found, "little")
