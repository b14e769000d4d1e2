"""Extent trees: from runs of blocks to the 60 bytes in the inode and the blocks below them.

Knows: how many blocks a tree takes, and what is in each. Refuses to know: files, and who hands out the blocks.

Source: Linux 6.1, Documentation/filesystems/ext4/ifork.rst ("Extent Tree").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc32c_raw
from blockwright.fs.ext4.layout import (
    EXTENT_HEADER,
    EXTENT_INDEX,
    EXTENT_LEAF,
    EXTENT_MAGIC,
    MAX_EXTENT_BLOCKS,
    MAX_EXTENT_DEPTH,
)
from blockwright.units import ceil_div

ROOT_ENTRIES: Final = 4
"""Entries that the inode itself holds."""

EMPTY_TREE: Final = EXTENT_HEADER.pack(EXTENT_MAGIC, 0, ROOT_ENTRIES, 0, 0) + bytes(48)
"""i_block of a file without data."""


class ExtentRun(NamedTuple):
    """``blocks`` of a file, from ``logical`` on, that lie at ``physical``."""

    logical: int
    physical: int
    blocks: int


def entries_per_block(block_size: int) -> int:
    """Return how many entries a block of the tree holds beside its header and checksum."""
    return (block_size - EXTENT_HEADER.size) // EXTENT_LEAF.size


def tree_blocks(extents: int, block_size: int) -> int:
    """Return how many blocks the tree of that many extents takes beside the inode."""
    per_block, total = entries_per_block(block_size), 0
    while extents > ROOT_ENTRIES:
        extents = ceil_div(extents, per_block)
        total += extents
    return total


def count_extents(runs: Iterable[tuple[int, int]]) -> int:
    """Return how many extents (logical block, blocks) runs become when no zone cuts them."""
    return sum(-(-count // MAX_EXTENT_BLOCKS) for _, count in runs)


def single_extent(physical: int, count: int) -> bytes:
    """Return i_block of a file without holes that lies in one piece of 1 to 32768 blocks."""
    return _SINGLE_HEAD + EXTENT_LEAF.pack(0, count, physical >> 32, physical & 0xFFFFFFFF) + _SINGLE_TAIL


_SINGLE_HEAD: Final = EXTENT_HEADER.pack(EXTENT_MAGIC, 1, ROOT_ENTRIES, 0, 0)
_SINGLE_TAIL: Final = bytes(36)


def split(runs: Iterable[ExtentRun]) -> list[bytes]:
    """Return the leaf entries of ascending runs, each cut into extents of at most 32768 blocks."""
    entries = []
    for logical, physical, count in runs:
        for done in range(0, count, MAX_EXTENT_BLOCKS):
            part, at = min(MAX_EXTENT_BLOCKS, count - done), physical + done
            entries.append(EXTENT_LEAF.pack(logical + done, part, at >> 32, at & 0xFFFFFFFF))
    return entries


def build_tree(
    entries: list[bytes], places: Sequence[int], seed: int | None, block_size: int
) -> tuple[bytes, list[bytes]]:
    """Return i_block, and what is to be written to each of ``places``, which ``tree_blocks`` counts.

    ``entries`` are packed leaf entries; ``seed`` is the inode's checksum seed, None for no checksums.
    """
    per_block, depth = entries_per_block(block_size), 0
    contents: list[bytes] = []
    while len(entries) > ROOT_ENTRIES:
        above = []
        for first in range(0, len(entries), per_block):
            part = entries[first : first + per_block]
            body = EXTENT_HEADER.pack(EXTENT_MAGIC, len(part), per_block, depth, 0) + b"".join(part)
            body = body.ljust(EXTENT_HEADER.size + per_block * EXTENT_LEAF.size, b"\0")
            place = places[len(contents)]
            checksum = b"" if seed is None else crc32c_raw(seed, body).to_bytes(4, "little")
            contents.append((body + checksum).ljust(block_size, b"\0"))
            above.append(part[0][:4] + EXTENT_INDEX.pack(0, place & 0xFFFFFFFF, place >> 32, 0)[4:])
        entries = above
        depth += 1
    assert depth <= MAX_EXTENT_DEPTH, f"planner bug: extent tree of depth {depth}"
    assert len(contents) == len(places), f"planner bug: {len(places)} places for {len(contents)} extent blocks"
    root = EXTENT_HEADER.pack(EXTENT_MAGIC, len(entries), ROOT_ENTRIES, depth, 0) + b"".join(entries)
    return root.ljust(60, b"\0"), contents
