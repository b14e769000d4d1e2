"""Blocks of files moved out of the end of a file system that is to become smaller. No inode gets another number.

Each inode's blocks are copied to free ones, and its map made anew, as one operation; operations are committed
together as far as they fit the journal. So a file system whose moving was interrupted is whole, and what is left is
moved by the next call. The journal itself moves last: it is logged in the old one, and its inode goes home behind
everything else.

Knows: what belongs to an inode, and where it may lie. Refuses to know: how maps, bitmaps and transactions are kept.

Source: Linux 6.1, Documentation/filesystems/ext4 (ifork, attributes, journal).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.device.copy_runs import runs_of
from blockwright.errors import NoSpace
from blockwright.fs.ext4.edit.blockmap import BlockMap
from blockwright.fs.ext4.edit.commit import Committer, JournaledCommitter, OrderedCommitter
from blockwright.fs.ext4.edit.groups import Group, Groups
from blockwright.fs.ext4.edit.inodes import Draft, InodeTable
from blockwright.fs.ext4.edit.log import LogWriter
from blockwright.fs.ext4.edit.space import Space
from blockwright.fs.ext4.edit.superblock import LiveSuperblock
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.inode import S_IFDIR, S_IFLNK, S_IFREG, Inode
from blockwright.fs.ext4.layout import Compat, InodeFlag, ReservedInode
from blockwright.fs.ext4.mapping import Run, map_blocks
from blockwright.fs.ext4.replay import open_journal
from blockwright.fs.ext4.resize.least import used_inodes
from blockwright.fs.ext4.resize.writer import whole
from blockwright.fs.ext4.volume import Volume, read_superblock
from blockwright.fs.ext4.xattr_read import attribute_block_checksum
from blockwright.units import MiB

_COPIED: Final = MiB
_STAYS: Final = frozenset({int(ReservedInode.bad_blocks), int(ReservedInode.resize), int(ReservedInode.journal)})
_REFERENCES: Final = 4
"""Byte of h_refcount in an attribute block; h_checksum is at 16."""


def move_below(device: BlockDevice, end: int, *, source: str | None) -> None:
    """Have nothing that belongs to an inode at block ``end`` or behind it, but for what cannot move.

    Raises NoSpace where there is too little room before it; what was moved until then stays moved.
    """
    mover = _Mover(device, end, source)
    mover.run()
    if mover.journaled:
        _JournalMover(device, end, source).run()


class _SpaceBelow(Space):
    """The free blocks before ``end``."""

    def __init__(self, transaction: Transaction, groups: Groups, superblock: LiveSuperblock, end: int) -> None:
        super().__init__(transaction, groups, superblock)
        self._end = end

    def _find(self, group: Group, near: int, count: int) -> tuple[int, int]:
        room = self._end - self._geometry.group_start(group.number)
        if room <= 0:
            return 0, 0
        held = group.held
        group.held |= self._all >> room << room
        try:
            return super()._find(group, near, count)
        finally:
            group.held = held


class _Mover:
    """Moves what belongs to files."""

    def __init__(self, device: BlockDevice, end: int, source: str | None) -> None:
        self._end = end
        self.transaction = Transaction(device, read_superblock(device, source=source), source=source)
        self.volume: Volume = self.transaction.volume
        self.superblock = LiveSuperblock(self.transaction)
        self._groups = Groups(self.transaction)
        self._space = _SpaceBelow(self.transaction, self._groups, self.superblock, end)
        self._inodes = InodeTable(self.transaction, self._groups, self.superblock)
        self._maps = BlockMap(self.transaction, self._space, self._inodes)
        self._committer = self._new_committer()
        self._shared: dict[int, int] = {}
        """Attribute blocks by the ones that they came from."""

    @property
    def journaled(self) -> bool:
        """Whether the file system has a journal of its own."""
        superblock = self.volume.superblock
        return bool(superblock.s_feature_compat & Compat.has_journal and superblock.s_journal_inum)

    def _new_committer(self) -> Committer:
        if self.journaled:
            log = LogWriter(self.transaction, open_journal(self.volume))
            return JournaledCommitter(self.transaction, self.superblock, log)
        return OrderedCommitter(self.transaction, self.superblock)

    def run(self) -> None:
        """Move everything."""
        for number in self._numbers():
            self._once(number)
        self._commit()

    def _numbers(self) -> Iterator[int]:
        orphans = self.volume.superblock.s_orphan_file_inum
        for number in used_inodes(self.volume):
            if number not in _STAYS and number != orphans:
                yield number

    # -- operations ------------------------------------------------------------------------------------------

    def _once(self, number: int) -> None:
        """Move what belongs to an inode, whole or not at all; what does not fit the transaction begins a new one."""
        began = self.transaction.dirty or bool(self._groups.pending_blocks)
        try:
            self._move(number)
            pending = len(self.transaction.blocks) + self._groups.pending_blocks + 1
            if pending > self._committer.most:
                raise NoSpace(f"resize: inode {number}: its new map does not fit the journal")
        except NoSpace:
            self._revert()
            if not began:
                raise
            self._commit()  # which makes room in the journal, and frees what maps took before
            self._once(number)
            return
        except BaseException:
            self._revert()
            raise
        self.transaction.keep()
        self._groups.keep()

    def _revert(self) -> None:
        self.transaction.revert()
        self._groups.keep()

    def _commit(self) -> None:
        if not self.transaction.dirty and not self._groups.pending_blocks:
            return
        self._committer.begin()
        self._groups.put()
        self.superblock.put()
        self.transaction.keep()
        self._groups.keep()
        self._committer.commit()
        self.transaction.clear()
        self._groups.committed()

    # -- one inode -------------------------------------------------------------------------------------------

    def _move(self, number: int) -> None:
        inode = self.volume.inode(number)
        draft: Draft | None = None
        if _has_map(inode):
            runs, tree = map_blocks(self.volume, inode)
            if any(run.physical + run.blocks > self._end for run in runs) or any(
                block >= self._end for block in tree
            ):
                draft = self._inodes.load_any(number)
                self._move_runs(draft, runs)
        if inode.file_acl >= self._end:
            draft = self._inodes.load_any(number) if draft is None else draft
            self._move_attributes(draft, inode.file_acl)
        if draft is not None:
            self._inodes.save(draft)

    def _move_runs(self, draft: Draft, runs: list[Run]) -> None:
        found: list[Run] = []
        freed: list[Run] = []
        goal = self._space.goal_of(self._inodes.group_of(draft.number))
        for run in runs:
            kept = max(0, min(run.blocks, self._end - run.physical))
            if kept:
                found.append(run._replace(blocks=kept))
            if kept == run.blocks:
                continue
            rest = Run(run.logical + kept, run.blocks - kept, run.physical + kept, run.written)
            freed.append(rest)
            logical, physical = rest.logical, rest.physical
            for start, count in self._space.allocate_runs(goal, rest.blocks):
                if run.written:
                    self._copy(physical, start, count)
                found.append(Run(logical, count, start, run.written))
                logical, physical, goal = logical + count, physical + count, start + count
        self._maps.rebuild(draft, found)
        for run in freed:
            self._space.free(run.physical, run.blocks)

    def _copy(self, block: int, to: int, count: int) -> None:
        """Copy blocks; what is known to read as zeros, as most of a journal, is not read, and stays a hole."""
        size, device = self.volume.block_size, self.volume.device
        start, end = block * size, (block + count) * size
        distance = to * size - start
        for run in runs_of(device, lambda: (whole(device, start, count * size),), block=size):
            low, high = max(start, run.offset), min(end, run.offset + run.length)
            if run.zero and low < high:
                self._zero(low + distance, high - low)
                continue
            for position in range(low, high, _COPIED):
                data = bytearray(min(_COPIED, high - position))
                self.volume.read_into(position, memoryview(data))
                self.transaction.write_data((position + distance) // size, memoryview(data))

    def _zero(self, offset: int, length: int) -> None:
        raw = self.transaction.raw
        if whole(raw, offset, length) == (offset, length):
            raw.zero(offset, length)
        else:
            self.transaction.write_home(offset, bytes(length))

    def _move_attributes(self, draft: Draft, block: int) -> None:
        """Move an attribute block; inodes that share it still do."""
        self.volume.check_run(block, 1, f"inode {draft.number}: attribute block")
        old = self.transaction.modify(block, "attribute block")
        references = int.from_bytes(old[_REFERENCES : _REFERENCES + 4], "little")
        to = self._shared.get(block)
        if to is None:
            to, _ = self._space.allocate(self._space.goal_of(self._inodes.group_of(draft.number)), 1)
            new = self.transaction.create(to)
            new[:] = old
            self._count_references(to, new, 1)
            self._shared[block] = to
            self.transaction.undo(lambda: self._shared.__delitem__(block))
        else:
            new = self.transaction.modify(to, "attribute block")
            count = int.from_bytes(new[_REFERENCES : _REFERENCES + 4], "little")
            self._count_references(to, new, count + 1)
        if references > 1:
            self._count_references(block, old, references - 1)
        else:
            self._space.free(block, 1)
        draft.file_acl = to

    def _count_references(self, block: int, data: bytearray, count: int) -> None:
        data[_REFERENCES : _REFERENCES + 4] = count.to_bytes(4, "little")
        if self.volume.has_checksums:
            checksum = attribute_block_checksum(self.volume.seed, block, bytes(data))
            data[16:20] = checksum.to_bytes(4, "little")


class _JournalMover(_Mover):
    """Moves the journal. Its copy is empty, and counts from the moment in which its inode goes home."""

    def _numbers(self) -> Iterator[int]:
        yield self.volume.superblock.s_journal_inum

    def _new_committer(self) -> Committer:
        log = LogWriter(self.transaction, open_journal(self.volume))
        inode = self.volume.inode(self.volume.superblock.s_journal_inum)
        return _JournalCommitter(self.transaction, self.superblock, log, inode.position // self.volume.block_size)

    def _move_runs(self, draft: Draft, runs: list[Run]) -> None:
        super()._move_runs(draft, runs)
        size = draft.size
        map_and_size = draft.fields.i_block + (size >> 32).to_bytes(4, "little")
        self.superblock.set(s_jnl_blocks=map_and_size + (size & 0xFFFFFFFF).to_bytes(4, "little"))


class _JournalCommitter(JournaledCommitter):
    """Writes the block with the journal's inode home last: until then the log is found where it is."""

    def __init__(self, transaction: Transaction, superblock: LiveSuperblock, log: LogWriter, last: int) -> None:
        super().__init__(transaction, superblock, log)
        self._last = last

    def _write_home(self, numbers: Iterable[int]) -> None:
        super()._write_home(set(numbers) - {self._last})
        self._transaction.raw.flush()
        super()._write_home({self._last} & set(numbers))


def _has_map(inode: Inode) -> bool:
    """Whether an inode's i_block is a map of blocks."""
    if inode.flags & InodeFlag.inline_data:
        return False
    return inode.kind in (S_IFREG, S_IFDIR) or (inode.kind == S_IFLNK and not inode.fast_symlink)
