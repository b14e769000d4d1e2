"""The part of a system's tree that tells how it starts, from its file system: kernels, RAM disks, its name.

Knows: which directories these are. Refuses to know: what is found there (``kernel``).
"""

from __future__ import annotations

import stat
from typing import Final

from blockwright.boot.shelf import Shelf
from blockwright.errors import LimitExceeded, NotFound, UsageError
from blockwright.fs.reader import FileSystem
from blockwright.tree.content import Content
from blockwright.tree.node import Directory, File, Node, Symlink

MAX_ENTRIES: Final = 65536
"""Names in one of the directories at the most."""
_DEPTHS: Final = {(b"boot",): 0, (b"etc",): 0, (b"lib", b"modules"): 1, (b"usr", b"lib", b"modules"): 1}
"""Directories that are read, and how many levels below each are."""


class InodeContent(Content):
    """A regular file of a file system that outlives it."""

    __slots__ = ("_files", "_inode")

    def __init__(self, files: FileSystem, inode: int, size: int) -> None:
        super().__init__(size)
        self._files = files
        self._inode = inode

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Read from the file system."""
        with self._files.open_inode(self._inode) as file:
            file.read_into(offset, buffer)


def system_tree(files: FileSystem) -> Directory:
    """Return the top directory, with those below it that kernels are looked for in, and nothing else.

    Contents are of the file system, which must stay open. Raises FormatError.
    """
    root = _directory(files, files.root_inode)
    for path, depth in _DEPTHS.items():
        _grow(files, root, files.root_inode, path, depth)
    return root


def system_shelf(files: FileSystem, name: str) -> Shelf:
    """Return the system itself as a place where loaders are installed."""

    def read(path: str) -> Content | None:
        try:
            inode = files.resolve(path.encode())
        except (NotFound, UsageError):
            return None
        found = files.stat_inode(inode)
        return InodeContent(files, inode, found.size) if found.kind == stat.S_IFREG else None

    return Shelf(name, read)


def _grow(files: FileSystem, parent: Directory, inode: int, path: tuple[bytes, ...], depth: int) -> None:
    """Read the directory at ``path`` below one that is read, and so many levels of what is in it."""
    for name in path:
        child, below = parent.entries.get(name), files.find(inode, name)
        if not isinstance(child, Directory) or below is None:
            return
        if not child.entries:
            child.entries = _directory(files, below).entries
        parent, inode = child, below
    if not depth:
        return
    for name, node in list(parent.entries.items()):
        if isinstance(node, Directory):
            _grow(files, parent, inode, (name,), depth - 1)


def _directory(files: FileSystem, inode: int) -> Directory:
    """Return a directory with its files and links; the directories in it are empty."""
    entries: dict[bytes, Node] = {}
    for entry in files.entries(inode):
        if len(entries) >= MAX_ENTRIES:
            raise LimitExceeded(f"directory: expected at most {MAX_ENTRIES} names where kernels are looked for")
        if entry.kind == stat.S_IFDIR:
            entries[entry.name] = Directory()
        elif entry.kind == stat.S_IFLNK:
            entries[entry.name] = Symlink(files.link_target(entry.inode))
        elif entry.kind == stat.S_IFREG:
            entries[entry.name] = File(content=InodeContent(files, entry.inode, files.stat_inode(entry.inode).size))
    return Directory(entries=entries)
