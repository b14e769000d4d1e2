"""The bytes of a thin pool's space maps: bitmaps, of two bits a block, and the index that says where they lie.

Two bits are how often a block is used, up to twice; three stand for "more often", which a tree of counts has. The
metadata's own map has its index in one block, the data's is a tree of the same entries.

Knows: bytes and checksums. Refuses to know: where they come from, and what uses a block. Source: Linux 6.1,
drivers/md/persistent-data's on-disk structures, as thin_check reads them.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from blockwright.codec.record import Buffer
from blockwright.errors import Corrupt
from blockwright.system.linux.thin.layout import BLOCK, checksum

INDEX_SALT: Final = 160478
BITMAP_SALT: Final = 240779
_HEADER: Final = struct.Struct("<IIQ")
INDEX_ENTRY: Final = struct.Struct("<QII")
PER_BITMAP: Final = 4 * (BLOCK - _HEADER.size)
"""Blocks that one bitmap tells of."""
PER_INDEX: Final = (BLOCK - _HEADER.size) // INDEX_ENTRY.size
"""Bitmaps that the metadata's index has."""
MANY: Final = 3
"""What stands for a count that is in the tree."""

_COUNTS: Final = tuple(
    bytes(((byte >> 2 * at) & 1) << 1 | (byte >> 2 * at + 1) & 1 for at in range(4)) for byte in range(256)
)
"""The counts that the bits of a byte are: of each two, the lower bit is the higher one of the count."""


class IndexEntry(NamedTuple):
    """Where a bitmap lies, how many blocks it says are free, and below which of them none is."""

    block: int
    free: int
    first_free: int


def parse_index(data: Buffer, block: int) -> list[IndexEntry]:
    """Return all the entries of the metadata's index, used or not. Raises Corrupt."""
    _check(data, block, INDEX_SALT, "index of bitmaps")
    entries = INDEX_ENTRY.iter_unpack(bytes(data[_HEADER.size : BLOCK]))
    return [IndexEntry(*each) for each in entries]


def parse_bitmap(data: Buffer, block: int) -> bytes:
    """Return how often each of ``PER_BITMAP`` blocks is used, a byte each; ``MANY`` is more often. Raises Corrupt."""
    _check(data, block, BITMAP_SALT, "bitmap")
    return b"".join(map(_COUNTS.__getitem__, bytes(data[_HEADER.size : BLOCK])))


def _check(data: Buffer, block: int, salt: int, what: str) -> None:
    told, _, number = _HEADER.unpack_from(data)
    found = checksum(data[:BLOCK], salt)
    if found != told:
        raise Corrupt(f"thin pool: {what}: expected checksum {told:#010x}, found {found:#010x}", offset=block * BLOCK)
    if number != block:
        raise Corrupt(f"thin pool: {what}: expected that of block {block}, found {number}", offset=block * BLOCK + 8)
