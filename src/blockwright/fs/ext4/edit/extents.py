"""Extent trees changed in place: a range of a file gets other runs, and the tree around it is mended.

All nodes that a range touches on a level are taken as one list of entries, changed, and dealt out to blocks again;
the level above gets the new list of its children. So growing, splitting, joining and shrinking are one path.

Knows: nodes, their order and capacity. Refuses to know: whose blocks the runs are, before and after.

Source: Linux 6.1, Documentation/filesystems/ext4 (ifork "Extent Tree", checksums).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc32c_raw
from blockwright.fs.ext4.edit.inodes import Draft, InodeTable
from blockwright.fs.ext4.edit.space import Space
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.layout import (
    EXTENT_HEADER,
    EXTENT_INDEX,
    EXTENT_LEAF,
    EXTENT_MAGIC,
    MAX_EXTENT_BLOCKS,
    MAX_EXTENT_DEPTH,
)
from blockwright.fs.ext4.mapping import Run
from blockwright.fs.ext4.plan_extents import EMPTY_TREE, ROOT_ENTRIES, entries_per_block

_HEADER: Final = EXTENT_HEADER.size
_ENTRY: Final = EXTENT_LEAF.size
_END: Final = 1 << 32


class Child(NamedTuple):
    """An entry of an index node: the first logical block below it, and the block of the node there."""

    logical: int
    block: int


Entries = list[Run] | list[Child]
Change = Callable[[list[Run]], list[Run]]


class ExtentMap:
    """The extent trees of a file system's inodes."""

    def __init__(self, transaction: Transaction, space: Space, inodes: InodeTable) -> None:
        self.transaction = transaction
        self.volume = transaction.volume
        self.space = space
        self.inodes = inodes
        self.capacity = entries_per_block(self.volume.block_size)

    def splice(self, draft: Draft, low: int, high: int, runs: Sequence[Run]) -> None:
        """Have [low, high) of a file's blocks mapped by ``runs`` and nothing else. The caller saves the draft.

        Blocks of the tree are allocated and freed; those that were mapped in the range are the caller's.
        """
        _Splice(self, draft, low, high, runs).run()

    def clear(self, draft: Draft) -> None:
        """Make the tree empty without a look at it."""
        draft.fields.i_block = EMPTY_TREE


class _Splice:
    """One change of one tree."""

    def __init__(self, owner: ExtentMap, draft: Draft, low: int, high: int, runs: Sequence[Run]) -> None:
        self._transaction = owner.transaction
        self._volume = owner.volume
        self._space = owner.space
        self._inodes = owner.inodes
        self._capacity = owner.capacity
        self._draft = draft
        self._low = low
        self._high = high
        self._runs = runs
        self._seed = self._inodes.seed(draft)
        self._seen: set[int] = set()

    def run(self) -> None:
        depth, entries = self._parse(self._draft.fields.i_block, None)
        entries = self._edit(entries, depth)
        while len(entries) > ROOT_ENTRIES:
            if depth >= MAX_EXTENT_DEPTH:
                raise self._volume.corrupt(f"inode {self._draft.number}: extent tree: is too deep to grow")
            entries = list(self._deal(entries, [], depth))
            depth += 1
        while depth and len(entries) == 1:
            (child,) = entries
            below, inner = self._load(child)
            if len(inner) > ROOT_ENTRIES:
                break
            assert isinstance(child, Child), "extent tree: a root of some depth has children"
            self._drop(child.block)
            depth, entries = below, inner
        if not entries:
            depth = 0
        self._draft.fields.i_block = self._pack(entries, depth, ROOT_ENTRIES).ljust(60, b"\0")

    # -- levels ----------------------------------------------------------------------------------------------

    def _edit(self, entries: Entries, depth: int) -> Entries:
        """Return the entries of one level after the change; nodes below it are written."""
        if depth == 0:
            return _replace(entries, self._low, self._high, self._runs)  # type: ignore[arg-type]  # depth says so
        children: list[Child] = entries  # type: ignore[assignment]  # as above
        if not children:
            return list(self._deal(self._edit([], depth - 1), [], depth - 1))
        starts = [child.logical for child in children]
        first = max(0, bisect_right(starts, self._low) - 1)
        last = max(first + 1, bisect_left(starts, self._high))
        inner = self._gather(children[first:last], depth - 1)
        result = self._edit(inner, depth - 1)
        if first and len(result) <= self._capacity // 2:
            result = [*self._gather(children[first - 1 : first], depth - 1), *result]
            first -= 1
        if last < len(children) and len(result) <= self._capacity // 2:
            result = [*result, *self._gather(children[last : last + 1], depth - 1)]
            last += 1
        blocks = [child.block for child in children[first:last]]
        return [*children[:first], *self._deal(result, blocks, depth - 1), *children[last:]]

    def _gather(self, children: Sequence[Child], depth: int) -> Entries:
        found: list[Run | Child] = []
        for child in children:
            below, entries = self._load(child)
            if below != depth:
                raise self._corrupt(f"depth: expected {depth}, found {below}")
            found.extend(entries)
        return found  # type: ignore[return-value]  # one depth has one kind of entry

    def _deal(self, entries: Entries, blocks: list[int], depth: int) -> list[Child]:
        """Write entries of ``depth`` to blocks, those given first; free what is left over. Return the level above.

        What was appended to leaves the nodes before it full; what was put between leaves room in each.
        """
        count = -(-len(entries) // self._capacity)
        appended = bool(entries) and entries[-1].logical < self._high
        size = self._capacity if appended else -(-len(entries) // count) if count else 0
        above: list[Child] = []
        spare = blocks[::-1]
        for at in range(0, len(entries), size or 1):
            part = entries[at : at + size]
            block = spare.pop() if spare else self._new_block()
            data = self._transaction.modify(block, f"inode {self._draft.number}: extent block")
            packed = self._pack(part, depth, self._capacity).ljust(_HEADER + self._capacity * _ENTRY, b"\0")
            if self._volume.has_checksums:
                packed = self._summed(packed)
            if data[: len(packed)] != packed:
                data[:] = packed.ljust(len(data), b"\0")
            above.append(Child(part[0].logical, block))
        for block in spare:
            self._drop(block)
        return above

    def _summed(self, packed: bytes) -> bytes:
        return packed + crc32c_raw(self._seed, packed).to_bytes(4, "little")

    def _new_block(self) -> int:
        group = self._inodes.group_of(self._draft.number)
        block, _ = self._space.allocate(self._space.goal_of(group), 1)
        self._transaction.create(block)
        self._inodes.add_blocks(self._draft, 1)
        return block

    def _drop(self, block: int) -> None:
        self._space.free(block, 1)
        self._inodes.add_blocks(self._draft, -1)

    # -- nodes -----------------------------------------------------------------------------------------------

    def _corrupt(self, message: str) -> Exception:
        return self._volume.corrupt(f"inode {self._draft.number}: extent tree: {message}", None, "ext4 ifork")

    def _load(self, child: Run | Child) -> tuple[int, Entries]:
        assert isinstance(child, Child), "extent tree: only index nodes have something below them"
        data = self._volume.block(child.block, f"inode {self._draft.number}: extent block")
        return self._parse(data, child.block)

    def _parse(self, data: bytes, block: int | None) -> tuple[int, Entries]:
        """Return the depth and the entries of a node; ``block_runs`` has judged the tree's order before."""
        magic, count, most, depth, _generation = EXTENT_HEADER.unpack_from(data)
        room = ROOT_ENTRIES if block is None else self._capacity
        if magic != EXTENT_MAGIC or not count <= most <= room or depth > MAX_EXTENT_DEPTH:
            raise self._corrupt(f"node: expected at most {room} entries, found {count} of {most} at depth {depth}")
        if block is not None and self._volume.has_checksums:
            size = _HEADER + most * _ENTRY
            stored = int.from_bytes(data[size : size + 4], "little")
            if crc32c_raw(self._seed, data[:size]) != stored:
                raise self._corrupt(f"block {block}: expected its checksum to hold, found another")
        ends = range(_HEADER, _HEADER + count * _ENTRY, _ENTRY)
        if depth:
            return depth, [_child(*EXTENT_INDEX.unpack_from(data, at)) for at in ends]
        return 0, [_leaf(*EXTENT_LEAF.unpack_from(data, at)) for at in ends]

    def _pack(self, entries: Entries, depth: int, most: int) -> bytes:
        parts = [EXTENT_HEADER.pack(EXTENT_MAGIC, len(entries), most, depth, 0)]
        for entry in entries:
            if isinstance(entry, Child):
                parts.append(EXTENT_INDEX.pack(entry.logical, entry.block & 0xFFFFFFFF, entry.block >> 32, 0))
            else:
                logical, count, physical, written = entry
                length = count if written else count + MAX_EXTENT_BLOCKS
                parts.append(EXTENT_LEAF.pack(logical, length, physical >> 32, physical & 0xFFFFFFFF))
        return b"".join(parts)


def _child(logical: int, low: int, high: int, _unused: int) -> Child:
    return Child(logical, high << 32 | low)


def _leaf(logical: int, length: int, high: int, low: int) -> Run:
    written = length <= MAX_EXTENT_BLOCKS
    return Run(logical, length if written else length - MAX_EXTENT_BLOCKS, high << 32 | low, written)


def _replace(entries: list[Run], low: int, high: int, runs: Sequence[Run]) -> list[Run]:
    """Return extents with [low, high) taken out and ``runs`` in its place, adjacent ones joined."""
    result: list[Run] = []
    behind: list[Run] = []
    for entry in entries:
        logical, count, physical, written = entry
        end = logical + count
        if logical < low:
            _append(result, entry if end <= low else Run(logical, low - logical, physical, written))
        if end > high:
            cut = max(0, high - logical)
            behind.append(entry if not cut else Run(high, end - high, physical + cut, written))
    for run in runs:
        most = MAX_EXTENT_BLOCKS if run.written else MAX_EXTENT_BLOCKS - 1
        for done in range(0, run.blocks, most):
            part = min(most, run.blocks - done)
            _append(result, Run(run.logical + done, part, run.physical + done, run.written))
    for entry in behind:
        _append(result, entry)
    return result


def _append(result: list[Run], run: Run) -> None:
    """Add an extent, joined with the last where one extent can hold both."""
    if result:
        logical, count, physical, written = result[-1]
        most = MAX_EXTENT_BLOCKS if written else MAX_EXTENT_BLOCKS - 1
        adjacent = logical + count == run.logical and physical + count == run.physical and written == run.written
        if adjacent and count + run.blocks <= most:
            result[-1] = Run(logical, count + run.blocks, physical, written)
            return
    result.append(run)
