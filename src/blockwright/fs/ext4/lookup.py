"""Finding one name in a directory: through its hash tree where it has one, else by reading it.

Knows: how a hash tree is descended, and how names that differ in case only are one.
Refuses to know: what the inodes hold.

Source: Linux 6.1, Documentation/filesystems/ext4/directory.rst ("Hash Tree Directories"), and
Documentation/admin-guide/ext4.rst ("case-insensitive file name lookups").
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final

from blockwright.fs.ext4.directory import (
    directory_blocks,
    entries_in,
    index_offset,
    inline_entries,
    verify_block,
)
from blockwright.fs.ext4.dirhash import effective_version, hash_name
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.layout import DX_COUNT_LIMIT, DX_ENTRY, HashVersion, InodeFlag, SuperFlag
from blockwright.fs.ext4.mapping import Run, block_runs
from blockwright.fs.ext4.volume import Volume
from blockwright.fs.ext4.xattr_read import inline_tail

ENCODING_UTF8: Final = 1
"""s_encoding: the only one there is."""
MAX_INDEX_LEVELS: Final = 3
"""Levels of a hash tree with large_dir; two without."""
_LINEAR_BLOCKS: Final = 4
"""Directories up to this size are read through: the tree would save nothing."""
_LAST_UNICODE_IGNORABLE: Final = 0xE0FFF


def find_name(volume: Volume, directory: Inode, name: bytes) -> int | None:
    """Return the inode that ``name`` stands for in a directory, or None. Raises Corrupt.

    Where the directory is case-insensitive, names that are equal when folded are one name.
    """
    if directory.flags & InodeFlag.casefold.real:
        found = find_folded(volume, directory, name)
        return None if found is None else found[1]
    if directory.flags & InodeFlag.inline_data.real:
        for entry in inline_entries(volume, directory, inline_tail(volume, directory)):
            if entry.name == name:
                return entry.inode
        return None
    for position, block in blocks_for(volume, directory, name):
        if name in block:
            for entry in entries_in(volume, directory, block, position):
                if entry.name == name:
                    return entry.inode
    return None


def blocks_for(volume: Volume, directory: Inode, name: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (byte of the device, bytes) of the blocks of a directory that may hold ``name`` as it is spelled."""
    if directory.flags & InodeFlag.index.real and directory.size > _LINEAR_BLOCKS * volume.block_size:
        blocks = _hashed_blocks(volume, directory, name)
        if blocks is not None:
            return blocks
    return ((position, data) for _, position, data in directory_blocks(volume, directory))


# -- hash trees ------------------------------------------------------------------------------------------------


def _hashed_blocks(volume: Volume, directory: Inode, name: bytes) -> Iterator[tuple[int, bytes]] | None:
    """Return the leaf blocks that may hold ``name``, or None where the tree cannot be followed."""
    reader = _Blocks(volume, directory)
    root = reader.block(0)
    if root is None or index_offset(root[1], volume.block_size) != 32:
        return None
    version, levels = root[1][28], root[1][30]
    if version > HashVersion.tea or levels >= MAX_INDEX_LEVELS:
        return None
    unsigned = bool(volume.superblock.s_flags & SuperFlag.unsigned_hash)
    wanted = hash_name(name, effective_version(version, unsigned=unsigned), volume.superblock.s_hash_seed)[0]
    return _leaves(volume, reader, root[1], 32, levels, wanted)


def _leaves(
    volume: Volume, reader: _Blocks, node: bytes, offset: int, levels: int, wanted: int
) -> Iterator[tuple[int, bytes]]:
    """Yield the leaves below ``node`` that may hold the hash: the last that starts at or below it, and those whose
    lowest bit says that the hash runs on into them.
    """
    limit, count, first = DX_COUNT_LIMIT.unpack_from(node, offset)
    most = (len(node) - offset) // 8
    if not 1 <= count <= limit <= most:
        raise volume.corrupt(
            f"directory {reader.inode.number}: index: expected 1 to {most} entries, found {count} of {limit}"
        )
    pairs = [(0, first), *(DX_ENTRY.unpack_from(node, offset + 8 * index) for index in range(1, count))]
    low, high = 0, count - 1
    while low < high:
        middle = (low + high + 1) // 2
        if pairs[middle][0] <= wanted:
            low = middle
        else:
            high = middle - 1
    for index in range(low, count):
        hashed, logical = pairs[index]
        if index > low and hashed != wanted | 1:
            return
        child = reader.once(logical & 0x0FFFFFFF)
        if child is None:
            raise volume.corrupt(f"directory {reader.inode.number}: index: expected block {logical} to exist")
        if levels:
            if index_offset(child[1], volume.block_size) != 8:
                raise volume.corrupt(
                    f"directory {reader.inode.number}: index: expected block {logical} to be a node", child[0]
                )
            yield from _leaves(volume, reader, child[1], 8, levels - 1, wanted)
        else:
            yield child


class _Blocks:
    """A directory's blocks by their logical number, verified."""

    def __init__(self, volume: Volume, inode: Inode) -> None:
        self.volume = volume
        self.inode = inode
        self._runs: list[Run] = block_runs(volume, inode)
        self._seed = volume.inode_seed(inode)
        self._seen = {0}

    def once(self, logical: int) -> tuple[int, bytes] | None:
        """Return what ``block`` does for a block below the root, of which each has one place in the tree."""
        if logical in self._seen:
            raise self.volume.corrupt(
                f"directory {self.inode.number}: index: expected each block once, found {logical} again"
            )
        self._seen.add(logical)
        return self.block(logical)

    def block(self, logical: int) -> tuple[int, bytes] | None:
        """Return (byte of the device, bytes) of a block, or None for a hole."""
        volume = self.volume
        for run in self._runs:
            if run.logical <= logical < run.logical + run.blocks and run.written:
                number = run.physical + logical - run.logical
                data = volume.block(number, f"directory {self.inode.number}")
                position = number * volume.block_size
                if volume.has_checksums and volume.verify:
                    verify_block(volume, self.inode, data, position, self._seed)
                return position, data
        return None


# -- case folding ----------------------------------------------------------------------------------------------


def fold(name: bytes) -> str | None:
    """Return what names that differ in case only have in common, or None for what is no UTF-8.

    Canonical decomposition, full case folding, and code points that are ignorable by default left out, as the
    kernel does it for Unicode 12.1; here with the tables that Python has, so characters younger than 12.1 are
    folded too.
    """
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return None
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
    return "".join(character for character in text if not _ignorable(ord(character)))


def _ignorable(code: int) -> bool:
    """Whether Unicode's Default_Ignorable_Code_Point holds."""
    if code < 0xAD:
        return False
    if code in (0xAD, 0x34F, 0x61C, 0x3164, 0xFEFF, 0xFFA0):
        return True
    return any(low <= code <= high for low, high in _IGNORABLE_RANGES)


_IGNORABLE_RANGES: Final = (
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0xFE00, 0xFE0F),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, _LAST_UNICODE_IGNORABLE),
)


def find_folded(volume: Volume, directory: Inode, name: bytes) -> tuple[bytes, int] | None:
    """Return the name that is equal when folded, and its inode; names that are no UTF-8 are compared as bytes."""
    if volume.superblock.s_encoding != ENCODING_UTF8:
        raise volume.unsupported(f"directory {directory.number}: unknown encoding {volume.superblock.s_encoding}")
    wanted = fold(name)
    second: tuple[bytes, int] | None = None
    for entry in _all_entries(volume, directory):
        if entry[0] == name:
            return entry
        if second is None and wanted is not None and fold(entry[0]) == wanted:
            second = entry
    return second


def _all_entries(volume: Volume, directory: Inode) -> Iterator[tuple[bytes, int]]:
    if directory.flags & InodeFlag.inline_data.real:
        for entry in inline_entries(volume, directory, inline_tail(volume, directory)):
            yield entry.name, entry.inode
        return
    for _logical, position, block in directory_blocks(volume, directory):
        for entry in entries_in(volume, directory, block, position):
            yield entry.name, entry.inode
