"""A FAT volume opened for changes.

Bodies go to free clusters as they come. Entries, directories and the table change in memory only, and ``commit``
writes them in an order that leaves each name as it was or as it will be. What one commit cannot hold in that order
(a name that goes and comes again, clusters that are given back and needed) is committed in between.

Knows: what each change means for entries and chains. Refuses to know: how they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, NoSpace, NotFound, ReadOnly, Unsupported, UsageError
from blockwright.fs.editor import DEFAULT_POLICY, Attributes, CommitPolicy, Editor
from blockwright.fs.fat import layout
from blockwright.fs.fat.allocation import Run
from blockwright.fs.fat.boot import NO_NAME
from blockwright.fs.fat.edit.bodies import Bodies, Patched
from blockwright.fs.fat.edit.commit import Committer
from blockwright.fs.fat.edit.files import EditedFiles
from blockwright.fs.fat.edit.folder import MAX_SLOTS, SIZE, Folder, Item
from blockwright.fs.fat.edit.pending import Pending, Step
from blockwright.fs.fat.edit.state import VolumeState, damage_of_unclean
from blockwright.fs.fat.edit.table import EditedTable
from blockwright.fs.fat.entries import DOT, DOT_DOT, file_attributes, short_entry
from blockwright.fs.fat.names import check_name, long_entries
from blockwright.fs.fat.options import FatOptions
from blockwright.fs.fat.plan import check_content, unsupported
from blockwright.fs.fat.read import ROOT_INODE
from blockwright.fs.fat.volume import Volume, read_volume
from blockwright.fs.reader import FileSystem
from blockwright.tree.content import EMPTY, Content
from blockwright.tree.node import Directory, File, Node
from blockwright.units import ceil_div

MAX_PATCHES: Final = 1 << 16
"""Changed entries that are kept in memory before they are committed."""
MAX_PAGES: Final = 512
"""Changed pages of the table that are: 16 MiB or 32."""
_DELETED: Final = bytes((layout.DELETED,))
_DOS: Final = layout.READ_ONLY | layout.HIDDEN | layout.SYSTEM | layout.ARCHIVE


def open(device: BlockDevice, *, policy: CommitPolicy = DEFAULT_POLICY) -> FatEditor:  # noqa: A001  # edit.open
    """Return the volume on the device, which it owns from then on, open for changes.

    Raises UsageError for a volume that was not left clean and is damaged; ReadOnly, Unsupported, Corrupt,
    NotThisFormat.
    """
    volume = read_volume(device)
    if not device.traits.writable:
        raise ReadOnly("fat: the device takes no writes")
    if device.traits.minimum_block > volume.geometry.sector_size:
        raise Unsupported(
            f"fat: expected sectors of at least the device's {device.traits.minimum_block} bytes, "
            f"found {volume.geometry.sector_size}"
        )
    return FatEditor(device, volume, policy)


class FatEditor(Editor):
    """See ``open``. A name that is replaced keeps its spelling, as in every other FAT."""

    keeps_links = False

    def __init__(self, device: BlockDevice, volume: Volume, policy: CommitPolicy) -> None:
        self._device = device
        self._geometry = volume.geometry
        self._policy = policy
        self._table = EditedTable(device, volume)
        damage = damage_of_unclean(device, volume, self._table)
        if damage:
            raise UsageError(f"fat: was not left clean, and is damaged: mend it first, as with fsck.fat -a: {damage}")
        self._state = VolumeState(device, volume, self._table)
        self._table.next_free = self._state.next_free or layout.FIRST_CLUSTER
        self._pending = Pending(self._geometry.sector_size)
        self._files = EditedFiles(device, volume, self._table, self._pending)
        self._bodies = Bodies(device, self._geometry)
        self._committer = Committer(device, self._geometry.sector_size, self._table, self._state)
        self._shrunk: set[int] = set()
        self._told = False
        self._broken = False

    @property
    def files(self) -> FileSystem:
        return self._files

    def check_name(self, name: bytes) -> None:
        check_name(name, name)

    # -- committing ------------------------------------------------------------------------------------------

    def commit(self) -> None:
        if self._broken:
            raise UsageError("fat: a commit failed, and what is in memory may not be what is on the device")
        if not self._pending and not self._table.changed_pages:
            return
        seen = len(self._pending.visible())
        if seen > 1:
            self._tell(f"FAT has no journal: {seen} sectors of directories change one after another, each file whole")
        free = self._files.free_clusters()
        self._broken = True  # until all is written
        self._committer.write(self._pending, self._files.held, free)
        self._broken = False
        self._pending.clear()
        self._table.settle()
        self._files.settle(free)
        self._shrunk.clear()

    def _tell(self, reason: str) -> None:
        """Refuse what is not one change, or say once that it is not, before anything is written."""
        if self._policy.atomic:
            raise UsageError(f"fat: not one transaction: {reason}")
        if not self._told and self._policy.on_split is not None:
            self._policy.on_split(reason)
        self._told = True

    def _commit_before(self, reason: str) -> None:
        """Commit what came before, where the next change cannot be in one commit with it."""
        if self._pending or self._table.changed_pages:
            self._tell(f"FAT has no journal: {reason}")
            self.commit()

    def _step(self) -> None:
        crowded = self._pending.count > MAX_PATCHES or self._table.changed_pages > MAX_PAGES
        if crowded or (self._files.is_full and self._pending):
            self._commit_before("more changes than are kept in memory are made one after another, each file whole")

    def close(self) -> None:
        self._device.close()

    # -- clusters --------------------------------------------------------------------------------------------

    def _allocate(self, count: int) -> list[Run]:
        try:
            return self._table.allocate(count)
        except NoSpace:
            if not self._table.waiting:
                raise
            self._commit_before("clusters that are given back must be so before they are used again")
            return self._table.allocate(count)

    def _store(self, content: Content) -> list[Run]:
        """Put a file's bytes into free clusters; return their runs."""
        if not content.size:
            return []
        runs = self._allocate(ceil_div(content.size, self._geometry.cluster_size))
        try:
            self._bodies.write(runs, content)
        except BaseException:
            self._table.free(runs)
            raise
        return runs

    def _chain(self, entry: layout.DirEntry) -> list[Run]:
        """Return everything that an entry's chain holds."""
        first = self._files.first_cluster(entry)
        if not first:
            return []
        if self._geometry.bits == 32 and first == self._geometry.root_cluster:
            raise Corrupt(f"fat: {entry.dir_name!r} begins where the root directory does")
        return self._table.runs(first, self._geometry.clusters, whole=True)

    # -- entries ---------------------------------------------------------------------------------------------

    def _put_slots(self, folder: Folder, first: int, data: bytes) -> None:
        """Have entries at places from ``first`` on. The last is a short one, in whose sector all are written at once.

        What lies in a sector before is a part of a long name, which is nothing without it.
        """
        size = self._geometry.sector_size
        count = len(data) // SIZE
        sector = folder.position(first + count - 1) // size
        for number in range(count):
            position = folder.position(first + number)
            early = folder.is_new or position // size != sector
            part = data[number * SIZE : (number + 1) * SIZE]
            self._pending.put(position, part, Step.PREPARE if early else Step.SWITCH)

    def _change_entry(self, inode: int, entry: layout.DirEntry) -> None:
        """Have another short entry in the place of one that is there."""
        position = inode * SIZE
        step = self._pending.step_at(position)
        self._pending.put(position, entry.pack(), Step.SWITCH if step is None else step)

    def _chained(self, entry: layout.DirEntry, cluster: int, size: int) -> layout.DirEntry:
        return entry.replace(dir_fst_clus_hi=cluster >> 16, dir_fst_clus_lo=cluster & 0xFFFF, dir_file_size=size)

    def _add(self, folder: Folder, text: str, make: Callable[[bytes, int], bytes], *, directory: bool) -> Item:
        """Have a new name, whose short entry ``make`` gives for a short name and its case bits."""
        if not folder.is_sound:
            raise Corrupt("fat: a directory has entries behind its end", offset=folder.position(folder.end))
        name = folder.name_for(text)
        try:
            first = self._room(folder, name.entries)
        except BaseException:
            folder.shorts.taken.discard(name.short)
            raise
        item = folder.enter(text, name, first, directory=directory)
        folder.born.add(item.slot)
        self._put_slots(folder, first, long_entries(name) + make(name.short, name.case))
        return item

    def _room(self, folder: Folder, count: int) -> int:
        """Return where so many free places lie, with more clusters if need be. Raises NoSpace."""
        found = folder.room(count)
        if found is None and folder.frees_later and not self._can_grow(folder, count):
            self._commit_before("places that are given back must be so before they are used again")
            found = folder.room(count)
        if found is not None:
            return found
        if not self._can_grow(folder, count):
            most, free = folder.count, folder.used.count(0)
            raise NoSpace(
                f"fat: expected {count} free places side by side in a directory of at most {most} entries, "
                f"found {free} free"
            )
        self._grow(folder, count - folder.free_at_end)
        found = folder.room(count)
        assert found is not None, "the directory has just grown by as much"
        return found

    def _can_grow(self, folder: Folder, count: int) -> bool:
        if folder.cluster == 0:
            return False
        per_cluster = self._geometry.cluster_size // SIZE
        return folder.count + ceil_div(count - folder.free_at_end, per_cluster) * per_cluster <= MAX_SLOTS

    def _grow(self, folder: Folder, places: int) -> None:
        size = self._geometry.cluster_size
        runs = self._allocate(ceil_div(places * SIZE, size))
        position, length = folder.pieces[-1]
        last = (position + length - self._geometry.data_start) // size + layout.FIRST_CLUSTER - 1
        for run in runs:
            start = self._geometry.cluster_start(run.start)
            self._device.zero(start, run.length * size)
            folder.grow(start, run.length * size)
        self._table.link(last, runs[0].start)

    def _erase(self, folder: Folder, item: Item, seen: Step = Step.REMOVE) -> None:
        """Take a name away. What the device has of it stays until everything new is there, or until ``seen``."""
        size = self._geometry.sector_size
        at_once = folder.is_new or item.slot in folder.born
        sector = folder.position(item.slot) // size
        for slot in item.slots:
            position = folder.position(slot)
            if at_once:
                step = Step.PREPARE if folder.is_new else Step.SWITCH
            else:
                step = seen if position // size == sector else Step.CLEAN_UP
            self._pending.put(position, _DELETED, step)
        folder.leave(item, at_once=at_once)

    def _need_name(self, folder: Folder, name: bytes) -> str:
        """Return a new name as text, once no entry of that name is left on the device."""
        text = check_name(name, name)
        if folder.has_gone(text):
            self._commit_before("a name that is removed must be gone before it can come again")
        return text

    def _item(self, folder: Folder, name: bytes, inode: int | None = None) -> tuple[int, Item]:
        found = folder.find(name) if inode is None else inode
        if found is None or found not in folder.items:
            raise NotFound(f"fat: {name!r} is not in its directory")
        return found, folder.items[found]

    # -- files and directories -------------------------------------------------------------------------------

    def _create(self, parent: int, name: bytes, node: Node) -> int:
        folder = self._files.folder(parent)
        if isinstance(node, Directory):
            return self._create_directory(folder, self._need_name(folder, name), node)
        if not isinstance(node, File):
            raise unsupported(name)
        check_content(name, node.content)
        text = self._need_name(folder, name)
        runs = self._store(node.content)
        attributes, cluster, size = file_attributes(node.permissions), _first(runs), node.content.size

        def make(short: bytes, case: int) -> bytes:
            return short_entry(short, case, attributes, node.mtime_ns, cluster, size)

        return self._add_or_free(folder, text, make, runs, directory=False)

    def _create_directory(self, folder: Folder, text: str, node: Directory) -> int:
        runs = self._allocate(1)
        cluster, size = runs[0].start, self._geometry.cluster_size
        start = self._geometry.cluster_start(cluster)

        def make(short: bytes, case: int) -> bytes:
            return short_entry(short, case, layout.DIRECTORY, node.mtime_ns, cluster, 0)

        data = make(DOT, 0)
        data += short_entry(DOT_DOT, 0, layout.DIRECTORY, node.mtime_ns, self._as_parent(folder), 0)
        try:
            self._device.write(start, data.ljust(size, b"\0"))
        except BaseException:
            self._table.free(runs)
            raise
        inode = self._add_or_free(folder, text, make, runs, directory=True)
        self._files.hold(Folder(cluster, [(start, size)], data, is_new=True))
        return inode

    def _add_or_free(
        self, folder: Folder, text: str, make: Callable[[bytes, int], bytes], runs: Sequence[Run], *, directory: bool
    ) -> int:
        """Add an entry for clusters that were taken, or give them back."""
        try:
            return folder.inode(self._add(folder, text, make, directory=directory).slot)
        except BaseException:
            self._table.free(runs)
            raise

    def _as_parent(self, folder: Folder) -> int:
        """Return what ``..`` says in a directory below one."""
        return 0 if folder.cluster == self._geometry.root_cluster else folder.cluster

    def _supplant(self, parent: int, name: bytes, inode: int, node: Node) -> int:
        if not isinstance(node, File):
            raise unsupported(name)
        check_content(name, node.content)
        entry = self._files.entry(inode)
        old = self._chain(entry)
        runs = self._store(node.content)
        cluster, size = _first(runs), node.content.size
        raw = short_entry(
            entry.dir_name, entry.dir_ntres, file_attributes(node.permissions), node.mtime_ns, cluster, size
        )
        self._change_entry(inode, layout.DirEntry.parse(raw))
        self._table.free(old)
        return inode

    def _unlink(self, parent: int, name: bytes, inode: int) -> None:
        folder = self._files.folder(parent)
        _, item = self._item(folder, name, inode)
        entry = self._files.entry(inode)
        runs = self._chain(entry)
        self._erase(folder, item)
        self._release(entry, runs)

    def _release(self, entry: layout.DirEntry, runs: Sequence[Run]) -> None:
        """Give back what an entry had that is no more."""
        if entry.dir_attr & layout.DIRECTORY:
            self._files.drop(self._files.first_cluster(entry))
            for run in runs:  # what goes with its directory need not be changed before
                start = self._geometry.cluster_start(run.start)
                self._pending.forget(start, run.length * self._geometry.cluster_size)
        self._table.free(runs)

    # -- contents --------------------------------------------------------------------------------------------

    def _replace(self, inode: int, content: Content) -> None:
        check_content(b"", content)
        entry = self._files.entry(inode)
        old = self._chain(entry)
        runs = self._store(content)
        changed = self._chained(entry, _first(runs), content.size)
        self._change_entry(inode, changed.replace(dir_attr=entry.dir_attr | layout.ARCHIVE))
        self._table.free(old)

    def _write_at(self, inode: int, offset: int, content: Content) -> None:
        if content.size:
            self._patch_file(inode, offset, content, offset + content.size)

    def _truncate(self, inode: int, size: int) -> None:
        entry = self._files.entry(inode)
        if size > entry.dir_file_size:
            self._patch_file(inode, entry.dir_file_size, EMPTY, size)
        elif size < entry.dir_file_size:
            self._shorten(inode, entry, size)

    def _patch_file(self, inode: int, offset: int, part: Content, end: int) -> None:
        """Change a part of a file, which ends at ``end`` or where it did, whatever is more."""
        entry = self._files.entry(inode)
        before = entry.dir_file_size
        if end > layout.MAX_FILE:
            raise UsageError(f"fat: expected a file of at most {layout.MAX_FILE} bytes, found {end}")
        with self._files.open_inode(inode) as old:
            content = Patched(old, part, offset, max(before, end))
            if offset < before or not self._extend(inode, content):
                self._replace(inode, content)

    def _extend(self, inode: int, content: Content) -> bool:
        """Let a file become longer where it lies; False where that cannot be one change."""
        if inode in self._shrunk:
            self._commit_before("a file that is cut must be so before it grows again")
        entry = self._files.entry(inode)
        size, before = self._geometry.cluster_size, entry.dir_file_size
        have = ceil_div(before, size)
        last = _last(self._table.runs(self._files.first_cluster(entry), have, whole=False)) if have else 0
        if not have or self._table.get(last) < self._table.eoc or self._straddles(last):
            return False
        more = ceil_div(content.size, size) - have
        runs = self._allocate(more) if more else []
        skip = before // size * size
        try:
            self._bodies.write([Run(last, 1), *runs] if before % size else runs, content, skip=skip)
        except BaseException:
            self._table.free(runs)
            raise
        if runs:
            self._table.link(last, runs[0].start)
        changed = entry.replace(dir_file_size=content.size, dir_attr=entry.dir_attr | layout.ARCHIVE)
        self._change_entry(inode, changed)
        return True

    def _straddles(self, cluster: int) -> bool:
        """Whether an entry of 12 bits lies in two sectors, so that it cannot be changed at once."""
        sector = self._geometry.sector_size
        return self._geometry.bits == 12 and cluster * 3 // 2 % sector == sector - 1

    def _shorten(self, inode: int, entry: layout.DirEntry, size: int) -> None:
        runs = self._chain(entry)
        keep = ceil_div(size, self._geometry.cluster_size)
        kept, rest = _split(runs, keep)
        if sum(run.length for run in kept) < keep:
            raise Corrupt(f"fat: {entry.dir_name!r}: expected {keep} clusters or more, found fewer")
        if keep and self._straddles(_last(kept)):
            with self._files.open_inode(inode) as old:
                self._replace(inode, Patched(old, EMPTY, size, size))
            return
        changed = self._chained(entry, _first(kept), size)
        self._change_entry(inode, changed.replace(dir_attr=entry.dir_attr | layout.ARCHIVE))
        if kept and rest:
            self._table.cut(_last(kept))
        self._table.free(rest)
        self._shrunk.add(inode)

    # -- names -----------------------------------------------------------------------------------------------

    def _link(self, parent: int, name: bytes, inode: int) -> None:
        raise UsageError("fat: a file has one name only: FAT has no links")

    def _rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        folder, new_folder = self._files.folder(parent), self._files.folder(new_parent)
        inode, item = self._item(folder, name)
        same = folder is new_folder
        if not same or new_folder.find(new_name) != inode:
            text = self._need_name(new_folder, new_name)
        else:
            text = check_name(new_name, new_name)
        entry = self._files.entry(inode)
        if same and self._rename_within_sector(folder, item, text, entry):
            return
        moved, copied = self._to_move(folder, item, entry)

        def make(short: bytes, case: int) -> bytes:
            return moved.replace(dir_name=short, dir_ntres=case).pack()

        self._add_or_free(new_folder, text, make, copied, directory=item.directory)
        self._erase(folder, item)
        self._leave_old(folder, new_folder, item, entry, copied)

    def _leave_old(
        self, folder: Folder, new_folder: Folder, item: Item, entry: layout.DirEntry, copied: list[Run]
    ) -> None:
        """Finish a move: what was copied goes, and ``..`` says where the directory is."""
        if copied:
            self._table.free(self._chain(entry))
        if item.directory and folder is not new_folder:
            self._set_dot_dot(self._files.first_cluster(entry), new_folder)

    def _to_move(self, folder: Folder, item: Item, entry: layout.DirEntry) -> tuple[layout.DirEntry, list[Run]]:
        """Return the entry under another name, and the clusters that its content was copied to, if it was.

        Between the writing of the new entry and the removal of the old one both are there. A file gets clusters of
        its own for that long: two entries of one chain fsck.fat would part by emptying one of them. A directory
        cannot, nor can a file where there is no room.
        """
        fresh = folder.is_new or item.slot in folder.born
        if fresh or item.directory or not entry.dir_file_size:
            return entry, []
        inode = folder.inode(item.slot)
        with self._files.open_inode(inode) as body:
            try:
                runs = self._store(Patched(body, EMPTY, body.size, body.size))
            except NoSpace:
                return entry, []
        return self._chained(entry, _first(runs), entry.dir_file_size), runs

    def _rename_within_sector(self, folder: Folder, item: Item, text: str, entry: layout.DirEntry) -> bool:
        """Give an entry another name in the sector where it lies, in one write; False where there is no room."""
        size = self._geometry.sector_size
        sector = folder.position(item.slot) // size
        places = _places(folder, item.slot, sector, size)
        name = folder.name_for(text, instead=item)
        first = folder.room_within(places, name.entries, item)
        if first is None:
            folder.shorts.taken.discard(name.short)
            folder.shorts.add(item.short)
            return False
        fresh = folder.is_new or item.slot in folder.born
        step = Step.PREPARE if folder.is_new else Step.SWITCH
        for slot in item.slots:
            late = slot not in places and not fresh
            self._pending.put(folder.position(slot), _DELETED, Step.CLEAN_UP if late else step)
        kept = range(first, first + name.entries)
        folder.leave(item, at_once=fresh, kept=kept, short=name.short)
        renamed = folder.enter(text, name, first, directory=item.directory)
        if fresh:
            folder.born.add(renamed.slot)
        self._put_slots(
            folder, first, long_entries(name) + entry.replace(dir_name=name.short, dir_ntres=name.case).pack()
        )
        return True

    def _rename_over(self, parent: int, name: bytes, new_parent: int, new_name: bytes, target: int) -> None:
        folder, new_folder = self._files.folder(parent), self._files.folder(new_parent)
        inode, item = self._item(folder, name)
        entry, there = self._files.entry(inode), self._files.entry(target)
        old = self._chain(there)
        size = self._geometry.sector_size
        at_once = inode * SIZE // size == target * SIZE // size
        moved, copied = (entry, []) if at_once else self._to_move(folder, item, entry)
        self._change_entry(target, moved.replace(dir_name=there.dir_name, dir_ntres=there.dir_ntres))
        self._erase(folder, item, Step.SWITCH if at_once else Step.REMOVE)
        self._leave_old(folder, new_folder, item, entry, copied)
        self._release(there, old)

    def _set_dot_dot(self, cluster: int, parent: Folder) -> None:
        """Have a directory's ``..`` name its parent."""
        position = self._geometry.cluster_start(cluster) + SIZE
        entry = layout.DirEntry.parse(self._files.bytes_at(position, SIZE))
        if entry.dir_name != DOT_DOT:
            raise Corrupt(f"fat: expected '..' as the second entry, found {entry.dir_name!r}", offset=position)
        step = Step.PREPARE if self._table.is_new(cluster) else Step.SWITCH
        self._pending.put(position, self._chained(entry, self._as_parent(parent), 0).pack(), step)

    # -- metadata --------------------------------------------------------------------------------------------

    def _set_attributes(self, inode: int, attributes: Attributes) -> None:
        if attributes.uid is not None or attributes.gid is not None:
            raise UsageError("fat: has no owners and no groups")
        if attributes.immutable is not None:
            raise UsageError("fat: has no immutable flag; read-only is bit 1 of the DOS attributes")
        entry = self._files.entry(inode)
        flags = self._flags(entry, attributes)
        changed = entry.replace(dir_attr=flags)
        if attributes.mtime_ns is not None:
            date, time = layout.encode_time(attributes.mtime_ns // 10**9)
            changed = changed.replace(dir_wrt_date=date, dir_wrt_time=time)
        if attributes.atime_ns is not None:
            changed = changed.replace(dir_lst_acc_date=layout.encode_time(attributes.atime_ns // 10**9)[0])
        if changed != entry:
            self._change_entry(inode, changed)

    def _flags(self, entry: layout.DirEntry, attributes: Attributes) -> int:
        """Return an entry's attribute bits with the changes. Of permissions only a file's read-only bit is kept."""
        flags = entry.dir_attr
        if attributes.dos is not None:
            if attributes.dos & ~_DOS:
                raise UsageError(f"fat: expected DOS attributes within {_DOS:#x}, found {attributes.dos:#x}")
            flags = flags & ~_DOS | attributes.dos
        if attributes.permissions is not None and not flags & layout.DIRECTORY:
            read_only = 0 if attributes.permissions & 0o222 else layout.READ_ONLY
            flags = flags & ~layout.READ_ONLY | read_only
        return flags

    def _set_metadata(self, inode: int, node: Node) -> None:
        """Give a directory the node's time; of the rest FAT keeps nothing, and the root not even that."""
        if inode != ROOT_INODE:
            self._set_attributes(inode, Attributes(mtime_ns=node.mtime_ns))

    def _set_xattr(self, inode: int, name: bytes, value: bytes | None) -> None:
        raise UsageError("fat: has no extended attributes")

    def _set_label(self, label: str) -> None:
        stored = FatOptions(label=label).label_bytes
        folder = self._files.folder(ROOT_INODE)
        slot = folder.label
        if stored:
            if slot is None:
                slot = folder.label = self._room(folder, 1)
                folder.used[slot] = 1
                self._put_slots(folder, slot, short_entry(stored, 0, layout.VOLUME, 0, 0, 0))
            else:
                raw = self._files.bytes_at(folder.position(slot), SIZE)
                self._put_slots(folder, slot, stored + raw[len(stored) :])
        elif slot is not None:
            self._pending.put(folder.position(slot), _DELETED, Step.SWITCH)
            folder.used[slot] = 0
            folder.label = None
        folder.touched = True
        self._state.put_label(self._pending, stored or NO_NAME)
        self._files.label = stored.decode("ascii").rstrip(" ")


def _places(folder: Folder, slot: int, sector: int, size: int) -> range:
    """Return the places that lie in a sector of a directory, one of which is ``slot``."""
    first = last = slot
    while first > 0 and folder.position(first - 1) // size == sector:
        first -= 1
    while last + 1 < folder.count and folder.position(last + 1) // size == sector:
        last += 1
    return range(first, last + 1)


def _first(runs: Sequence[Run]) -> int:
    return runs[0].start if runs else 0


def _last(runs: Sequence[Run]) -> int:
    return runs[-1].start + runs[-1].length - 1


def _split(runs: Sequence[Run], count: int) -> tuple[list[Run], list[Run]]:
    """Return the runs of the first ``count`` clusters, and of the others."""
    kept: list[Run] = []
    rest: list[Run] = []
    for run in runs:
        part = min(run.length, count)
        if part:
            kept.append(Run(run.start, part))
        if part < run.length:
            rest.append(Run(run.start + part, run.length - part))
        count -= part
    return kept, rest
