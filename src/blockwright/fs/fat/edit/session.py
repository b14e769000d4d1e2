"""A FAT volume and everything about it that is not on the device yet.

Knows: what is pending, when it must be committed, free clusters. Refuses to know: which changes users ask for.
"""

from __future__ import annotations

from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, NoSpace, UsageError
from blockwright.fs.editor import CommitPolicy
from blockwright.fs.fat import layout
from blockwright.fs.fat.allocation import Run
from blockwright.fs.fat.edit.bodies import Bodies
from blockwright.fs.fat.edit.commit import Committer
from blockwright.fs.fat.edit.files import EditedFiles
from blockwright.fs.fat.edit.folder import SIZE
from blockwright.fs.fat.edit.pending import Pending, Step
from blockwright.fs.fat.edit.state import VolumeState, damage_of_unclean
from blockwright.fs.fat.edit.table import EditedTable
from blockwright.fs.fat.volume import Volume
from blockwright.tree.content import Content
from blockwright.units import ceil_div

MAX_PATCHES: Final = 1 << 16
"""Changed entries that are kept in memory before they are committed."""
MAX_PAGES: Final = 512
"""Changed pages of the table that are: 16 MiB or 32."""


class Session:
    """What the parts of an editor share. ``shrunk`` are the files that were cut since the last commit.

    Raises UsageError for a volume that was not left clean and is damaged, or whose resize was interrupted.
    """

    def __init__(self, device: BlockDevice, volume: Volume, policy: CommitPolicy) -> None:
        if volume.mark:
            raise UsageError("fat: a change of its size was interrupted: resize it again, as before, to finish that")
        self.device = device
        self.geometry = volume.geometry
        self.table = EditedTable(device, volume)
        damage = damage_of_unclean(device, volume, self.table)
        if damage:
            raise UsageError(f"fat: was not left clean, and is damaged: mend it first, as with fsck.fat -a: {damage}")
        self.state = VolumeState(device, volume, self.table)
        self.table.next_free = self.state.next_free or layout.FIRST_CLUSTER
        self.pending = Pending(self.geometry.sector_size)
        self.files = EditedFiles(device, volume, self.table, self.pending)
        self.bodies = Bodies(device, self.geometry)
        self.shrunk: set[int] = set()
        self._committer = Committer(device, self.geometry.sector_size, self.table, self.state)
        self._policy = policy
        self._told = False
        self._broken = False

    def commit(self) -> None:
        """Write every change so far, and make it durable."""
        if self._broken:
            raise UsageError("fat: a commit failed, and what is in memory may not be what is on the device")
        if not self.pending and not self.table.changed_pages:
            return
        seen = len(self.pending.visible())
        if seen > 1:
            self._tell(f"FAT has no journal: {seen} sectors of directories change one after another, each file whole")
        free = self.files.free_clusters()
        self._broken = True  # until all is written
        self._committer.write(self.pending, self.files.held, free)
        self._broken = False
        self.pending.clear()
        self.table.settle()
        self.files.settle(free)
        self.shrunk.clear()

    def _tell(self, reason: str) -> None:
        """Refuse what is not one change, or say once that it is not, before anything is written."""
        if self._policy.atomic:
            raise UsageError(f"fat: not one transaction: {reason}")
        if not self._told and self._policy.on_split is not None:
            self._policy.on_split(reason)
        self._told = True

    def commit_before(self, reason: str) -> None:
        """Commit what came before, where the next change cannot be in one commit with it."""
        if self.pending or self.table.changed_pages:
            self._tell(f"FAT has no journal: {reason}")
            self.commit()

    def step(self) -> None:
        """Commit what came so far where more is pending than is kept in memory."""
        crowded = self.pending.count > MAX_PATCHES or self.table.changed_pages > MAX_PAGES
        if crowded or (self.files.is_full and self.pending):
            self.commit_before("more changes than are kept in memory are made one after another, each file whole")

    def close(self) -> None:
        """Close the device."""
        self.device.close()

    def allocate(self, count: int) -> list[Run]:
        """Take free clusters, after a commit where that makes more of them. Raises NoSpace."""
        try:
            return self.table.allocate(count)
        except NoSpace:
            if not self.table.waiting:
                raise
            self.commit_before("clusters that are given back must be so before they are used again")
            return self.table.allocate(count)

    def store(self, content: Content) -> list[Run]:
        """Put a file's bytes into free clusters; return their runs."""
        if not content.size:
            return []
        runs = self.allocate(ceil_div(content.size, self.geometry.cluster_size))
        try:
            self.bodies.write(runs, content)
        except BaseException:
            self.table.free(runs)
            raise
        return runs

    def chain(self, entry: layout.DirEntry) -> list[Run]:
        """Return everything that an entry's chain holds."""
        first = self.files.first_cluster(entry)
        if not first:
            return []
        if self.geometry.bits == 32 and first == self.geometry.root_cluster:
            raise Corrupt(f"fat: {entry.dir_name!r} begins where the root directory does")
        return self.table.runs(first, self.geometry.clusters, whole=True)

    def change_entry(self, inode: int, entry: layout.DirEntry) -> None:
        """Have another short entry in the place of one that is there."""
        position = inode * SIZE
        step = self.pending.step_at(position)
        self.pending.put(position, entry.pack(), Step.SWITCH if step is None else step)
