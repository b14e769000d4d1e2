"""How a transaction reaches the device, so that a power cut at any write leaves what was or what is to be.

With a journal: the log is written, with the commit block it counts, then the blocks go to their places. Which it is
is settled by one sector at a time: the superblock first says that the journal is to be looked at, while it is empty,
which changes nothing; then the journal's superblock says that its log counts; and back in the same order.

Without one: what is new before what refers to it, counts last, between a mark that the file system is in use and
its removal. A cut then leaves something for e2fsck.

Knows: orders of writes. Refuses to know: what is in the blocks.

Source: Linux 6.1, Documentation/filesystems/ext4/journal.rst.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Final

from blockwright.codec.record import Buffer
from blockwright.fs.ext4.edit.log import LogWriter
from blockwright.fs.ext4.edit.superblock import LiveSuperblock
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.layout import Incompat, State
from blockwright.units import MiB

MAX_UNJOURNALED: Final = 64 * MiB
"""Bytes of changed blocks that are kept in memory without a journal to bound them."""
_CHUNK: Final = MiB


class Committer(ABC):
    """Brings a transaction's blocks, the superblock's among them, to the device."""

    def __init__(self, transaction: Transaction, superblock: LiveSuperblock) -> None:
        self._transaction = transaction
        self._superblock = superblock
        self._size = transaction.volume.block_size

    @property
    @abstractmethod
    def most(self) -> int:
        """Blocks that fit one transaction."""

    @abstractmethod
    def begin(self) -> None:
        """Mark the file system as being written to, before the transaction's blocks are made."""

    @abstractmethod
    def commit(self) -> None:
        """Write the transaction's blocks; they are durable when it returns."""

    def _write_home(self, numbers: Iterable[int]) -> None:
        """Write blocks to their places, those side by side together; the superblock's apart."""
        blocks, size = self._transaction.blocks, self._size
        first, parts = -1, list[Buffer]()
        for number in sorted(numbers):
            if number == self._superblock.block:
                self._superblock.write_home()
                continue
            if parts and (number != first + len(parts) or len(parts) * size >= _CHUNK):
                self._transaction.write_home(first * size, b"".join(parts))
                parts = []
            first = number if not parts else first
            parts.append(blocks[number])
        if parts:
            self._transaction.write_home(first * size, b"".join(parts))


class JournaledCommitter(Committer):
    """Through the file system's journal."""

    def __init__(self, transaction: Transaction, superblock: LiveSuperblock, log: LogWriter) -> None:
        super().__init__(transaction, superblock)
        self._log = log

    @property
    def most(self) -> int:
        """Blocks that fit the journal."""
        return self._log.most

    def begin(self) -> None:
        """Say that the journal is to be looked at. It is empty, so that changes nothing."""
        incompat = self._superblock.fields.s_feature_incompat
        self._superblock.write(s_feature_incompat=incompat | Incompat.needs_recovery)

    def commit(self) -> None:
        """Log the blocks, write them home, and empty the log."""
        raw, log, superblock = self._transaction.raw, self._log, self._superblock
        commit = log.write_body(self._transaction.blocks)
        raw.flush()
        log.write_commit(commit)
        log.write_superblock(counts=True)
        raw.flush()
        self._write_home(self._transaction.blocks)
        raw.flush()
        log.advance()
        log.write_superblock(counts=False)
        raw.flush()
        incompat = superblock.fields.s_feature_incompat
        superblock.write(s_feature_incompat=incompat & ~Incompat.needs_recovery)
        raw.flush()


class OrderedCommitter(Committer):
    """Without a journal."""

    @property
    def most(self) -> int:
        """Blocks that may be kept in memory."""
        return MAX_UNJOURNALED // self._size

    def begin(self) -> None:
        """Say that the file system is not unmounted cleanly."""
        self._superblock.write(s_state=self._superblock.fields.s_state & ~State.valid)
        self._transaction.raw.flush()

    def commit(self) -> None:
        """Write what is new, then what refers to it, then the counts."""
        transaction, superblock, raw = self._transaction, self._superblock, self._transaction.raw
        fresh = transaction.fresh & transaction.blocks.keys()
        self._write_home(fresh)
        raw.flush()
        self._write_home(transaction.blocks.keys() - fresh - {superblock.block})
        raw.flush()
        self._write_home([superblock.block])
        superblock.write(s_state=superblock.fields.s_state | State.valid)
        raw.flush()
