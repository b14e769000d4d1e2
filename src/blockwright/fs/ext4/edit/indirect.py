"""Block maps of ext2 and ext3 changed in place: twelve pointers, and three trees of indirect blocks.

Knows: pointers. Refuses to know: whose blocks they are, before and after.

Source: Linux 6.1, Documentation/filesystems/ext4/ifork.rst ("Direct/Indirect Block Addressing").
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from blockwright.errors import UsageError
from blockwright.fs.ext4.edit.inodes import Draft, InodeTable
from blockwright.fs.ext4.edit.space import Space
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.mapping import Run

DIRECT: Final = 12
LEVELS: Final = 3
_ROOT: Final = Struct("<15I")


class IndirectMap:
    """The block maps of a file system's inodes."""

    def __init__(self, transaction: Transaction, space: Space, inodes: InodeTable) -> None:
        self._transaction = transaction
        self._volume = transaction.volume
        self._space = space
        self._inodes = inodes
        self._fan_out = self._volume.block_size // 4
        self._node = Struct(f"<{self._fan_out}I")

    @property
    def most_blocks(self) -> int:
        """Blocks that a file can have."""
        fan_out = self._fan_out
        return DIRECT + fan_out + fan_out * fan_out + fan_out * fan_out * fan_out

    def clear(self, draft: Draft) -> None:
        """Make the map empty without a look at it."""
        draft.fields.i_block = bytes(60)

    def splice(self, draft: Draft, low: int, high: int, runs: Sequence[Run]) -> None:
        """Have [low, high) of a file's blocks mapped by ``runs`` and nothing else. The caller saves the draft.

        Indirect blocks are allocated and freed; those that were mapped in the range are the caller's.
        """
        high = min(high, self.most_blocks)
        if runs and runs[-1].logical + runs[-1].blocks > self.most_blocks:
            raise UsageError(f"file: expected at most {self.most_blocks} blocks without extents, found more")
        if any(run.physical + run.blocks > 1 << 32 for run in runs):
            raise UsageError("file: expected blocks below 2**32 without extents")
        pointers = list(_ROOT.unpack(draft.fields.i_block))
        table = _Pointers(runs)
        for logical in range(low, min(high, DIRECT)):
            pointers[logical] = table.at(logical)
        base, span = DIRECT, self._fan_out
        for level in range(1, LEVELS + 1):
            if low < base + span and high > base:
                place = DIRECT - 1 + level
                pointers[place] = self._change(draft, pointers[place], level, base, (low, high), table)
            base += span
            span *= self._fan_out
        draft.fields.i_block = _ROOT.pack(*pointers)

    def _change(
        self, draft: Draft, block: int, level: int, base: int, bounds: tuple[int, int], table: _Pointers
    ) -> int:
        """Change what lies below an indirect block; return the block, 0 where nothing is left below it."""
        low, high = bounds
        step = int(self._fan_out ** (level - 1))
        first, last = max(0, (low - base) // step), min(self._fan_out, -(-(high - base) // step))
        if not block and not table.any(max(low, base), min(high, base + step * self._fan_out)):
            return 0
        what = f"inode {draft.number}: indirect block"
        before = list(self._node.unpack(self._volume.block(block, what))) if block else [0] * self._fan_out
        after = list(before)
        for index in range(first, last):
            start = base + index * step
            if level == 1:
                after[index] = table.at(start)
            elif before[index] or table.any(max(low, start), min(high, start + step)):
                after[index] = self._change(draft, before[index], level - 1, start, bounds, table)
        if not any(after):
            if block:
                self._space.free(block, 1)
                self._inodes.add_blocks(draft, -1)
            return 0
        if not block:
            block, _ = self._space.allocate(self._space.goal_of(self._inodes.group_of(draft.number)), 1)
            self._transaction.create(block)
            self._inodes.add_blocks(draft, 1)
        if after != before:
            self._transaction.modify(block, what)[:] = self._node.pack(*after)
        return block


class _Pointers:
    """Runs as pointers by logical block; asked in any order."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs

    def at(self, logical: int) -> int:
        """Return the block that holds ``logical``, or 0."""
        index = self._index(logical)
        if index < 0:
            return 0
        start, count, physical, _written = self._runs[index]
        return physical + logical - start if logical < start + count else 0

    def any(self, low: int, high: int) -> bool:
        """Whether any block of [low, high) is mapped."""
        index = self._index(high - 1)
        return index >= 0 and self._runs[index].logical + self._runs[index].blocks > low

    def _index(self, logical: int) -> int:
        low, high = 0, len(self._runs)
        while low < high:
            middle = (low + high) // 2
            if self._runs[middle].logical <= logical:
                low = middle + 1
            else:
                high = middle
        return low - 1
