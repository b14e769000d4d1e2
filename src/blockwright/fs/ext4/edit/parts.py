"""The parts of an editor, made in the order in which they stand on one another.

Knows: who needs whom. Refuses to know: what any of them does.
"""

from __future__ import annotations

from blockwright.epoch import now_ns
from blockwright.fs.ext4.edit.blockmap import BlockMap
from blockwright.fs.ext4.edit.bodies import Bodies
from blockwright.fs.ext4.edit.directories import Directories
from blockwright.fs.ext4.edit.groups import Groups
from blockwright.fs.ext4.edit.inodes import InodeTable
from blockwright.fs.ext4.edit.space import Space
from blockwright.fs.ext4.edit.superblock import LiveSuperblock
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.edit.xattrs import Attributes
from blockwright.fs.ext4.lookup import find_name


class Parts:
    """Everything that changes together."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.volume = transaction.volume
        self.superblock = LiveSuperblock(transaction)
        self.groups = Groups(transaction)
        self.space = Space(transaction, self.groups, self.superblock)
        self.inodes = InodeTable(transaction, self.groups, self.superblock)
        self.maps = BlockMap(transaction, self.space, self.inodes)
        self.bodies = Bodies(transaction, self.space)
        self.attributes = Attributes(self.superblock, self.space, self.inodes, self.maps, self.bodies)
        self.defers = False
        """Whether bodies that lost their last name, or are cut, are left on the list of orphans."""
        self.directories = Directories(transaction, self.space, self.inodes, self.maps, self.attributes)

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.transaction.blocks) or bool(self.groups.changed) or self.superblock.changed

    def fits(self, most: int) -> bool:
        """Whether a commit would write at most that many blocks. Groups are counted only where it matters."""
        blocks = len(self.transaction.blocks) + 1
        return blocks + 3 * self.groups.changed <= most or blocks + self.groups.pending_blocks <= most

    def keep(self) -> None:
        """End an operation that is to stay."""
        self.transaction.keep()
        self.groups.keep()

    def revert(self) -> None:
        """Take back the operation that is under way."""
        self.transaction.revert()
        self.groups.keep()
        self.directories.forget()

    def put(self) -> None:
        """Bring everything into blocks of the transaction."""
        self.superblock.set(s_wtime=now_ns() // 1_000_000_000 & 0xFFFFFFFF)
        self.groups.put()
        self.superblock.put()
        self.keep()

    def committed(self) -> None:
        """Begin a new transaction."""
        self.transaction.clear()
        self.groups.committed()

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the inode that a name stands for, or None."""
        return find_name(self.volume, self.volume.inode(directory), name)
