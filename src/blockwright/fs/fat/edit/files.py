"""The volume as it is with every change so far: the reader, over what is pending.

Knows: which directories are held in memory. Refuses to know: how they are changed.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, UsageError
from blockwright.fs.fat import layout
from blockwright.fs.fat.edit.folder import Folder
from blockwright.fs.fat.edit.pending import Pending, PendingDevice
from blockwright.fs.fat.edit.table import EditedTable
from blockwright.fs.fat.names import fold
from blockwright.fs.fat.read import ROOT_INODE, FatFileSystem
from blockwright.fs.fat.volume import Volume
from blockwright.fs.reader import Entry, Usage

MAX_HELD: Final = 1 << 18
"""Places for entries in the directories that are held between two operations."""


class EditedFiles(FatFileSystem):
    """Reads through the changes; closing it closes nothing, since the editor owns the device.

    ``entries`` and ``find`` may let go of directories; nothing else does, so that an operation keeps those it holds.
    """

    def __init__(self, device: BlockDevice, volume: Volume, table: EditedTable, pending: Pending) -> None:
        self._held: dict[int, Folder] = {}
        self._places = 0
        self._changing = table
        self._free_on_device: int | None = None
        super().__init__(PendingDevice(device, pending), volume, table)

    # -- for the editor --------------------------------------------------------------------------------------

    def entry(self, inode: int) -> layout.DirEntry:
        """Return an inode's short entry. Raises UsageError for the root, which has none."""
        if inode == ROOT_INODE:
            raise UsageError("fat: the root directory has no entry of its own")
        return self._entry(inode)

    def bytes_at(self, position: int, length: int) -> bytes:
        """Return bytes of the volume, which lie within one sector."""
        sector = self.geometry.sector_size
        start = position // sector * sector
        return self._device.read(start, sector)[position - start : position - start + length]

    def first_cluster(self, entry: layout.DirEntry) -> int:
        """Return where an entry's chain begins, 0 where it has none."""
        return self._first_cluster(entry)

    def directory_cluster(self, inode: int) -> int:
        """Return where a directory begins, 0 for a fixed root. Raises Corrupt, UsageError for a file."""
        if inode == ROOT_INODE:
            return self.geometry.root_cluster
        entry = self._entry(inode)
        if not entry.dir_attr & layout.DIRECTORY:
            raise UsageError(f"fat: inode {inode} is no directory")
        cluster = self._directory_cluster(entry)
        if cluster == self.geometry.root_cluster:
            raise Corrupt("fat: a directory begins where the root does", offset=inode * layout.ENTRY_SIZE)
        return cluster

    def folder(self, inode: int) -> Folder:
        """Return a directory, held in memory from now on until ``settle``."""
        cluster = self.directory_cluster(inode)
        found = self._held.get(cluster)
        if found is None:
            data, pieces = self._read_pieces(self._pieces(cluster))
            found = self._held[cluster] = Folder(cluster, pieces, data, is_new=False)
            self._places += found.count
        return found

    def hold(self, folder: Folder) -> None:
        """Hold a new directory."""
        self._held[folder.cluster] = folder
        self._places += folder.count

    def drop(self, cluster: int) -> None:
        """Forget a directory that is no more."""
        self._held.pop(cluster, None)

    @property
    def held(self) -> list[Folder]:
        """The directories in memory."""
        return list(self._held.values())

    @property
    def is_full(self) -> bool:
        """Whether more is held than is to stay."""
        return self._places > MAX_HELD

    def _shed(self) -> None:
        """Let go of directories that are as on the device, where many are held."""
        if self.is_full:
            self._held = {key: folder for key, folder in self._held.items() if folder.touched or folder.is_new}
            self._places = sum(folder.count for folder in self._held.values())

    def settle(self, free: int) -> None:
        """Take what was written for what is there."""
        self._free_on_device = free
        for folder in self._held.values():
            folder.settle()

    def free_clusters(self) -> int:
        """Return how many clusters will be free when everything pending is written; counted the first time."""
        if self._free_on_device is None:
            self._free_on_device = self._changing.count_free()
        return self._free_on_device + self._changing.delta

    # -- the questions ---------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """Return how full the volume is, by its table."""
        size = self.geometry.cluster_size
        free = self.free_clusters() * size
        return Usage(size=self.geometry.clusters * size, free=free, available=free, block_size=size)

    def entries(self, inode: int) -> Iterator[Entry]:
        self._shed()
        items = sorted(self.folder(inode).items.items(), key=lambda each: each[1].slot)
        for number, item in items:
            yield Entry(item.name, number, stat.S_IFDIR if item.directory else stat.S_IFREG)

    def find(self, inode: int, name: bytes) -> int | None:
        try:
            text = name.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return None
        self._shed()
        return self.folder(inode).by_name.get(fold(text))

    def close(self) -> None:
        """Close nothing."""
