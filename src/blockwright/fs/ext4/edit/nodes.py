"""Inodes and what they hold: made from nodes of a tree, given other bytes, cut, and freed.

Knows: which parts an inode of each kind has. Refuses to know: names, but for the one a new inode gets.

Source: Linux 6.1, Documentation/filesystems/ext4 (inodes, ifork, inlinedata).
"""

from __future__ import annotations

from typing import Final

from blockwright.errors import UsageError
from blockwright.fs.editor import Attributes
from blockwright.fs.ext4.edit.bodies import Patched
from blockwright.fs.ext4.edit.inodes import Draft
from blockwright.fs.ext4.edit.parts import Parts
from blockwright.fs.ext4.inode import FAST_SYMLINK, KINDS, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG
from blockwright.fs.ext4.layout import MAX_LINKS, InodeFlag, RoCompat
from blockwright.fs.ext4.mapping import Run
from blockwright.fs.ext4.plan_inode import device_number
from blockwright.fs.ext4.xattr_read import inline_tail
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.node import Directory, File, Node, Special, Symlink
from blockwright.units import ceil_div

LARGE_FILE: Final = 1 << 31
"""Bytes from which on a regular file needs large_file."""
_INHERITED: Final = int(
    InodeFlag.secrm
    | InodeFlag.unrm
    | InodeFlag.compr
    | InodeFlag.sync
    | InodeFlag.nodump
    | InodeFlag.noatime
    | InodeFlag.journal_data
    | InodeFlag.notail
    | InodeFlag.dirsync
    | InodeFlag.projinherit
    | InodeFlag.casefold
)
_NOT_FILES: Final = int(InodeFlag.dirsync | InodeFlag.casefold | InodeFlag.projinherit)
_OTHERS: Final = int(InodeFlag.nodump | InodeFlag.noatime)
_REFUSED: Final = (
    (InodeFlag.immutable, "is immutable"),
    (InodeFlag.append, "can only be appended to"),
    (InodeFlag.verity, "has been sealed by fs-verity"),
    (InodeFlag.encrypt, "is encrypted"),
)
_ANY_REFUSED: Final = sum(int(flag) for flag, _ in _REFUSED)


class Nodes:
    """The inodes of a file system as files, directories, links and devices."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._volume = parts.volume
        self._block_size = parts.volume.block_size

    # -- making ----------------------------------------------------------------------------------------------

    def create(self, parent: int, name: bytes, node: Node, now_ns: int) -> int:
        """Make an inode of a node under a free name; return its number. Raises UsageError, NoSpace."""
        parts = self._parts
        directory = isinstance(node, Directory)
        above = self.load_directory(parent)
        refuse(above, InodeFlag.immutable, InodeFlag.encrypt)
        draft = parts.inodes.allocate(parent, directory=directory)
        fields = draft.fields
        fields.i_mode = node.kind | node.permissions & 0o7777
        fields.i_links_count = 2 if directory else 1
        fields.i_flags = inherited(above.flags, node.kind)
        if above.has(InodeFlag.projinherit) and draft.has_field(0xA0) and above.has_field(0xA0):
            fields.i_projid = above.fields.i_projid
        draft.set_owner(node.uid, node.gid)
        for field in ("mtime", "atime"):
            draft.set_time(field, node.mtime_ns)
        for field in ("ctime", "crtime"):
            draft.set_time(field, now_ns)
        self._fill(draft, node, parent)
        parts.attributes.set_all(draft, node.xattrs, now_ns)
        parts.inodes.save(draft)
        if directory:
            self.add_subdirectory(above)
        parts.directories.add(above, name, draft.number, KINDS.index(node.kind))
        self.changed(above, now_ns)
        return draft.number

    def _fill(self, draft: Draft, node: Node, parent: int) -> None:
        parts = self._parts
        if isinstance(node, Directory):
            parts.directories.make(draft, parent)
        elif isinstance(node, File):
            parts.maps.start(draft)
            self._fill_file(draft, node.content)
        elif isinstance(node, Symlink):
            self._fill_link(draft, node.target)
        elif isinstance(node, Special) and node.kind in (S_IFCHR, S_IFBLK):
            if not (0 <= node.major < 1 << 12 and 0 <= node.minor < 1 << 20):
                raise UsageError(f"device: expected numbers below 4096 and 2**20, found {node.major}:{node.minor}")
            draft.fields.i_block = device_number(node.major, node.minor)

    def _fill_file(self, draft: Draft, content: Content) -> None:
        parts = self._parts
        self._check_size(draft, content.size)
        runs = parts.bodies.place(content, self._goal(draft))
        parts.maps.replace(draft, 0, ceil_div(content.size, self._block_size), runs, before=())
        self._set_size(draft, content.size)

    def _fill_link(self, draft: Draft, target: bytes) -> None:
        most = self._block_size - 1
        if not 1 <= len(target) <= most or b"\0" in target:
            raise UsageError(
                f"symbolic link: expected a target of 1 to {most} bytes without NUL, found {len(target)}"
            )
        draft.size = len(target)
        if len(target) < FAST_SYMLINK:
            draft.fields.i_block = target.ljust(60, b"\0")
            return
        parts = self._parts
        parts.maps.start(draft)
        parts.maps.replace(draft, 0, 1, parts.bodies.place_bytes(target, self._goal(draft)), before=())

    # -- contents --------------------------------------------------------------------------------------------

    def replace(self, number: int, content: Content, now_ns: int) -> None:
        """Give a regular file other bytes."""
        parts = self._parts
        draft = self._load_body(number, now_ns)
        self._check_size(draft, content.size)
        before = parts.maps.runs(draft)
        runs = parts.bodies.place(content, self._goal(draft))
        parts.maps.replace(draft, 0, parts.maps.most_blocks(draft) + 1, runs, before=before)
        self._set_size(draft, content.size)
        self.changed(draft, now_ns)

    def write_at(self, number: int, offset: int, content: Content, now_ns: int) -> None:
        """Change part of a regular file, block by block that the part touches."""
        if offset < 0:
            raise UsageError(f"write: expected an offset from 0 on, found {offset}")
        if not content.size:
            return
        parts, size = self._parts, self._block_size
        draft = self._load_body(number, now_ns)
        end = offset + content.size
        self._check_size(draft, end)
        before = parts.maps.runs(draft)
        whole = Patched(max(draft.size, end), parts.bodies.reader(before, draft.size), offset, content)
        low, high = offset // size, ceil_div(end, size)
        if draft.size % size and draft.size // size < low:
            self._clear_tail(draft, before)
            before = parts.maps.runs(draft)
        runs = parts.bodies.place(whole, self._near(before, low, draft), low, high)
        draft.size = max(draft.size, end)
        parts.maps.replace(draft, low, high, runs, before=before)
        self._set_size(draft, draft.size)
        self.changed(draft, now_ns)

    def truncate(self, number: int, length: int, now_ns: int) -> None:
        """Cut a regular file, or let it grow by a hole."""
        if length < 0:
            raise UsageError(f"truncate: expected a size from 0 on, found {length}")
        draft = self._load_body(number, now_ns)
        self._check_size(draft, length)
        if self._parts.defers and length < draft.size:
            self._put_off(draft)
        else:
            self.cut(draft, length)
        self._set_size(draft, length)
        self.changed(draft, now_ns)

    def cut(self, draft: Draft, length: int) -> None:
        """Free what lies behind byte ``length`` of a body, and have zeros in the rest of the block that holds it."""
        parts, size = self._parts, self._block_size
        before = parts.maps.runs(draft)
        if length >= draft.size:
            self._clear_tail(draft, before)
            return
        low = ceil_div(length, size)
        runs: list[Run] = []
        last = _run_at(before, length // size)
        if length % size and last is not None and last.written:
            low = length // size
            kept = Patched(length, parts.bodies.reader(before, length), length, BytesContent(b""))
            runs = parts.bodies.place(kept, self._near(before, low, draft), low, low + 1)
        parts.maps.replace(draft, low, parts.maps.most_blocks(draft) + 1, runs, before=before)

    def trim(self, draft: Draft) -> None:
        """Free what a body has behind its end."""
        parts = self._parts
        if not draft.has(InodeFlag.inline_data):
            before = parts.maps.runs(draft)
            parts.maps.replace(
                draft, ceil_div(draft.size, self._block_size), parts.maps.most_blocks(draft) + 1, (), before=before
            )
            self._clear_tail(draft, parts.maps.runs(draft))

    def cut_piece(self, draft: Draft, most: int) -> bool:
        """Free a part of what an orphan is to lose where it has more than ``most`` runs and groups, and say if so.

        That is everything of one without a name, and what lies behind the end of others.
        """
        if draft.kind != S_IFREG or draft.has(InodeFlag.inline_data):
            return False
        maps, per_group = self._parts.maps, self._volume.geometry.blocks_per_group
        end = ceil_div(draft.size, self._block_size) if draft.fields.i_links_count else 0
        before, weight = maps.runs(draft), 0
        for run in reversed(before):
            if run.logical + run.blocks <= end:
                return False
            weight += 2 + run.blocks // per_group
            if weight > most:
                low = max(end, run.logical, run.logical + run.blocks - max(1, most // 2) * per_group)
                maps.replace(draft, low, maps.most_blocks(draft) + 1, (), before=before)
                return True
        return False

    def _put_off(self, draft: Draft) -> None:
        """Put an inode on the list of orphans, whose next one stands where the time of its deletion is to be."""
        superblock = self._parts.superblock
        draft.fields.i_dtime = superblock.fields.s_last_orphan
        superblock.set(s_last_orphan=draft.number)

    def _clear_tail(self, draft: Draft, before: list[Run]) -> None:
        """Have zeros behind the end of a body in its last block, before the body grows over them."""
        parts, size = self._parts, self._block_size
        low, rest = divmod(draft.size, size)
        run = _run_at(before, low)
        if not rest or run is None or not run.written:
            return
        data = bytearray(size)
        self._volume.read_into((run.physical + low - run.logical) * size, memoryview(data))
        if not any(data[rest:]):
            return
        data[rest:] = bytes(size - rest)
        (new,) = parts.bodies.place_bytes(bytes(data), self._near(before, low, draft))
        parts.maps.replace(draft, low, low + 1, [new._replace(logical=low)], before=before)

    def _load_body(self, number: int, now_ns: int) -> Draft:
        """Return a regular file whose content is in blocks."""
        parts = self._parts
        draft = parts.inodes.load(number)
        if draft.kind != S_IFREG:
            raise UsageError(f"inode {number}: expected a regular file, found mode {draft.fields.i_mode:#o}")
        refuse(draft, *(flag for flag, _ in _REFUSED))
        if draft.has(InodeFlag.inline_data):
            inode = draft.inode()
            data = (inode.block + inline_tail(self._volume, inode))[: inode.size]
            parts.attributes.drop_inline(draft, now_ns)
            draft.fields.i_flags &= ~InodeFlag.inline_data.real
            parts.maps.start(draft)
            self._fill_file(draft, BytesContent(data.ljust(inode.size, b"\0")))
        return draft

    def _check_size(self, draft: Draft, size: int) -> None:
        most = self._parts.maps.most_blocks(draft) * self._block_size
        if size > most:
            raise UsageError(f"file: expected at most {most} bytes, found {size}")

    def _set_size(self, draft: Draft, size: int) -> None:
        draft.size = size
        if size >= LARGE_FILE:
            self._parts.superblock.need(ro_compat=RoCompat.large_file)

    def _goal(self, draft: Draft) -> int:
        return self._parts.space.goal_of(self._parts.inodes.group_of(draft.number))

    def _near(self, runs: list[Run], logical: int, draft: Draft) -> int:
        """Return the block behind what comes before ``logical``, where new ones fit best."""
        before = [run for run in runs if run.logical < logical]
        return before[-1].physical + before[-1].blocks if before else self._goal(draft)

    # -- metadata --------------------------------------------------------------------------------------------

    def set_attributes(self, number: int, attributes: Attributes, now_ns: int) -> None:
        """Change metadata. Raises UsageError for what ext4 does not keep."""
        if attributes.dos is not None:
            raise UsageError("attributes: ext4 has none of DOS")
        draft = self._parts.inodes.load(number)
        if attributes.immutable is None:
            refuse(draft, InodeFlag.immutable, InodeFlag.append)
        else:
            draft.fields.i_flags = (
                draft.flags & ~InodeFlag.immutable.real | InodeFlag.immutable.real * attributes.immutable
            )
        if attributes.permissions is not None:
            permissions = attributes.permissions & 0o7777
            draft.fields.i_mode = draft.kind | permissions
            self._parts.attributes.follow_permissions(draft, permissions, now_ns)
        draft.set_owner(attributes.uid, attributes.gid)
        if attributes.mtime_ns is not None:
            draft.set_time("mtime", attributes.mtime_ns)
        if attributes.atime_ns is not None:
            draft.set_time("atime", attributes.atime_ns)
        draft.set_time("ctime", now_ns)
        self._parts.inodes.save(draft)

    def set_xattr(self, number: int, name: bytes, value: bytes | None, now_ns: int) -> None:
        """Set or remove an extended attribute."""
        draft = self._parts.inodes.load(number)
        refuse(draft, InodeFlag.immutable, InodeFlag.append)
        self._parts.attributes.set(draft, name, value, now_ns)
        draft.set_time("ctime", now_ns)
        self._parts.inodes.save(draft)

    def changed(self, draft: Draft, now_ns: int) -> None:
        """Save an inode whose content is other than before."""
        draft.set_time("mtime", now_ns)
        draft.set_time("ctime", now_ns)
        self._parts.inodes.save(draft)

    # -- links -----------------------------------------------------------------------------------------------

    def load_directory(self, number: int) -> Draft:
        """Return a draft of a directory."""
        draft = self._parts.inodes.load(number)
        if draft.kind != S_IFDIR:
            raise UsageError(f"inode {number}: expected a directory, found mode {draft.fields.i_mode:#o}")
        return draft

    def add_subdirectory(self, draft: Draft) -> None:
        """Count one more ``..`` that stands for a directory, which counts no more where there are too many."""
        fields = draft.fields
        if fields.i_links_count == 1:
            return
        fields.i_links_count += 1
        if fields.i_links_count < MAX_LINKS or (fields.i_links_count == MAX_LINKS and not self._counts_less(draft)):
            return
        if not self._counts_less(draft):
            raise UsageError(f"directory {draft.number}: expected at most {MAX_LINKS - 2} directories in it")
        fields.i_links_count = 1

    def _counts_less(self, draft: Draft) -> bool:
        features = self._parts.superblock.fields.s_feature_ro_compat
        return draft.has(InodeFlag.index) and bool(features & RoCompat.dir_nlink)

    def remove_subdirectory(self, draft: Draft) -> None:
        """Count one ``..`` less."""
        if draft.fields.i_links_count > 2:
            draft.fields.i_links_count -= 1

    def free(self, draft: Draft, now_ns: int) -> None:
        """Free an inode that has no name left, and everything it has."""
        parts = self._parts
        if parts.defers and draft.kind == S_IFREG:
            draft.fields.i_links_count = 0
            self._put_off(draft)
            parts.inodes.save(draft)
            return
        if draft.kind in (S_IFREG, S_IFDIR) or (draft.kind == S_IFLNK and not draft.inode().fast_symlink):
            parts.maps.replace(draft, 0, parts.maps.most_blocks(draft) + 1, ())
        parts.attributes.release(draft, now_ns)
        parts.directories.forget(draft.number)
        parts.inodes.free(draft, now_ns)


def refuse(draft: Draft, *flags: InodeFlag) -> None:
    """Raise UsageError for an inode that has one of the flags."""
    if not draft.fields.i_flags & _ANY_REFUSED:
        return
    for flag, what in _REFUSED:
        if flag in flags and draft.has(flag):
            raise UsageError(f"inode {draft.number}: {what}")


def inherited(flags: int, kind: int) -> int:
    """Return the flags that a new inode takes over from its directory."""
    if kind == S_IFDIR:
        return flags & _INHERITED
    if kind == S_IFREG:
        return flags & _INHERITED & ~_NOT_FILES
    return flags & _INHERITED & _OTHERS


def _run_at(runs: list[Run], logical: int) -> Run | None:
    """Return the run that holds a block of a file."""
    for run in runs:
        if run.logical <= logical < run.logical + run.blocks:
            return run
    return None
