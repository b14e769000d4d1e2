"""A file's blocks, whichever kind of map it has: what is mapped, and a range that gets other blocks.

Knows: which map an inode has, and who owns what it maps. Refuses to know: how either is stored.
"""

from __future__ import annotations

from collections.abc import Sequence

from blockwright.fs.ext4.edit.extents import ExtentMap
from blockwright.fs.ext4.edit.indirect import IndirectMap
from blockwright.fs.ext4.edit.inodes import Draft, InodeTable
from blockwright.fs.ext4.edit.space import Space
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.layout import Incompat, InodeFlag
from blockwright.fs.ext4.mapping import MAX_LOGICAL, Run, block_runs


class BlockMap:
    """The maps of a file system's inodes. The caller saves the drafts. Positions and counts are in blocks."""

    def __init__(self, transaction: Transaction, space: Space, inodes: InodeTable) -> None:
        self._volume = transaction.volume
        self._space = space
        self._inodes = inodes
        self._extents = ExtentMap(transaction, space, inodes)
        self._indirect = IndirectMap(transaction, space, inodes)
        self._new_extents = bool(self._volume.superblock.s_feature_incompat & Incompat.extent)

    def start(self, draft: Draft) -> None:
        """Give a draft without blocks the map that new inodes get."""
        if self._new_extents:
            draft.fields.i_flags |= InodeFlag.extents.real
        self._kind(draft).clear(draft)

    def most_blocks(self, draft: Draft) -> int:
        """Return the blocks that a file can have."""
        return MAX_LOGICAL - 1 if draft.has(InodeFlag.extents) else self._indirect.most_blocks

    def runs(self, draft: Draft) -> list[Run]:
        """Return what is mapped, also behind the body's end, where a cut was not finished. Raises Corrupt."""
        inode = draft.inode()
        if not draft.has(InodeFlag.extents):
            inode.size = self._indirect.most_blocks * self._volume.block_size
        return block_runs(self._volume, inode)

    def replace(
        self, draft: Draft, low: int, high: int, runs: Sequence[Run], *, before: Sequence[Run] | None = None
    ) -> None:
        """Have [low, high) mapped by ``runs``, which are allocated, and free what was mapped there.

        ``before`` is what ``runs`` of the draft answers, where the caller has it.
        """
        old = _within(self.runs(draft) if before is None else before, low, high)
        if not old and not runs:
            return
        self._kind(draft).splice(draft, low, high, runs)
        for run in old:
            self._space.free(run.physical, run.blocks)
        self._inodes.add_blocks(draft, sum(run.blocks for run in runs) - sum(run.blocks for run in old))

    def rebuild(self, draft: Draft, runs: Sequence[Run]) -> None:
        """Have everything mapped by ``runs`` in a map of new blocks; what was mapped before is the caller's.

        There must be as many blocks as before.
        """
        kind, most = self._kind(draft), self.most_blocks(draft) + 1
        kind.splice(draft, 0, most, [])
        kind.splice(draft, 0, most, runs)

    def _kind(self, draft: Draft) -> ExtentMap | IndirectMap:
        return self._extents if draft.has(InodeFlag.extents) else self._indirect


def _within(runs: Sequence[Run], low: int, high: int) -> list[Run]:
    """Return the parts of runs that lie in [low, high)."""
    found = []
    for logical, count, physical, written in runs:
        start, end = max(low, logical), min(high, logical + count)
        if start < end:
            found.append(Run(start, end - start, physical + start - logical, written))
    return found
