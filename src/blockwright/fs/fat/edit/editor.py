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
from blockwright.errors import Corrupt, NoSpace, ReadOnly, Unsupported, UsageError
from blockwright.fs.editor import DEFAULT_POLICY, Attributes, CommitPolicy, Editor
from blockwright.fs.fat import layout
from blockwright.fs.fat.allocation import Run
from blockwright.fs.fat.boot import NO_NAME
from blockwright.fs.fat.edit.bodies import Patched
from blockwright.fs.fat.edit.contents import Contents, chained, first_of
from blockwright.fs.fat.edit.folder import SIZE, Folder, Item
from blockwright.fs.fat.edit.pending import Step
from blockwright.fs.fat.edit.session import Session
from blockwright.fs.fat.edit.slots import DELETED, Slots
from blockwright.fs.fat.entries import DOT, DOT_DOT, file_attributes, short_entry
from blockwright.fs.fat.names import check_name, long_entries
from blockwright.fs.fat.options import FatOptions
from blockwright.fs.fat.plan import check_content, unsupported
from blockwright.fs.fat.read import ROOT_INODE
from blockwright.fs.fat.volume import Volume, read_volume
from blockwright.fs.reader import FileSystem
from blockwright.tree.content import EMPTY, Content
from blockwright.tree.node import Directory, File, Node

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
        self._session = session = Session(device, volume, policy)
        self._device = session.device
        self._geometry = session.geometry
        self._table = session.table
        self._pending = session.pending
        self._files = session.files
        self._slots = Slots(session)
        self._contents = Contents(session)

    @property
    def files(self) -> FileSystem:
        return self._files

    def check_name(self, name: bytes) -> None:
        check_name(name, name)

    def commit(self) -> None:
        self._session.commit()

    def _step(self) -> None:
        self._session.step()

    def close(self) -> None:
        self._session.close()

    def _replace(self, inode: int, content: Content) -> None:
        self._contents.replace(inode, content)

    # -- files and directories -------------------------------------------------------------------------------

    def _create(self, parent: int, name: bytes, node: Node) -> int:
        folder = self._files.folder(parent)
        if isinstance(node, Directory):
            return self._create_directory(folder, self._slots.need_name(folder, name), node)
        if not isinstance(node, File):
            raise unsupported(name)
        check_content(name, node.content)
        text = self._slots.need_name(folder, name)
        runs = self._session.store(node.content)
        attributes, cluster, size = file_attributes(node.permissions), first_of(runs), node.content.size

        def make(short: bytes, case: int) -> bytes:
            return short_entry(short, case, attributes, node.mtime_ns, cluster, size)

        return self._add_or_free(folder, text, make, runs, directory=False)

    def _create_directory(self, folder: Folder, text: str, node: Directory) -> int:
        runs = self._session.allocate(1)
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
            return folder.inode(self._slots.add(folder, text, make, directory=directory).slot)
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
        old = self._session.chain(entry)
        runs = self._session.store(node.content)
        cluster, size = first_of(runs), node.content.size
        raw = short_entry(
            entry.dir_name, entry.dir_ntres, file_attributes(node.permissions), node.mtime_ns, cluster, size
        )
        self._session.change_entry(inode, layout.DirEntry.parse(raw))
        self._table.free(old)
        return inode

    def _unlink(self, parent: int, name: bytes, inode: int) -> None:
        folder = self._files.folder(parent)
        _, item = self._slots.item(folder, name, inode)
        entry = self._files.entry(inode)
        runs = self._session.chain(entry)
        self._slots.erase(folder, item)
        self._release(entry, runs)

    def _release(self, entry: layout.DirEntry, runs: Sequence[Run]) -> None:
        """Give back what an entry had that is no more."""
        if entry.dir_attr & layout.DIRECTORY:
            self._files.drop(self._files.first_cluster(entry))
            for run in runs:  # what goes with its directory need not be changed before
                start = self._geometry.cluster_start(run.start)
                self._pending.forget(start, run.length * self._geometry.cluster_size)
        self._table.free(runs)

    def _write_at(self, inode: int, offset: int, content: Content) -> None:
        if content.size:
            self._contents.patch(inode, offset, content, offset + content.size)

    def _truncate(self, inode: int, size: int) -> None:
        entry = self._files.entry(inode)
        if size > entry.dir_file_size:
            self._contents.patch(inode, entry.dir_file_size, EMPTY, size)
        elif size < entry.dir_file_size:
            self._contents.shorten(inode, entry, size)

    # -- names -----------------------------------------------------------------------------------------------

    def _link(self, parent: int, name: bytes, inode: int) -> None:
        raise UsageError("fat: a file has one name only: FAT has no links")

    def _rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        folder, new_folder = self._files.folder(parent), self._files.folder(new_parent)
        inode, item = self._slots.item(folder, name)
        same = folder is new_folder
        if not same or new_folder.find(new_name) != inode:
            text = self._slots.need_name(new_folder, new_name)
        else:
            text = check_name(new_name, new_name)
        entry = self._files.entry(inode)
        if same and self._rename_within_sector(folder, item, text, entry):
            return
        self._check_moved(item, entry, away=not same)
        moved, copied = self._to_move(folder, item, entry)

        def make(short: bytes, case: int) -> bytes:
            return moved.replace(dir_name=short, dir_ntres=case).pack()

        self._add_or_free(new_folder, text, make, copied, directory=item.directory)
        self._slots.erase(folder, item)
        self._leave_old(folder, new_folder, item, entry, copied)

    def _check_moved(self, item: Item, entry: layout.DirEntry, *, away: bool) -> None:
        """Raise Corrupt for what ``_leave_old`` could not finish, while nothing is changed."""
        if not item.directory:
            self._session.chain(entry)
        elif away:
            self._dot_dot(self._files.first_cluster(entry))

    def _leave_old(
        self, folder: Folder, new_folder: Folder, item: Item, entry: layout.DirEntry, copied: list[Run]
    ) -> None:
        """Finish a move: what was copied goes, and ``..`` says where the directory is."""
        if copied:
            self._table.free(self._session.chain(entry))
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
                runs = self._session.store(Patched(body, EMPTY, body.size, body.size))
            except NoSpace:
                return entry, []
        return chained(entry, first_of(runs), entry.dir_file_size), runs

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
            self._pending.put(folder.position(slot), DELETED, Step.CLEAN_UP if late else step)
        kept = range(first, first + name.entries)
        folder.leave(item, at_once=fresh, kept=kept, short=name.short)
        renamed = folder.enter(text, name, first, directory=item.directory)
        if fresh:
            folder.born.add(renamed.slot)
        self._slots.put(
            folder, first, long_entries(name) + entry.replace(dir_name=name.short, dir_ntres=name.case).pack()
        )
        return True

    def _rename_over(self, parent: int, name: bytes, new_parent: int, new_name: bytes, target: int) -> None:
        folder, new_folder = self._files.folder(parent), self._files.folder(new_parent)
        inode, item = self._slots.item(folder, name)
        entry, there = self._files.entry(inode), self._files.entry(target)
        old = self._session.chain(there)
        self._check_moved(item, entry, away=folder is not new_folder)
        size = self._geometry.sector_size
        at_once = inode * SIZE // size == target * SIZE // size
        moved, copied = (entry, []) if at_once else self._to_move(folder, item, entry)
        self._session.change_entry(target, moved.replace(dir_name=there.dir_name, dir_ntres=there.dir_ntres))
        self._slots.erase(folder, item, Step.SWITCH if at_once else Step.REMOVE)
        self._leave_old(folder, new_folder, item, entry, copied)
        self._release(there, old)

    def _set_dot_dot(self, cluster: int, parent: Folder) -> None:
        """Have a directory's ``..`` name its parent."""
        position, entry = self._dot_dot(cluster)
        step = Step.PREPARE if self._table.is_new(cluster) else Step.SWITCH
        self._pending.put(position, chained(entry, self._as_parent(parent), 0).pack(), step)

    def _dot_dot(self, cluster: int) -> tuple[int, layout.DirEntry]:
        """Return where a directory's ``..`` lies, and the entry. Raises Corrupt where it is none."""
        position = self._geometry.cluster_start(cluster) + SIZE
        entry = layout.DirEntry.parse(self._files.bytes_at(position, SIZE))
        if entry.dir_name != DOT_DOT:
            raise Corrupt(f"fat: expected '..' as the second entry, found {entry.dir_name!r}", offset=position)
        return position, entry

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
            self._session.change_entry(inode, changed)

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
                slot = folder.label = self._slots.room(folder, 1)
                folder.used[slot] = 1
                self._slots.put(folder, slot, short_entry(stored, 0, layout.VOLUME, 0, 0, 0))
            else:
                raw = self._files.bytes_at(folder.position(slot), SIZE)
                self._slots.put(folder, slot, stored + raw[len(stored) :])
        elif slot is not None:
            self._pending.put(folder.position(slot), DELETED, Step.SWITCH)
            folder.used[slot] = 0
            folder.label = None
        folder.touched = True
        self._session.state.put_label(self._pending, stored or NO_NAME)
        self._files.label = stored.decode("ascii").rstrip(" ")


def _places(folder: Folder, slot: int, sector: int, size: int) -> range:
    """Return the places that lie in a sector of a directory, one of which is ``slot``."""
    first = last = slot
    while first > 0 and folder.position(first - 1) // size == sector:
        first -= 1
    while last + 1 < folder.count and folder.position(last + 1) // size == sector:
        last += 1
    return range(first, last + 1)
