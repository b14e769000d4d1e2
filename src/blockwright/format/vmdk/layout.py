"""Bytes of a sparse VMDK extent: the header, grain directory and tables, and the markers of a stream.

Positions and lengths are in sectors of 512 bytes where they are the format's own, in bytes everywhere else.

Knows: fields and what they may be. Refuses to know: files.

Source: VMware, Virtual Disk Format 5.0, "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse Extents".
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from blockwright.codec.record import Buffer, Record, raw, u8, u16, u32, u64
from blockwright.codec.words import pack_words, unpack_words
from blockwright.errors import Corrupt, LimitExceeded, NotThisFormat, Unsupported
from blockwright.units import SECTOR, ceil_div

SPEC: Final = "Virtual Disk Format 5.0"
MAGIC: Final = 0x564D444B
"""``KDMV``."""
NEWLINES: Final = b"\n \r\n"
"""Bytes 73 to 76: what a transfer as text would have changed."""
AT_END: Final = 0xFFFFFFFFFFFFFFFF
"""The grain directory's place in a stream's first header: the footer has the true one."""
ENTRIES: Final = 512
"""Entries of a grain table."""
TABLE_BYTES: Final = ENTRIES * 4
TABLE_SECTORS: Final = TABLE_BYTES // SECTOR
ZEROED: Final = 1
"""The entry of a grain that is zeros, where the header says that such are used."""
DEFLATE: Final = 1
MARKER_HEAD: Final = 12
"""Bytes before a compressed grain's data."""

MIN_GRAIN_SECTORS: Final = 8
MAX_GRAIN_SECTORS: Final = 1 << 15
"""16 MiB."""
MAX_TABLES: Final = 1 << 21
"""Grain tables of one extent: 64 TiB of grains of 64 KiB, and 8 MiB of directory."""
MAX_DESCRIPTOR: Final = 1 << 20
"""Bytes of a descriptor."""


class Flag(IntFlag):
    """Flags of the header."""

    NEWLINE_TEST = 1
    REDUNDANT = 2
    """There is a second directory, with tables of its own."""
    ZEROED = 4
    """An entry of 1 is a grain of zeros."""
    COMPRESSED = 1 << 16
    MARKERS = 1 << 17


_KNOWN: Final = Flag.NEWLINE_TEST | Flag.REDUNDANT | Flag.ZEROED | Flag.COMPRESSED | Flag.MARKERS


class SparseHeader(Record, size=512):
    """``SparseExtentHeader``; it stands at the beginning, and in a stream again as the footer."""

    magic: int = u32(0, MAGIC)
    version: int = u32(4, 1)
    flags: int = u32(8, Flag.NEWLINE_TEST | Flag.REDUNDANT)
    capacity: int = u64(12)
    grain_size: int = u64(20, 128)
    descriptor_offset: int = u64(28)
    descriptor_size: int = u64(36)
    gtes_per_gt: int = u32(44, ENTRIES)
    rgd_offset: int = u64(48)
    gd_offset: int = u64(56)
    overhead: int = u64(64)
    unclean_shutdown: int = u8(72)
    newlines: bytes = raw(73, 4)
    compress_algorithm: int = u16(77)


class MarkerType(IntEnum):
    """What follows a marker that is no grain's."""

    END = 0
    TABLE = 1
    DIRECTORY = 2
    FOOTER = 3


class Marker(Record, size=512):
    """What stands before a grain or metadata.

    Of a grain ``value`` is the first sector, and ``size`` bytes of data follow at byte 12. Of metadata
    ``size`` is 0 and ``value`` the sectors that follow.
    """

    value: int = u64(0)
    size: int = u32(8)
    type: int = u32(12)


@dataclass(frozen=True, slots=True)
class SparseExtentHeader:
    """A header that holds, in bytes. ``redundant`` is None where there is no second directory."""

    record: SparseHeader
    size: int
    grain: int
    directory: int
    redundant: int | None
    tables: int
    compressed: bool
    zeroed: bool

    @property
    def span(self) -> int:
        """Bytes of the disk that one grain table maps."""
        return self.grain * ENTRIES

    @property
    def overhead(self) -> int:
        """Where grains begin."""
        return self.record.overhead * SECTOR


def parse_header(data: Buffer, offset: int = 0) -> SparseHeader:
    """Return the record at ``offset``, whose fields may be anything. Raises NotThisFormat, Corrupt."""
    if len(data) - offset < SparseHeader.SIZE:
        raise Corrupt(
            f"vmdk header: expected {SparseHeader.SIZE} bytes, found {max(0, len(data) - offset)}", spec=SPEC
        )
    record = SparseHeader.parse(data, offset)
    if record.magic != MAGIC:
        raise NotThisFormat(f"vmdk header: expected the magic KDMV, found {record.magic:#010x}", offset=offset)
    return record


def check_header(record: SparseHeader, file_size: int, offset: int = 0) -> SparseExtentHeader:
    """Return what a record at ``offset`` says, verified. Raises Corrupt, Unsupported, LimitExceeded."""

    def wrong(field: str, within: int, expected: str, found: object) -> Corrupt:
        return Corrupt(f"vmdk {field}: expected {expected}, found {found}", offset=offset + within, spec=SPEC)

    flags = Flag(record.flags)
    _check_known(record, flags, offset)
    if flags & Flag.NEWLINE_TEST and record.newlines != NEWLINES:
        raise wrong("header", 73, f"{NEWLINES.hex()} as it was written", f"{record.newlines.hex()}: copied as text")
    grain = record.grain_size
    if grain & (grain - 1) or not MIN_GRAIN_SECTORS <= grain <= MAX_GRAIN_SECTORS:
        raise wrong(
            "grain size", 20, f"a power of two from {MIN_GRAIN_SECTORS} to {MAX_GRAIN_SECTORS} sectors", grain
        )
    tables = ceil_div(record.capacity, grain * ENTRIES)
    if tables > MAX_TABLES:
        raise LimitExceeded(
            f"vmdk capacity: expected at most {MAX_TABLES * ENTRIES * grain} sectors, found {record.capacity}",
            offset=offset + 12,
            spec=SPEC,
        )
    places = [("grain directory", 56, record.gd_offset)]
    if flags & Flag.REDUNDANT:
        places.append(("redundant grain directory", 48, record.rgd_offset))
    for name, within, place in places:
        if not place > 0 or place * SECTOR + tables * 4 > file_size:
            raise wrong(name, within, f"{tables * 4} bytes within the {file_size} of the file", f"sector {place}")
    if record.descriptor_size * SECTOR > MAX_DESCRIPTOR:
        raise LimitExceeded(
            f"vmdk descriptor: expected at most {MAX_DESCRIPTOR} bytes, found {record.descriptor_size} sectors",
            offset=offset + 36,
            spec=SPEC,
        )
    if (record.descriptor_offset + record.descriptor_size) * SECTOR > file_size:
        raise wrong("descriptor", 28, f"to end within {file_size} bytes", f"sector {record.descriptor_offset}")
    return SparseExtentHeader(
        record,
        record.capacity * SECTOR,
        grain * SECTOR,
        record.gd_offset * SECTOR,
        record.rgd_offset * SECTOR if flags & Flag.REDUNDANT else None,
        tables,
        bool(flags & Flag.COMPRESSED),
        bool(flags & Flag.ZEROED),
    )


def _check_known(record: SparseHeader, flags: Flag, offset: int) -> None:
    """Raise Unsupported for what this reader does not know."""
    if not 1 <= record.version <= 3:
        raise Unsupported(f"vmdk version: expected 1 to 3, found {record.version}", offset=offset + 4, spec=SPEC)
    if record.flags & ~_KNOWN.value:
        raise Unsupported(f"vmdk flags: expected known ones, found {flags:#x}", offset=offset + 8, spec=SPEC)
    if record.gtes_per_gt != ENTRIES:
        raise Unsupported(
            f"vmdk grain table: expected {ENTRIES} entries, found {record.gtes_per_gt}", offset=offset + 44, spec=SPEC
        )
    compressed = bool(flags & Flag.COMPRESSED)
    if compressed != (record.compress_algorithm == DEFLATE) or compressed != bool(flags & Flag.MARKERS):
        raise Unsupported(
            "vmdk compression: expected deflate with markers or none, "
            f"found algorithm {record.compress_algorithm} with flags {flags:#x}",
            offset=offset + 77,
            spec=SPEC,
        )
    if compressed and flags & Flag.ZEROED:
        raise Unsupported("vmdk flags: compressed with zeroed grains is not read", offset=offset + 8, spec=SPEC)


def entries(data: Buffer) -> array[int]:
    """Return the little-endian 32-bit entries of a directory or table."""
    return unpack_words(data, "I", "little")


def entry_bytes(table: array[int]) -> bytes:
    """Return the bytes of entries."""
    return pack_words(table, "little")


def metadata_marker(kind: MarkerType, sectors: int) -> bytes:
    """Return the marker in front of so many sectors of metadata."""
    return Marker(value=sectors, type=kind.value).pack()


def grain_head(sector: int, length: int) -> bytes:
    """Return what stands before the ``length`` compressed bytes of the grain that begins at ``sector``."""
    return sector.to_bytes(8, "little") + length.to_bytes(4, "little")
