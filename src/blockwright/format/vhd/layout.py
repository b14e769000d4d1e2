"""The bytes of a VHD image: footer, dynamic header, block table, parent locators. All numbers are big-endian.

Knows: bytes, checksums, geometries and limits. Refuses to know: where they come from. Source: Microsoft,
"Virtual Hard Disk Image Format Specification" 1.0.
"""

from __future__ import annotations

from array import array
from typing import Final

from blockwright.codec.record import Record, raw, u8, u16, u32, u64
from blockwright.codec.words import pack_words, unpack_words
from blockwright.errors import Corrupt, LimitExceeded, NotThisFormat, Unsupported
from blockwright.units import SECTOR, GiB, KiB, MiB, align_up, ceil_div

SPEC: Final = "VHD 1.0"
COOKIE: Final = b"conectix"
HEADER_COOKIE: Final = b"cxsparse"
VERSION: Final = 0x0001_0000
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
NOWHERE: Final = (1 << 64) - 1
FREE: Final = 0xFFFF_FFFF
MAX_SIZE: Final = 2040 * GiB
"""Of a disk: what Hyper-V takes, and a little less than sectors in 32 bits reach."""
MIN_BLOCK: Final = 4 * KiB
MAX_ENTRIES: Final = 1 << 23
"""Blocks of an image that is read: twice as many as the largest disk has in blocks of 512 KiB."""
MAX_BLOCK: Final = 256 * MiB
DEFAULT_BLOCK: Final = 2 * MiB
MAX_LOCATOR: Final = 64 * KiB
LOCATORS: Final = 8

MAX_GEOMETRY: Final = 65535 * 16 * 255
"""Sectors of the largest geometry, which says nothing of the size."""
CREATOR: Final = b"qem2"
"""The mark of images whose size is the current size: other marks that we could use make QEMU take the geometry's."""
BY_GEOMETRY: Final = frozenset({b"vpc ", b"vs  ", b"qemu"})
"""Marks of programs whose disks are as large as their geometry: Virtual PC, Virtual Server, QEMU unless it was told
otherwise. QEMU takes every mark for such a one that it does not know; Hyper-V takes none."""


class Footer(Record, size=512, byte_order=">"):
    """The last sector of the file, and the first one of all but fixed images."""

    cookie: bytes = raw(0, 8)
    features: int = u32(8, 2)
    version: int = u32(12, VERSION)
    data_offset: int = u64(16, NOWHERE)
    timestamp: int = u32(24)
    creator: bytes = raw(28, 4)
    creator_version: int = u32(32)
    creator_os: bytes = raw(36, 4)
    original_size: int = u64(40)
    current_size: int = u64(48)
    cylinders: int = u16(56)
    heads: int = u8(58)
    sectors: int = u8(59)
    kind: int = u32(60)
    checksum: int = u32(64)
    uuid: bytes = raw(68, 16)
    saved: int = u8(84)

    @property
    def size(self) -> int:
        """The size of the disk, in bytes: by the geometry where the creator goes by it, else the current size."""
        sectors = self.cylinders * self.heads * self.sectors
        if self.creator in BY_GEOMETRY and sectors != MAX_GEOMETRY:
            return sectors * SECTOR
        return self.current_size


class DynamicHeader(Record, size=1024, byte_order=">"):
    """The header of dynamic and differencing images. The locators are ``LOCATORS`` records of 24 bytes."""

    cookie: bytes = raw(0, 8)
    data_offset: int = u64(8, NOWHERE)
    table_offset: int = u64(16)
    version: int = u32(24, VERSION)
    entries: int = u32(28)
    block_size: int = u32(32, DEFAULT_BLOCK)
    checksum: int = u32(36)
    parent_uuid: bytes = raw(40, 16)
    parent_timestamp: int = u32(56)
    parent_name: bytes = raw(64, 512)
    locators: bytes = raw(576, 24 * LOCATORS)


class Locator(Record, size=24, byte_order=">"):
    """Where a name of the parent stands: ``length`` bytes at ``offset``."""

    platform: bytes = raw(0, 4)
    space: int = u32(4)
    length: int = u32(8)
    offset: int = u64(16)


def checksum(data: bytes, at: int) -> int:
    """Return the one's complement of the sum of all bytes but the four at ``at``."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFF_FFFF


def pack_footer(footer: Footer) -> bytes:
    """Return a footer's bytes, with the checksum that they need."""
    footer = footer.replace(cookie=COOKIE)
    return footer.replace(checksum=checksum(footer.pack(), 64)).pack()


def pack_header(header: DynamicHeader) -> bytes:
    """Return a dynamic header's bytes, with the checksum that they need."""
    header = header.replace(cookie=HEADER_COOKIE)
    return header.replace(checksum=checksum(header.pack(), 36)).pack()


def parse_footer(data: bytes, offset: int) -> Footer:
    """Return the footer that ``data``, from byte ``offset`` of the file, holds. Raises NotThisFormat, Corrupt,
    Unsupported, LimitExceeded.
    """
    if len(data) < Footer.SIZE or not data.startswith(COOKIE):
        raise NotThisFormat("vhd: expected the cookie conectix, found none", offset=offset, spec=SPEC)
    footer = Footer.parse(data)
    wanted = checksum(data[: Footer.SIZE], 64)
    if footer.checksum != wanted:
        raise Corrupt(
            f"vhd footer: expected the checksum {wanted:#010x}, found {footer.checksum:#010x}",
            offset=offset + 64,
            spec=SPEC,
        )
    if footer.version >> 16 != 1:
        raise Unsupported(f"vhd: expected version 1, found {footer.version >> 16}", offset=offset + 12)
    if footer.kind not in (FIXED, DYNAMIC, DIFFERENCING):
        raise Unsupported(f"vhd: expected a disk of the type 2, 3 or 4, found {footer.kind}", offset=offset + 60)
    if footer.saved:
        raise Unsupported("vhd: belongs to a saved state of a virtual machine", offset=offset + 84)
    if footer.size > MAX_SIZE:
        raise LimitExceeded(f"vhd: expected a disk of at most {MAX_SIZE} bytes, found {footer.size}")
    if not footer.size or footer.size % SECTOR:
        raise Corrupt(f"vhd: expected a disk of whole sectors, found {footer.size} bytes", offset=offset + 48)
    return footer


def parse_header(data: bytes, offset: int, size: int, file_size: int) -> DynamicHeader:
    """Return the dynamic header, from byte ``offset`` of a file of ``file_size`` bytes, for a disk of ``size`` bytes.

    Raises Corrupt, Unsupported, LimitExceeded.
    """
    if len(data) < DynamicHeader.SIZE or not data.startswith(HEADER_COOKIE):
        raise Corrupt("vhd dynamic header: expected the cookie cxsparse, found none", offset=offset, spec=SPEC)
    header = DynamicHeader.parse(data)
    wanted = checksum(data[: DynamicHeader.SIZE], 36)
    if header.checksum != wanted:
        raise Corrupt(
            f"vhd dynamic header: expected the checksum {wanted:#010x}, found {header.checksum:#010x}",
            offset=offset + 36,
            spec=SPEC,
        )
    if header.version >> 16 != 1:
        raise Unsupported(f"vhd dynamic header: expected version 1, found {header.version >> 16}")
    block = header.block_size
    if block & (block - 1) or not MIN_BLOCK <= block <= MAX_BLOCK:
        raise Corrupt(
            f"vhd block size: expected a power of two from {MIN_BLOCK} to {MAX_BLOCK}, found {block}",
            offset=offset + 32,
            spec=SPEC,
        )
    needed = ceil_div(size, block)
    if needed > MAX_ENTRIES:
        raise LimitExceeded(f"vhd table: expected at most {MAX_ENTRIES} blocks, found {needed}", offset=offset + 32)
    if header.entries < needed:
        raise Corrupt(
            f"vhd table: expected at least {needed} entries for {size} bytes, found {header.entries}",
            offset=offset + 28,
            spec=SPEC,
        )
    end = header.table_offset + 4 * needed
    if header.table_offset % SECTOR or header.table_offset < SECTOR or end > file_size:
        raise Corrupt(
            f"vhd table: expected {4 * needed} bytes at a sector within the {file_size} bytes of the file, found "
            f"them at {header.table_offset}",
            offset=offset + 16,
            spec=SPEC,
        )
    return header


def bitmap_bytes(block: int) -> int:
    """Return the bytes of a block's bitmap of sectors, which stands before the block."""
    return align_up(ceil_div(block // SECTOR, 8), SECTOR)


def geometry(size: int) -> tuple[int, int, int]:
    """Return (cylinders, heads, sectors) for a disk of ``size`` bytes, by the specification's appendix."""
    total = min(size // SECTOR, MAX_GEOMETRY)
    if total >= 65535 * 16 * 63:
        return total // 255 // 16, 16, 255
    tracks = total // 17
    heads, sectors = max(4, ceil_div(tracks, 1024)), 17
    if tracks >= heads * 1024 or heads > 16:
        heads, sectors, tracks = 16, 31, total // 31
    if tracks >= heads * 1024:
        heads, sectors, tracks = 16, 63, total // 63
    return tracks // heads, heads, sectors


def locators(header: DynamicHeader) -> list[Locator]:
    """Return the locators that are used."""
    found = [Locator.parse(header.locators, at) for at in range(0, 24 * LOCATORS, 24)]
    return [each for each in found if each.platform != bytes(4) and each.length]


def entries(data: bytes) -> array[int]:
    """Return the table's entries, of the machine's own order, that ``data`` holds."""
    return unpack_words(data, "I", "big")


def entry_bytes(found: array[int]) -> bytes:
    """Return entries as they are stored."""
    return pack_words(found, "big")
