"""Names given to inodes, taken away and moved.

Knows: what a name's coming and going does to directories and link counts. Refuses to know: how either is stored.
"""

from __future__ import annotations

from blockwright.errors import UsageError
from blockwright.fs.ext4.edit.inodes import Draft
from blockwright.fs.ext4.edit.nodes import Nodes, refuse
from blockwright.fs.ext4.edit.parts import Parts
from blockwright.fs.ext4.inode import KINDS, S_IFDIR
from blockwright.fs.ext4.layout import MAX_LINKS, InodeFlag

_FIXED = (InodeFlag.immutable, InodeFlag.append)


class Names:
    """The names of a file system."""

    def __init__(self, parts: Parts, nodes: Nodes) -> None:
        self._parts = parts
        self._nodes = nodes

    def link(self, parent: int, name: bytes, inode: int, now_ns: int) -> None:
        """Give an inode one more name."""
        parts = self._parts
        above = self._nodes.load_directory(parent)
        refuse(above, InodeFlag.immutable, InodeFlag.encrypt)
        draft = parts.inodes.load(inode)
        refuse(draft, *_FIXED)
        if draft.fields.i_links_count >= MAX_LINKS:
            raise UsageError(f"inode {inode}: expected at most {MAX_LINKS} names")
        draft.fields.i_links_count += 1
        draft.set_time("ctime", now_ns)
        parts.inodes.save(draft)
        parts.directories.add(above, name, inode, self._file_type(draft))
        self._nodes.changed(above, now_ns)

    def unlink(self, parent: int, name: bytes, inode: int, now_ns: int) -> None:
        """Take a name away; free what has none left. A directory is empty."""
        parts = self._parts
        above = self._nodes.load_directory(parent)
        refuse(above, *_FIXED, InodeFlag.encrypt)
        draft = parts.inodes.load(inode)
        refuse(draft, *_FIXED)
        parts.directories.remove(above, name)
        if draft.kind == S_IFDIR:
            self._nodes.remove_subdirectory(above)
        self._nodes.changed(above, now_ns)
        if draft.kind == S_IFDIR or draft.fields.i_links_count == 1:
            self._nodes.free(draft, now_ns)
            return
        draft.fields.i_links_count -= 1
        draft.set_time("ctime", now_ns)
        parts.inodes.save(draft)

    def rename(self, old: tuple[int, bytes], new: tuple[int, bytes], now_ns: int) -> None:
        """Move a name from one directory to another, or within one."""
        parts = self._parts
        above = self._nodes.load_directory(old[0])
        below = above if old[0] == new[0] else self._nodes.load_directory(new[0])
        for draft in (above, below):
            refuse(draft, *_FIXED, InodeFlag.encrypt)
        found = parts.find(old[0], old[1])
        if found is None:
            raise UsageError(f"directory {old[0]}: expected the name that is to be moved in it")
        moved = parts.inodes.load(found)
        refuse(moved, *_FIXED)
        parts.directories.remove(above, old[1])
        parts.directories.add(below, new[1], found, self._file_type(moved))
        if moved.kind == S_IFDIR and above is not below:
            self._move_directory(moved, above, below)
        moved.set_time("ctime", now_ns)
        parts.inodes.save(moved)
        self._nodes.changed(above, now_ns)
        if above is not below:
            self._nodes.changed(below, now_ns)

    def _file_type(self, draft: Draft) -> int:
        """Return the file type byte of a name for an inode."""
        if draft.kind not in KINDS[1:]:
            raise self._parts.volume.corrupt(
                f"inode {draft.number}: mode: expected a file type, found {draft.fields.i_mode:#o}", draft.position
            )
        return KINDS.index(draft.kind)

    def _move_directory(self, moved: Draft, above: Draft, below: Draft) -> None:
        self._nodes.remove_subdirectory(above)
        self._nodes.add_subdirectory(below)
        self._parts.directories.set_parent(moved, below.number)
