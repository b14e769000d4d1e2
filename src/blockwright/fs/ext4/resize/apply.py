"""The writes of a plan in an order that any power cut may end.

With a journal, what makes the new size count is one transaction of it, behind what new groups need.

Without one the superblock says that the file system is not clean, with a mark that this package made it so; then
come bitmaps and descriptors, then the superblock with the new size, then what would be wrong before it. A check
mends each prefix of that without loss: it finds the file system of the old size, or of the new one, with bits and
counts to correct.

Knows: order and flushes. Refuses to know: what is written.
"""

from __future__ import annotations

from collections.abc import Iterable

from blockwright.fs.ext4.edit.commit import JournaledCommitter
from blockwright.fs.ext4.edit.log import LogWriter
from blockwright.fs.ext4.edit.superblock import LiveSuperblock
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.layout import Compat, Incompat, State, Superblock
from blockwright.fs.ext4.replay import open_journal
from blockwright.fs.ext4.resize.plan import Plan, superblock_block
from blockwright.fs.ext4.resize.writer import Writer
from blockwright.fs.ext4.volume import read_superblock


def apply(plan: Plan, committer: Committer | None) -> str:
    """Make what is planned durable; return how: "none", "journal" or "ordered"."""
    writer = Writer(plan.volume.device, plan.geometry.block_size)
    stale = plan.copies_are_stale()
    blocks = plan.changes
    if not blocks:
        if stale:
            _write_copies(plan, writer, 0, plan.first_new)
        return "ordered" if stale else "none"
    _write_early(plan, writer)
    if committer is None:
        _switch_in_order(plan, writer)
    else:
        committer.put(blocks, plan.superblock)
    _write_copies(plan, writer, 0, plan.first_new)
    if committer is not None:
        return "journal"
    _write_home(plan, writer, plan.superblock)
    return "ordered"


class Committer(JournaledCommitter):
    """Commits blocks through the journal, in an order in which a half written file system still can be opened.

    Who replays the journal opens the file system first, and looks at the descriptors that the superblock speaks of.
    So the superblock goes home behind more descriptors, and before fewer.
    """

    def __init__(self, transaction: Transaction, *, shrinks: bool) -> None:
        superblock = LiveSuperblock(transaction)
        super().__init__(transaction, superblock, LogWriter(transaction, open_journal(transaction.volume)))
        self._live = superblock
        self._shrinks = shrinks

    def put(self, blocks: dict[int, bytes], superblock: Superblock) -> None:
        """Have the blocks and the superblock durable, all of them or none."""
        self.begin()
        kept = superblock.replace()
        kept.s_feature_incompat |= int(Incompat.needs_recovery)
        for number, data in blocks.items():
            if number != self._live.block:
                self._transaction.adopt(number, bytearray(data))
        self._live.set(**{name: getattr(kept, name) for name in Superblock.FIELDS if name != "s_checksum"})
        self._live.put()
        self._transaction.keep()
        self.commit()

    def _write_home(self, numbers: Iterable[int]) -> None:
        home = {self._live.block}
        parts = [set(numbers) - home, home]
        for part in reversed(parts) if self._shrinks else parts:
            super()._write_home(part)
            self._transaction.raw.flush()


def committer_of(plan: Plan) -> Committer | None:
    """Return what commits the switch through the journal; None where there is none, or it is too short.

    Nothing is written. Raises Corrupt.
    """
    volume = plan.volume
    superblock = read_superblock(volume.device, source=volume.source)
    internal = superblock.s_feature_compat & Compat.has_journal and superblock.s_journal_inum
    if not internal or not superblock.s_state & State.valid:
        return None
    transaction = Transaction(volume.device, superblock, source=volume.source)
    shrinks = plan.geometry.blocks_count < volume.geometry.blocks_count
    committer = Committer(transaction, shrinks=shrinks)
    return committer if len(plan.changes) < committer.most else None


def _write_early(plan: Plan, writer: Writer) -> None:
    """Write what new groups need, where nothing refers to it yet."""
    if plan.first_new == plan.geometry.groups:
        return
    writer.zero(plan.zeros)
    writer.zero(plan.kept_heads())
    writer.write(sorted(plan.early.items()))
    _write_copies(plan, writer, plan.first_new, plan.geometry.groups)


def _write_copies(plan: Plan, writer: Writer, first: int, last: int) -> None:
    """Write the copies of descriptors and superblock in groups; a superblock says that what is behind it is new."""
    writer.write(plan.descriptor_copies(first, last))
    writer.device.flush()
    writer.write(plan.superblock_copies(first, last))
    writer.device.flush()


def _switch_in_order(plan: Plan, writer: Writer) -> None:
    """Write the blocks of the old file system so that each prefix is whole but for bits and counts."""
    home = plan.geometry.super_block
    before, after = plan.volume.superblock.replace(), plan.superblock.replace()
    for superblock in (before, after):
        superblock.s_state &= ~int(State.valid)
    _write_home(plan, writer, before, marked=True)
    writer.write(sorted((block, data) for block, data in plan.switch.items() if block != home))
    writer.device.flush()
    _write_home(plan, writer, after, marked=True)
    writer.write(sorted(plan.behind.items()))
    writer.device.flush()


def _write_home(plan: Plan, writer: Writer, superblock: Superblock, *, marked: bool = False) -> None:
    """Have the primary superblock durable."""
    writer.write([(plan.geometry.super_block, superblock_block(plan.volume, superblock, marked=marked))])
    writer.device.flush()
