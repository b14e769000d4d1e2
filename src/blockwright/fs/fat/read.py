"""Reads FAT12, FAT16 and FAT32 with long names: files by path, case ignored, from any device.

FAT has no inodes: an inode number here is the byte of the volume where the short entry lies, divided by 32. The
root, which has no entry, is 1, a place within the boot sector.

Knows: how entries, chains and names make a tree. Refuses to know: writing, and damage it can step over (``check``).
"""

from __future__ import annotations

import stat
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from blockwright.device.base import Backing, BlockDevice, Traits
from blockwright.device.extent import Extent, shift
from blockwright.errors import Corrupt, UsageError
from blockwright.fs.fat import layout
from blockwright.fs.fat.allocation import AllocationTable, Run
from blockwright.fs.fat.directory import Listed, scan
from blockwright.fs.fat.geometry import Geometry
from blockwright.fs.fat.names import fold
from blockwright.fs.fat.volume import BOOT_SIZE, Volume, looks_like_fat, read_volume
from blockwright.fs.reader import Entry, FileSystem, Placed, Stat, Usage
from blockwright.tree.content import EMPTY, DeviceContent
from blockwright.tree.node import NO_XATTRS, Directory, File
from blockwright.units import align_up, ceil_div

ROOT_INODE: Final = 1
MAX_CACHED_DIRECTORIES: Final = 64
"""Directories whose names are kept for look-ups."""
_DOTS: Final = (b".".ljust(11), b"..".ljust(11))


def probe(device: BlockDevice) -> bool:
    """Whether the device begins like a FAT volume."""
    if device.size < BOOT_SIZE:
        return False
    return looks_like_fat(device.read(0, max(BOOT_SIZE, device.traits.minimum_block))[:BOOT_SIZE])


def open(device: BlockDevice) -> FatFileSystem:  # noqa: A001  # fat.read.open reads as it should
    """Return the file system on the device, which it owns from then on. Raises NotThisFormat, Corrupt."""
    return FatFileSystem(device, read_volume(device))


class FileDevice(BlockDevice):
    """A file's bytes, read through the runs of its clusters. Does not own the volume's device."""

    def __init__(self, device: BlockDevice, size: int, runs: Sequence[Run], geometry: Geometry) -> None:
        super().__init__(size, Traits(parallelism=device.traits.parallelism))
        self._device = device
        self._positions = [geometry.cluster_start(run.start) for run in runs]
        self._starts = []
        position = 0
        for run in runs:
            self._starts.append(position)
            position += run.length * geometry.cluster_size
        self._starts.append(position)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (position on the volume, length), ascending in the file."""
        index = bisect_right(self._starts, offset) - 1
        while length > 0:
            within = offset - self._starts[index]
            part = min(length, self._starts[index + 1] - offset)
            yield self._positions[index] + within, part
            offset += part
            length -= part
            index += 1

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            filled = 0
            for position, length in self._pieces(offset, len(buffer)):
                self._device.read_into(position, buffer[filled : filled + length])
                filled += length
            offset += filled

    def _extents(self, offset: int, length: int) -> Iterable[Extent]:
        for position, part in self._pieces(offset, length):
            yield from shift(self._device.extents(position, part), offset - position)
            offset += part

    def _prefetch(self, offset: int, length: int) -> None:
        for position, part in self._pieces(offset, length):
            self._device.prefetch(position, part)

    def _backing(self, offset: int, length: int) -> Backing:
        """Answer for what lies in the run of the first byte; None where that is not all of it."""
        pieces = list(self._pieces(offset, length))
        return self._device.backing(*pieces[0]) if len(pieces) == 1 else super()._backing(offset, length)


class _Folder:
    """A directory that was read: what is listed with inode numbers, and names to those."""

    __slots__ = ("by_name", "listed")

    def __init__(self, listed: list[tuple[int, Listed]]) -> None:
        self.listed = listed
        self.by_name: dict[str, int] = {}
        for inode, each in listed:
            self.by_name.setdefault(fold(each.short.decode()), inode)
        for inode, each in reversed(listed):
            self.by_name[fold(each.name.decode("utf-8", "surrogatepass"))] = inode


class FatFileSystem(FileSystem):
    """A FAT volume, read-only. Times are taken as UTC, which is what the planner writes."""

    root_inode = ROOT_INODE

    def __init__(self, device: BlockDevice, volume: Volume, table: AllocationTable | None = None) -> None:
        self._device = device
        self.volume = volume
        self.geometry = volume.geometry
        self._table = AllocationTable(device, volume.geometry, volume.active_fat) if table is None else table
        self._folders: dict[int, _Folder] = {}
        self.kind = f"fat{volume.geometry.bits}"
        self.uuid = f"{volume.volume_id >> 16:04X}-{volume.volume_id & 0xFFFF:04X}"
        self.label = self._read_label()

    def _read_label(self) -> str:
        for each in scan(self._root_bytes()[0]):
            if each.raw[11] & (layout.VOLUME | layout.DIRECTORY) == layout.VOLUME:
                return each.raw[:11].decode("cp437").rstrip(" ")
        return (self.volume.label or b"").decode("cp437").rstrip(" \0")

    # -- directories -----------------------------------------------------------------------------------------

    def _root_bytes(self) -> tuple[bytes, list[tuple[int, int]]]:
        return self._read_pieces(self._pieces(self.geometry.root_cluster))

    def _pieces(self, cluster: int) -> list[tuple[int, int]]:
        """Return the (position, length) of what a directory lies in; cluster 0 is the fixed root."""
        geometry = self.geometry
        size = geometry.cluster_size
        if cluster == 0 and geometry.bits != 32:
            return [(geometry.root_start, geometry.root_size)]
        runs = self._table.runs(cluster, ceil_div(layout.MAX_DIRECTORY, size), whole=True)
        return [(geometry.cluster_start(run.start), run.length * size) for run in runs]

    def _read_pieces(self, pieces: list[tuple[int, int]]) -> tuple[bytes, list[tuple[int, int]]]:
        return b"".join([self._device.read(position, length) for position, length in pieces]), pieces

    def _folder(self, inode: int) -> _Folder:
        folder = self._folders.get(inode)
        if folder is None:
            folder = _Folder(list(self._list(inode)))
            if len(self._folders) >= MAX_CACHED_DIRECTORIES:
                self._folders.clear()
            self._folders[inode] = folder
        return folder

    def _list(self, inode: int) -> Iterator[tuple[int, Listed]]:
        """Yield (inode, entry) of the names in a directory, without dots and volume labels."""
        if inode == ROOT_INODE:
            data, pieces = self._root_bytes()
        else:
            entry = self._entry(inode)
            if not entry.dir_attr & layout.DIRECTORY:
                raise UsageError(f"fat: inode {inode} is no directory")
            data, pieces = self._read_pieces(self._pieces(self._directory_cluster(entry)))
        begin, index = 0, 0
        for each in scan(data):
            if each.raw[11] & layout.VOLUME or each.raw[:11] in _DOTS:
                continue
            while each.offset >= begin + pieces[index][1]:
                begin += pieces[index][1]
                index += 1
            yield (pieces[index][0] + each.offset - begin) // layout.ENTRY_SIZE, each

    def _first_cluster(self, entry: layout.DirEntry) -> int:
        return entry.first_cluster if self.geometry.bits == 32 else entry.dir_fst_clus_lo

    def _directory_cluster(self, entry: layout.DirEntry) -> int:
        """Return where a directory begins. 0 stands for the root, and only ``..``, which is not listed, says so."""
        cluster = self._first_cluster(entry)
        if cluster == 0:
            raise Corrupt(f"fat: the directory {entry.dir_name!r} has no cluster", spec=layout.SPEC)
        return cluster

    def _entry(self, inode: int) -> layout.DirEntry:
        """Return the short entry that an inode number stands for."""
        geometry = self.geometry
        position = inode * layout.ENTRY_SIZE
        if not geometry.root_start <= position < geometry.cluster_start(geometry.end_cluster):
            raise Corrupt(f"fat: inode {inode} is not in use", offset=position)
        block = max(layout.ENTRY_SIZE, self._device.traits.minimum_block)
        start = position // block * block
        entry = layout.DirEntry.parse(self._device.read(start, block), position - start)
        if entry.dir_name[0] in (0, layout.DELETED) or entry.dir_attr & layout.VOLUME:
            raise Corrupt(f"fat: inode {inode} is not in use", offset=position)
        return entry

    # -- the questions ---------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """Return how full the volume is: by FSInfo where its number is possible, else by counting."""
        geometry = self.geometry
        free = None
        if self.volume.info_sector:
            sector = self._device.read(self.volume.info_sector * geometry.sector_size, geometry.sector_size)
            info = layout.FsInfo.parse(sector)
            if info.fsi_struc_sig == layout.STRUC_SIG and info.fsi_free_count <= geometry.clusters:
                free = info.fsi_free_count
        if free is None:
            free = sum(values.count(0) for _, values in self._table.pages())
        free *= geometry.cluster_size
        size = geometry.clusters * geometry.cluster_size
        return Usage(size=size, free=free, available=free, block_size=geometry.cluster_size)

    def stat_inode(self, inode: int) -> Stat:
        if inode == ROOT_INODE:
            length = sum(length for _, length in self._pieces(self.geometry.root_cluster))
            return Stat(inode, stat.S_IFDIR | 0o755, 2, 0, 0, length, length, 0)
        entry = self._entry(inode)
        accessed = layout.decode_time(entry.dir_lst_acc_date, 0)
        created = layout.decode_time(entry.dir_crt_date, entry.dir_crt_time, entry.dir_crt_time_tenth)
        if entry.dir_attr & layout.DIRECTORY:
            mode, links = stat.S_IFDIR | 0o755, 2
            size = sum(length for _, length in self._pieces(self._directory_cluster(entry)))
        else:
            mode, links = stat.S_IFREG | (0o444 if entry.dir_attr & layout.READ_ONLY else 0o644), 1
            size = entry.dir_file_size
        return Stat(
            inode=inode,
            mode=mode,
            nlink=links,
            uid=0,
            gid=0,
            size=size,
            allocated=align_up(size, self.geometry.cluster_size),
            mtime_ns=layout.decode_time(entry.dir_wrt_date, entry.dir_wrt_time) or 0,
            atime_ns=accessed,
            crtime_ns=created,
        )

    def entries(self, inode: int) -> Iterator[Entry]:
        for number, each in self._folder(inode).listed:
            kind = stat.S_IFDIR if each.raw[11] & layout.DIRECTORY else stat.S_IFREG
            yield Entry(each.name, number, kind)

    def find(self, inode: int, name: bytes) -> int | None:
        try:
            text = name.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return None
        return self._folder(inode).by_name.get(fold(text))

    def link_target(self, inode: int) -> bytes:
        """Refuse: FAT has no symbolic links."""
        raise UsageError(f"fat: inode {inode} is no symbolic link")

    def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        """Return none: FAT has no extended attributes."""
        return NO_XATTRS

    def _file_entry(self, inode: int) -> layout.DirEntry:
        if inode == ROOT_INODE or (entry := self._entry(inode)).dir_attr & layout.DIRECTORY:
            raise UsageError(f"fat: inode {inode} is a directory")
        return entry

    def placement(self, inode: int) -> list[Placed]:
        """Return where a file's clusters lie."""
        geometry, offset, found = self.geometry, 0, []
        for run in self._file_runs(self._file_entry(inode)):
            length = run.length * geometry.cluster_size
            found.append(Placed(offset, geometry.cluster_start(run.start), length))
            offset += length
        return found

    def open_inode(self, inode: int) -> BlockDevice:
        entry = self._file_entry(inode)
        return FileDevice(self._device, entry.dir_file_size, self._file_runs(entry), self.geometry)

    def _file_runs(self, entry: layout.DirEntry) -> list[Run]:
        """Return the runs that hold a file's size; what a chain has beyond it is nobody's."""
        count = ceil_div(entry.dir_file_size, self.geometry.cluster_size)
        return self._table.runs(self._first_cluster(entry), count, whole=False) if count else []

    def tree(self) -> Directory:
        root = Directory()
        stack = [(ROOT_INODE, root)]
        seen: set[int] = set()
        left = self.geometry.clusters  # chains that files share would be walked for each of them
        while stack:
            inode, directory = stack.pop()
            for number, each in self._list(inode):
                if each.name in directory.entries:
                    continue
                entry = layout.DirEntry.parse(each.raw)
                mtime_ns = layout.decode_time(entry.dir_wrt_date, entry.dir_wrt_time) or 0
                if entry.dir_attr & layout.DIRECTORY:
                    cluster = self._first_cluster(entry)
                    if cluster in seen:
                        raise Corrupt(
                            f"fat: two directories begin at cluster {cluster}", offset=number * layout.ENTRY_SIZE
                        )
                    seen.add(cluster)
                    child = Directory(mtime_ns=mtime_ns)
                    directory.entries[each.name] = child
                    stack.append((number, child))
                else:
                    left -= ceil_div(entry.dir_file_size, self.geometry.cluster_size)
                    if left < 0:
                        raise Corrupt(
                            f"fat: files hold more than the {self.geometry.clusters} clusters of the volume",
                            offset=number * layout.ENTRY_SIZE,
                        )
                    directory.entries[each.name] = self._file(entry, mtime_ns)
        return root

    def _file(self, entry: layout.DirEntry, mtime_ns: int) -> File:
        permissions = 0o444 if entry.dir_attr & layout.READ_ONLY else 0o644
        size = entry.dir_file_size
        if not size:
            return File(permissions, mtime_ns=mtime_ns, content=EMPTY)
        runs = self._file_runs(entry)
        device: BlockDevice = self._device
        start = self.geometry.cluster_start(runs[0].start)
        if len(runs) > 1:
            device, start = FileDevice(self._device, size, runs, self.geometry), 0
        return File(permissions, mtime_ns=mtime_ns, content=DeviceContent(device, size, ((0, size),), (start,)))

    def close(self) -> None:
        self._device.close()
