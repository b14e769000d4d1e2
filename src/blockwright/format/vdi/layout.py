"""The bytes of a VDI image: its header and its block map. All numbers are little-endian.

Knows: bytes and limits. Refuses to know: where they come from. Source: VirtualBox's ``VDICore.h``, as QEMU's
``block/vdi.c`` has it, too.
"""

from __future__ import annotations

from array import array
from typing import Final

from blockwright.codec.record import Record, raw, u32, u64
from blockwright.codec.words import pack_words, unpack_words
from blockwright.errors import Corrupt, LimitExceeded, NotThisFormat, Unsupported
from blockwright.units import SECTOR, KiB, MiB, ceil_div

SPEC: Final = "VDI"
MAGIC: Final = 0xBEDA_107F
VERSION: Final = 0x0001_0001
TEXT: Final = b"<<< Oracle VM VirtualBox Disk Image >>>\n"
DYNAMIC, STATIC, UNDO, DIFFERENCING = 1, 2, 3, 4
HEADER_SIZE: Final = 400
"""What the field of that name says: the bytes behind it, up to the end of the geometry of version 1.1."""

FREE: Final = 0xFFFF_FFFF
ZERO: Final = 0xFFFF_FFFE
MAX_BLOCKS: Final = 1 << 24
"""Blocks of an image that is read: 16 TiB in blocks of 1 MiB, a map of 64 MiB."""
MIN_BLOCK: Final = 4 * KiB
MAX_BLOCK: Final = 256 * MiB
DEFAULT_BLOCK: Final = MiB


class Header(Record, size=512):
    """The header, version 1.1."""

    text: bytes = raw(0x00, 64)
    magic: int = u32(0x40, MAGIC)
    version: int = u32(0x44, VERSION)
    header_size: int = u32(0x48, HEADER_SIZE)
    kind: int = u32(0x4C, DYNAMIC)
    flags: int = u32(0x50)
    description: bytes = raw(0x54, 256)
    map_offset: int = u32(0x154)
    data_offset: int = u32(0x158)
    cylinders: int = u32(0x15C)
    heads: int = u32(0x160)
    sectors: int = u32(0x164)
    sector_size: int = u32(0x168, SECTOR)
    disk_size: int = u64(0x170)
    block_size: int = u32(0x178, DEFAULT_BLOCK)
    block_extra: int = u32(0x17C)
    blocks: int = u32(0x180)
    allocated: int = u32(0x184)
    uuid: bytes = raw(0x188, 16)
    snapshot_uuid: bytes = raw(0x198, 16)
    link_uuid: bytes = raw(0x1A8, 16)
    parent_uuid: bytes = raw(0x1B8, 16)


def parse_header(data: bytes, file_size: int) -> Header:
    """Return the header at the beginning of a file of ``file_size`` bytes, with every rule of it held.

    Raises NotThisFormat, Corrupt, Unsupported, LimitExceeded.
    """
    if len(data) < Header.SIZE or Header.parse(data).magic != MAGIC:
        raise NotThisFormat("vdi: expected the signature 0xbeda107f at byte 64, found none", spec=SPEC)
    header = Header.parse(data)
    if header.version != VERSION:
        raise Unsupported(f"vdi: expected version 1.1, found {header.version >> 16}.{header.version & 0xFFFF}")
    if header.kind in (UNDO, DIFFERENCING) or any(header.parent_uuid) or any(header.link_uuid):
        raise Unsupported(
            "vdi: a differencing image names its parent by a UUID that only VirtualBox's registry resolves: "
            "merge it there first"
        )
    if header.kind not in (DYNAMIC, STATIC):
        raise Unsupported(f"vdi: expected an image of the type 1 or 2, found {header.kind}")
    _check_geometry(header, file_size)
    return header


def _check_geometry(header: Header, file_size: int) -> None:
    block = header.block_size
    if header.sector_size != SECTOR:
        raise Unsupported(f"vdi: expected sectors of {SECTOR} bytes, found {header.sector_size}")
    if header.block_extra:
        raise Unsupported(f"vdi: expected blocks without extra data, found {header.block_extra} bytes of it")
    if block & (block - 1) or not MIN_BLOCK <= block <= MAX_BLOCK:
        raise Corrupt(
            f"vdi block size: expected a power of two from {MIN_BLOCK} to {MAX_BLOCK}, found {block}",
            offset=0x178,
            spec=SPEC,
        )
    if header.blocks > MAX_BLOCKS:
        raise LimitExceeded(f"vdi: expected at most {MAX_BLOCKS} blocks, found {header.blocks}", offset=0x180)
    if not header.disk_size or ceil_div(header.disk_size, block) > header.blocks:
        raise Corrupt(
            f"vdi disk size: expected 1 to {header.blocks * block} bytes as there are blocks, found "
            f"{header.disk_size}",
            offset=0x170,
            spec=SPEC,
        )
    if header.map_offset % SECTOR or header.map_offset < SECTOR:
        raise Corrupt(
            f"vdi map: expected to lie at a sector behind the header, found it at {header.map_offset}",
            offset=0x154,
            spec=SPEC,
        )
    end = header.map_offset + 4 * header.blocks
    if end > header.data_offset or header.data_offset % SECTOR or end > file_size:
        raise Corrupt(
            f"vdi map: expected to end by the data at {header.data_offset} and the file's end at {file_size}, found "
            f"it to end at {end}",
            offset=0x158,
            spec=SPEC,
        )


def entries(data: bytes) -> array[int]:
    """Return the map's entries, of the machine's own order, that ``data`` holds."""
    return unpack_words(data, "I", "little")


def entry_bytes(found: array[int]) -> bytes:
    """Return entries as they are stored."""
    return pack_words(found, "little")
