"""Hash trees of directories judged: their nodes, the order of hashes, and that each block hangs in them once.

Knows: bounds that nodes give to the blocks below them. Refuses to know: the entries' own rules.

Source: Linux 6.1, Documentation/filesystems/ext4/directory.rst ("Hash Tree Directories").
"""

from __future__ import annotations

from typing import Final, NamedTuple

from blockwright.fs.ext4.check.state import DirectoryState, State
from blockwright.fs.ext4.directory import index_checksum, stored_index_checksum
from blockwright.fs.ext4.dirhash import effective_version, hash_names
from blockwright.fs.ext4.layout import (
    DX_COUNT_LIMIT,
    DX_ENTRY,
    DX_ROOT_INFO_OFFSET,
    Incompat,
    InodeFlag,
    SuperFlag,
)
from blockwright.fs.ext4.lookup import fold

BLOCK_MASK: Final = 0x0FFFFFFF
"""Bits of an index entry that are a block; the others are kept for a use that never came."""
TEA: Final = 2
"""The last of the hash versions that are stored."""
_LAST: Final = 0xFFFFFFFE
_INCOMPATIBLE: Final = 0x1
_TAIL: Final = 8
_NODE_OFFSET: Final = 8


class _Child(NamedTuple):
    """A block below a node: the least and the greatest hash it may hold."""

    block: int
    low: int
    high: int


class IndexCheck:
    """Collects a directory's nodes and the range of hashes in each leaf, then walks the tree (``finish``)."""

    def __init__(self, state: State, directory: DirectoryState, seed: int | None) -> None:
        self.state = state
        self.inode = directory.inode
        self.seed = seed
        last = directory.runs[-1]
        self.blocks = last.logical + last.blocks
        self.block_size = state.volume.block_size
        self.nodes: dict[int, tuple[list[tuple[int, int]], int]] = {}
        self.leaves: dict[int, tuple[int, int, int]] = {}
        self.version = -1
        self.levels = 0
        self.broken = False

    def _report(self, rule: str, message: str, offset: int | None) -> None:
        self.state.report("index." + rule, f"directory {self.inode.number}: index: {message}", offset)

    def _limit(self, offset: int) -> int:
        tail = _TAIL if self.seed is not None else 0
        return (self.block_size - offset - tail) // DX_ENTRY.size

    def is_node(self, logical: int, block: bytes) -> bool:
        """Whether a block is a node of the tree, which looks like one unused entry over the whole block."""
        if logical == 0:
            return True
        whole = (self.block_size,) if self.block_size < 1 << 16 else (0, 0xFFFF)
        opens = block[:4] == b"\0\0\0\0" and block[6] == 0
        length = int.from_bytes(block[4:6], "little")
        limit = int.from_bytes(block[8:10], "little")
        return opens and length in whole and limit == self._limit(_NODE_OFFSET)

    def add_node(self, logical: int, block: bytes, position: int) -> None:
        """Take in a node: the root at block 0, an inner node elsewhere."""
        offset = _NODE_OFFSET
        if logical == 0:
            offset = self._root(block, position)
        if offset + DX_COUNT_LIMIT.size > len(block):
            self.broken = True
            return
        limit, count, _block = DX_COUNT_LIMIT.unpack_from(block, offset)
        expected = self._limit(offset)
        if limit != expected:
            self._report("limit", f"expected room for {expected} entries, found {limit}", position + offset)
        if count > expected or not count:
            self._report("count", f"expected 1 to {expected} entries, found {count}", position + offset + 2)
            self.broken = True
            count = min(count, expected)
        if self.seed is not None:
            wanted = index_checksum(block, self.seed, offset)
            if wanted is None or wanted != stored_index_checksum(block, offset):
                self._report("checksum", f"expected {wanted}, found another", position)
        entries = [DX_ENTRY.unpack_from(block, offset + DX_ENTRY.size * index) for index in range(count)]
        self.nodes[logical] = (entries, position + offset)

    def _root(self, block: bytes, position: int) -> int:
        at = DX_ROOT_INFO_OFFSET
        reserved = int.from_bytes(block[at : at + 4], "little")
        version, length, levels, flags = block[at + 4 : at + 8]
        deepest = 3 if self.state.incompat(Incompat.large_dir) else 2
        position += at
        if reserved or length < 8:
            self._report("root", f"expected 0 and 8 bytes or more, found {reserved} and {length}", position)
        if version > TEA:
            self._report("hash", f"expected a hash version up to {TEA}, found {version}", position + 4)
        if levels >= deepest:
            self._report("depth", f"expected fewer than {deepest} levels, found {levels}", position + 6)
        if flags & _INCOMPATIBLE:
            self._report("flags", f"expected none that are not known, found {flags:#x}", position + 7)
        self.levels = levels
        if version <= TEA:
            unsigned = bool(self.state.volume.superblock.s_flags & SuperFlag.unsigned_hash)
            self.version = effective_version(version, unsigned=unsigned)
        return at + length

    def add_leaf(self, logical: int, names: list[bytes], position: int) -> None:
        """Take in a leaf with the names in use."""
        low, high = 0xFFFFFFFF, 0
        if names and self.version >= 0:
            if self.inode.flags & InodeFlag.casefold:
                names = [(fold(name) or "").encode() or name for name in names]
            hashes = hash_names(names, self.version, self.state.volume.superblock.s_hash_seed)[0]
            low, high = min(hashes), max(hashes)
        self.leaves[logical] = (low, high, position)

    # -- the tree --------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Walk the tree from the root: each block once, at its depth, with its hashes within its bounds."""
        if self.broken or 0 not in self.nodes:
            return
        referred = {0}
        level = [_Child(0, 0, _LAST)]
        for depth in range(self.levels + 1):
            below: list[_Child] = []
            for node in level:
                below += self._below(node, referred, depth)
            level = below
        for leaf in level:
            self._leaf(leaf)
        for block in sorted(self.nodes.keys() | self.leaves.keys()):
            if block not in referred:
                self._report("reference", f"expected block {block} in the tree, found it is not", None)

    def _below(self, node: _Child, referred: set[int], depth: int) -> list[_Child]:
        found = self.nodes.get(node.block)
        if found is None:
            self._report("depth", f"expected block {node.block} to be a node at level {depth}, found a leaf", None)
            return []
        entries, position = found
        children: list[_Child] = []
        previous = 0
        for index, (hashed, block) in enumerate(entries):
            at, block = position + DX_ENTRY.size * index, block & BLOCK_MASK  # noqa: PLW2901 - the bits that count
            low = 0 if index == 0 else hashed & ~1
            if block >= self.blocks:
                self._report("block", f"expected a block below {self.blocks}, found {block}", at + 4)
                continue
            if low < previous:
                self._report("order", f"expected a hash of {previous:#x} or more, found {low:#x}", at)
            previous = low
            if block in referred:
                self._report("reference", f"expected block {block} once, found it again", at + 4)
                continue
            referred.add(block)
            high = entries[index + 1][0] & ~1 if index + 1 < len(entries) else node.high
            children.append(_Child(block, node.low if index == 0 else low, high))
        return children

    def _leaf(self, leaf: _Child) -> None:
        found = self.leaves.get(leaf.block)
        if found is None:
            self._report("depth", f"expected block {leaf.block} to be a leaf, found a node", None)
            return
        low, high, position = found
        if low < leaf.low:
            self._report("range", f"expected hashes from {leaf.low:#x} on, found {low:#x}", position)
        if high > leaf.high:
            self._report("range", f"expected hashes up to {leaf.high:#x}, found {high:#x}", position)
