"""Hash trees of directories changed in place: a name put where its hash says, leaves and nodes split.

Knows: root, nodes and their limits, and how a leaf is divided by hash. Refuses to know: where blocks come from.

Source: Linux 6.1, Documentation/filesystems/ext4/directory.rst ("Hash Tree Directories"), checksums.rst.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from blockwright.errors import NoSpace
from blockwright.fs.ext4.directory import index_checksum, index_offset
from blockwright.fs.ext4.dirhash import effective_version, hash_names
from blockwright.fs.ext4.edit.entries import BlockFormat, Record
from blockwright.fs.ext4.layout import (
    DIR_ENTRY,
    DX_COUNT_LIMIT,
    DX_ENTRY,
    DX_ROOT_INFO,
    DX_ROOT_INFO_OFFSET,
    DX_TAIL,
    HashVersion,
)
from blockwright.fs.ext4.volume import Volume

_ROOT: Final = 32
_NODE: Final = 8
_LOGICAL: Final = 0x0FFFFFFF


class Blocks(Protocol):
    """A directory's blocks by their number within it."""

    number: int
    seed: int

    def read(self, logical: int) -> bytes:
        """Return a block, verified."""

    def modify(self, logical: int) -> bytearray:
        """Return a block to be changed in place."""

    def append(self) -> tuple[int, bytearray]:
        """Make the directory a block longer; return its number and its zeros."""

    def forget(self, logical: int) -> None:
        """Know nothing of where a block has room, since it is laid out anew."""

    def insert(self, logical: int, record: Record) -> bool:
        """Put a record into a block, and say whether there was room."""

    def records(self, logical: int) -> list[Record]:
        """Return the entries of a block that are in use."""


class _Node:
    """A node of the tree: (hash, block) pairs; the first pair's hash stands in the node above."""

    __slots__ = ("limit", "logical", "offset", "pairs")

    def __init__(self, logical: int, offset: int, limit: int, pairs: list[tuple[int, int]]) -> None:
        self.logical = logical
        self.offset = offset
        self.limit = limit
        self.pairs = pairs


class HashTree:
    """The hash tree of one directory."""

    def __init__(
        self, volume: Volume, fmt: BlockFormat, blocks: Blocks, *, max_levels: int, fold: Callable[[bytes], bytes]
    ) -> None:
        self._volume = volume
        self._format = fmt
        self._blocks = blocks
        self._max_levels = max_levels
        self._fold = fold
        root = blocks.read(0)
        if index_offset(root, fmt.size) != _ROOT:
            raise self._corrupt("expected a root in its first block, found none")
        self.version, self.levels = root[DX_ROOT_INFO_OFFSET + 4], root[DX_ROOT_INFO_OFFSET + 6]
        if self.version > HashVersion.tea:
            raise volume.unsupported(f"directory {blocks.number}: index: unknown hash version {self.version}")
        if self.levels >= max_levels:
            raise self._corrupt(f"expected fewer than {max_levels} levels of nodes, found {self.levels}")

    def _corrupt(self, message: str) -> Exception:
        return self._volume.corrupt(f"directory {self._blocks.number}: index: {message}", None, "ext4 directory")

    def _hashes(self, names: list[bytes]) -> list[int]:
        superblock = self._volume.superblock
        unsigned = bool(superblock.s_flags & 0x2)
        version = effective_version(self.version, unsigned=unsigned)
        return list(hash_names([self._fold(name) for name in names], version, superblock.s_hash_seed)[0])

    # -- nodes -----------------------------------------------------------------------------------------------

    def _limit(self, offset: int) -> int:
        return (self._format.size - offset) // DX_ENTRY.size - (1 if self._format.summed else 0)

    def _load(self, logical: int, offset: int) -> _Node:
        data = self._blocks.read(logical)
        if index_offset(data, self._format.size) != offset:
            raise self._corrupt(f"expected block {logical} to be a node, found something else")
        limit, count, first = DX_COUNT_LIMIT.unpack_from(data, offset)
        if limit != self._limit(offset) or not 1 <= count <= limit:
            raise self._corrupt(
                f"block {logical}: expected 1 to {self._limit(offset)} entries, found {count} of {limit}"
            )
        pairs = [(0, first & _LOGICAL)]
        for index in range(1, count):
            hashed, child = DX_ENTRY.unpack_from(data, offset + DX_ENTRY.size * index)
            pairs.append((hashed, child & _LOGICAL))
        return _Node(logical, offset, limit, pairs)

    def _store(self, node: _Node) -> None:
        block = self._blocks.modify(node.logical)
        if node.offset == _NODE:
            DIR_ENTRY.pack_into(block, 0, 0, self._format.field(self._format.size), 0, 0)
        else:
            block[DX_ROOT_INFO_OFFSET + 6] = self.levels
        start = node.offset
        DX_COUNT_LIMIT.pack_into(block, start, node.limit, len(node.pairs), node.pairs[0][1])
        packed = b"".join(DX_ENTRY.pack(*pair) for pair in node.pairs[1:])
        block[start + 8 : start + 8 + len(packed)] = packed
        block[start + 8 + len(packed) :] = bytes(len(block) - start - 8 - len(packed))
        if self._format.summed:
            checksum = index_checksum(bytes(block), self._blocks.seed, start)
            assert checksum is not None, "index: a node has room for its checksum"
            DX_TAIL.pack_into(block, start + DX_ENTRY.size * node.limit, 0, checksum)

    def _descend(self, hashed: int) -> tuple[list[tuple[_Node, int]], int]:
        """Return the nodes from the root down, each with the pair that was taken, and the leaf."""
        path: list[tuple[_Node, int]] = []
        logical, offset = 0, _ROOT
        seen = {0}
        for _ in range(self.levels + 1):
            node = self._load(logical, offset)
            index = bisect_right(node.pairs, (hashed, 1 << 32), 1) - 1
            path.append((node, index))
            logical, offset = node.pairs[index][1], _NODE
            if logical in seen:
                raise self._corrupt(f"expected each block once, found {logical} again")
            seen.add(logical)
        return path, logical

    def store_root(self) -> None:
        """Write the root again, with its checksum."""
        self._store(self._load(0, _ROOT))

    # -- insertion -------------------------------------------------------------------------------------------

    def add_many(self, records: Sequence[Record]) -> None:
        """Put records where their hashes say. Raises NoSpace where the tree cannot grow any more."""
        hashes = self._hashes([record.name for record in records])
        for hashed, record in sorted(zip(hashes, records, strict=True), key=lambda item: item[0]):
            self._add(record, hashed)

    def _add(self, record: Record, hashed: int) -> None:
        path, leaf = self._descend(hashed)
        if index_offset(self._blocks.read(leaf), self._format.size) is not None:
            raise self._corrupt(f"expected block {leaf} to hold names, found a node")
        if not self._blocks.insert(leaf, record):
            self._split_leaf(path, leaf, record, hashed)

    def _split_leaf(self, path: list[tuple[_Node, int]], leaf: int, record: Record, hashed: int) -> None:
        """Divide a full leaf and the record between it and a new one, by hash, in halves of about equal size."""
        before = self._blocks.records(leaf)
        hashes = self._hashes([each.name for each in before])
        items = sorted(
            [*zip(hashes, before, strict=True), (hashed, record)],
            key=lambda item: item[0],
        )
        half, total, cut = sum(each.size for _, each in items) // 2, 0, 0
        while cut < len(items) - 1 and (not cut or total + items[cut][1].size // 2 <= half):
            total += items[cut][1].size
            cut += 1
        logical, new = self._blocks.append()
        old = self._blocks.modify(leaf)
        self._blocks.forget(leaf)
        for block, part in ((old, items[:cut]), (new, items[cut:])):
            self._format.lay_out(block, (each for _, each in part))
            self._format.close(block, self._blocks.seed)
        boundary = items[cut][0] | (items[cut][0] == items[cut - 1][0])
        self._add_pair(path, (boundary, logical))

    def _add_pair(self, path: list[tuple[_Node, int]], pair: tuple[int, int]) -> None:
        """Put a pair behind the one that each node of the path was left by, and split what overflows."""
        while path:
            node, index = path.pop()
            node.pairs.insert(index + 1, pair)
            if len(node.pairs) <= node.limit:
                self._store(node)
                return
            if node.offset == _ROOT:
                self._push_down(node)
                return
            cut = len(node.pairs) // 2
            upper, node.pairs = node.pairs[cut:], node.pairs[:cut]
            logical, _ = self._blocks.append()
            self._store(node)
            self._store(_Node(logical, _NODE, self._limit(_NODE), upper))
            pair = (upper[0][0], logical)

    def _push_down(self, root: _Node) -> None:
        """Put a node between a full root and what is below it; a node holds a few pairs more than a root."""
        if self.levels + 1 >= self._max_levels:
            raise NoSpace(f"directory {self._blocks.number}: its index is full and cannot get another level")
        logical, _ = self._blocks.append()
        self._store(_Node(logical, _NODE, self._limit(_NODE), root.pairs))
        self.levels += 1
        root.pairs = [(0, logical)]
        self._store(root)


def make_root(block: bytearray, fmt: BlockFormat, version: int, parent: Record, seed: int) -> None:
    """Turn a directory's first block into the root of a tree whose only leaf is block 1. ``.`` stays where it is."""
    limit = (fmt.size - _ROOT) // DX_ENTRY.size - (1 if fmt.summed else 0)
    DIR_ENTRY.pack_into(block, 12, parent.inode, fmt.field(fmt.size - 12), 2, parent.file_type)
    block[20:24] = b"..\0\0"
    DX_ROOT_INFO.pack_into(block, DX_ROOT_INFO_OFFSET, 0, version, DX_ROOT_INFO.size, 0, 0)
    block[_ROOT:] = bytes(len(block) - _ROOT)
    DX_COUNT_LIMIT.pack_into(block, _ROOT, limit, 1, 1)
    if fmt.summed:
        checksum = index_checksum(bytes(block), seed, _ROOT)
        assert checksum is not None, "index: a root has room for its checksum"
        DX_TAIL.pack_into(block, _ROOT + DX_ENTRY.size * limit, 0, checksum)
