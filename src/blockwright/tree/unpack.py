"""A tree grown entry by entry, as an unpacker grows a directory, without a directory.

A later entry replaces an earlier one of its name; a directory entry over a directory changes its metadata. What
stands before the last component is made where it is missing, and found through the tree's own symbolic links,
which end at the tree's root whatever they say. The last component is never followed.

Knows: names, and what may replace what. Refuses to know: archives, contents, and the host's file system: no path of
the host is ever made from an entry's name.
"""

from __future__ import annotations

from typing import Final

from blockwright.errors import ArchiveRejected, Rejection
from blockwright.tree.node import MAX_NAME, MAX_SYMLINKS, Directory, Node, Symlink
from blockwright.tree.rules import DEFAULT_RULES, ArchiveRules

MAX_TARGET: Final = 4095
"""Bytes in a symbolic link's target: Linux's PATH_MAX without the NUL."""
MAX_STEPS: Final = 4096
"""Components looked up to find one directory, those of links included."""

_CACHED_PARENTS: Final = 1 << 16
_CACHED_PATH: Final = 4096


class Unpacker:
    """A tree under construction. ``root`` is it, at any time.

    Names are as archives have them: leading and doubled slashes and ``.`` mean nothing, ``..`` is refused. Every
    method raises ArchiveRejected for a name that stands against what was entered before, and for one over ``rules``.
    ``replaced`` counts the names that a later entry took from an earlier one. With ``replace_directories``, as layers
    need it, another type takes a directory's place though it holds something.
    """

    def __init__(self, rules: ArchiveRules = DEFAULT_RULES, *, replace_directories: bool = False) -> None:
        self.root = Directory()
        self.replaced = 0
        self._rules = rules
        self._replace_directories = replace_directories
        self._max_path = rules.path
        self._named_root = False
        self._count = 0
        # From the text before a last slash to its directory; emptied when a name may come to mean another.
        self._parents: dict[bytes, Directory] = {b"": self.root}

    def enter(self, path: bytes, node: Node) -> None:
        """Put ``node`` at ``path``. A directory is merged with one that is there; the root can only be a directory.

        A directory that holds something is not replaced by anything else.
        """
        directory, name = self._find(path, node.mtime_ns)
        if not name:
            self._enter_root(path, node)
            return
        entries = directory.entries
        there = entries.get(name)
        if there is None:
            self._count_one()
        elif isinstance(there, Directory):
            if isinstance(node, Directory):
                _copy_metadata(node, there)
                return
            if there.entries and not self._replace_directories:
                raise ArchiveRejected(
                    Rejection.PLACE,
                    f"{show(path)}: expected a directory, since it holds something, found another type",
                )
            self.forget()
            self.replaced += 1
        else:
            if isinstance(there, Symlink):
                self.forget()
            if there is not node:
                self.replaced += 1
        entries[name] = node

    def link(self, path: bytes, target: bytes) -> None:
        """Put the node that ``target`` stands for now at ``path`` too; of a symbolic link the link itself."""
        directory, name = self._find(target, None)
        node = directory.entries.get(name) if name else self.root
        if node is None:
            raise ArchiveRejected(
                Rejection.LINK, f"{show(path)}: hard link: expected an earlier entry {show(target)}, found none"
            )
        if isinstance(node, Directory):
            raise ArchiveRejected(
                Rejection.LINK, f"{show(path)}: hard link: expected no directory, found one at {show(target)}"
            )
        self.enter(path, node)

    def find(self, path: bytes) -> tuple[Directory, bytes]:
        """Return the directory and the name that an entry of this path has been given."""
        return self._find(path, None)

    def _find(self, path: bytes, mtime_ns: int | None) -> tuple[Directory, bytes]:
        """Return the directory that ``path`` lies in, and its last component; an empty one for the root.

        Directories that are missing are made with the time ``mtime_ns``; without one their lack is Corrupt.
        """
        if len(path) > self._max_path:
            raise ArchiveRejected(Rejection.NAME, f"name: expected at most {self._max_path} bytes, found {len(path)}")
        head, _, name = path.rpartition(b"/")
        if name in (b"", b".", b".."):
            head, name = _split(path)
        if len(name) > MAX_NAME:
            raise ArchiveRejected(
                Rejection.NAME, f"{show(path)}: name: expected at most {MAX_NAME} bytes, found {len(name)}"
            )
        directory = self._parents.get(head)
        if directory is None:
            directory = self._walk(head, mtime_ns)
            if len(head) <= _CACHED_PATH:
                if len(self._parents) >= _CACHED_PARENTS:
                    self.forget()
                self._parents[head] = directory
        return directory, name

    def _walk(self, path: bytes, mtime_ns: int | None) -> Directory:
        """Return the directory that ``path`` stands for, through links."""
        trail = [self.root]
        parts = path.split(b"/")
        if b".." in parts:
            raise ArchiveRejected(Rejection.NAME, f"{show(path)}: expected no '..' in a name, found one")
        parts.reverse()
        steps = links = 0
        while parts:
            part = parts.pop()
            if part in (b"", b"."):
                continue
            steps += 1
            if part == b"..":  # of a link's target; the root is its own parent
                if len(trail) > 1:
                    trail.pop()
                continue
            node = trail[-1].entries.get(part)
            if node is None:
                node = self._imply(path, trail[-1], part, mtime_ns)
            if isinstance(node, Symlink):
                links += 1
                if node.target.startswith(b"/"):
                    del trail[1:]
                parts += reversed(node.target.split(b"/"))
            elif isinstance(node, Directory):
                trail.append(node)
            else:
                raise ArchiveRejected(
                    Rejection.PLACE, f"{show(path)}: expected directories, found another type at {show(part)}"
                )
            if links > MAX_SYMLINKS:
                raise ArchiveRejected(
                    Rejection.LINK,
                    f"{show(path)}: expected at most {MAX_SYMLINKS} symbolic links on the way, found more",
                )
            if len(trail) > self._rules.depth or steps > MAX_STEPS:
                raise ArchiveRejected(
                    Rejection.DEPTH, f"{show(path)}: expected at most {self._rules.depth} directories, found more"
                )
        return trail[-1]

    def _imply(self, path: bytes, directory: Directory, name: bytes, mtime_ns: int | None) -> Directory:
        """Make a directory that no entry has named yet: root's, 0755, with the time of the entry that needs it."""
        if mtime_ns is None:
            raise ArchiveRejected(
                Rejection.LINK, f"{show(path)}: hard link: expected an earlier entry of this name, found none"
            )
        if len(name) > MAX_NAME:
            raise ArchiveRejected(
                Rejection.NAME, f"{show(path)}: name: expected at most {MAX_NAME} bytes, found {len(name)}"
            )
        self._count_one()
        made = directory.entries[name] = Directory(mtime_ns=mtime_ns)
        return made

    def _enter_root(self, path: bytes, node: Node) -> None:
        if not isinstance(node, Directory):
            raise ArchiveRejected(
                Rejection.PLACE, f"{show(path)}: expected the root to be a directory, found another type"
            )
        _copy_metadata(node, self.root)
        self._named_root = True

    def finish(self, mtime_ns: int) -> Directory:
        """Return the tree. A root that no entry named is made 0755, root's, with the time ``mtime_ns``."""
        if not self._named_root:
            self.root.mtime_ns = mtime_ns
        return self.root

    def _count_one(self) -> None:
        self._count += 1
        if self._count > self._rules.entries:
            raise ArchiveRejected(
                Rejection.ENTRIES, f"tree: expected at most {self._rules.entries} names, found more"
            )

    def forget(self) -> None:
        """Look every directory up anew: who changed the tree says so."""
        self._parents.clear()
        self._parents[b""] = self.root


def _split(path: bytes) -> tuple[bytes, bytes]:
    """Return what stands before the last component that means something, and that component."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ArchiveRejected(Rejection.NAME, f"{show(path)}: expected no '..' in a name, found one")
    return b"/".join(parts[:-1]), parts[-1] if parts else b""


def _copy_metadata(source: Directory, target: Directory) -> None:
    target.permissions = source.permissions
    target.uid = source.uid
    target.gid = source.gid
    target.mtime_ns = source.mtime_ns
    target.xattrs = source.xattrs


def show(name: bytes) -> str:
    """Return a name for a message: printable, and not too long."""
    text = ascii(name.decode("utf-8", "surrogateescape"))[1:-1]
    return text if len(text) <= 200 else f"{text[:97]}...{text[-97:]}"
