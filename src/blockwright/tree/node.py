"""A file tree as a value, as exact as an inode.

A node that is entered under two names is one object twice: that is a hard link, also for symlinks and
devices. Names and targets are bytes. Times are nanoseconds since 1970; only the modification time is kept,
because reproducible output writes the others as that.

Extended attributes have the names and values that Linux's ``getxattr`` gives, POSIX ACLs
(``system.posix_acl_access``, ``…_default``) in its version 2 encoding; a file system writes them in its own
form.

Knows: what a tree is. Refuses to know: where it came from, and which file system it goes to.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from blockwright.errors import UsageError
from blockwright.tree.content import EMPTY, Content

NO_XATTRS: Final[Mapping[bytes, bytes]] = MappingProxyType({})
"""What a node without extended attributes holds; shared, and read-only."""

MAX_NAME = 255
"""Bytes in a name, as in ext4 and in Linux's NAME_MAX."""
MAX_ID: Final = (1 << 32) - 2
"""The largest user and group; one more stands for none to the kernel."""
MAX_SYMLINKS: Final = 40
"""Links that are followed on the way to a name, as many as Linux does."""


class Node:
    """What every inode has. ``permissions`` are the low 12 bits of the mode; times in nanoseconds."""

    __slots__ = ("gid", "mtime_ns", "permissions", "uid", "xattrs")

    KIND: int = 0

    def __init__(
        self,
        permissions: int,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int = 0,
        xattrs: Mapping[bytes, bytes] = NO_XATTRS,
    ) -> None:
        self.permissions = permissions
        self.uid = uid
        self.gid = gid
        self.mtime_ns = mtime_ns
        self.xattrs = xattrs

    @property
    def kind(self) -> int:
        """The file type as ``stat.S_IFMT`` gives it."""
        return self.KIND

    @property
    def mode(self) -> int:
        """File type and permissions, as ``st_mode``."""
        return self.kind | self.permissions


class Directory(Node):
    """A directory: names to nodes, in no particular order."""

    __slots__ = ("entries",)

    KIND = stat.S_IFDIR

    def __init__(
        self,
        permissions: int = 0o755,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int = 0,
        xattrs: Mapping[bytes, bytes] = NO_XATTRS,
        entries: dict[bytes, Node] | None = None,
    ) -> None:
        super().__init__(permissions, uid, gid, mtime_ns, xattrs)
        self.entries: dict[bytes, Node] = {} if entries is None else entries


class File(Node):
    """A regular file and where its content is."""

    __slots__ = ("content",)

    KIND = stat.S_IFREG

    def __init__(
        self,
        permissions: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int = 0,
        xattrs: Mapping[bytes, bytes] = NO_XATTRS,
        content: Content = EMPTY,
    ) -> None:
        super().__init__(permissions, uid, gid, mtime_ns, xattrs)
        self.content = content


class Symlink(Node):
    """A symbolic link; its target is any bytes but NUL."""

    __slots__ = ("target",)

    KIND = stat.S_IFLNK

    def __init__(
        self,
        target: bytes,
        permissions: int = 0o777,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int = 0,
        xattrs: Mapping[bytes, bytes] = NO_XATTRS,
    ) -> None:
        super().__init__(permissions, uid, gid, mtime_ns, xattrs)
        self.target = target


class Special(Node):
    """A character or block device (with ``major`` and ``minor``), a FIFO or a socket."""

    __slots__ = ("_kind", "major", "minor")

    KINDS: Final = frozenset({stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK})

    def __init__(
        self,
        kind: int,
        permissions: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime_ns: int = 0,
        xattrs: Mapping[bytes, bytes] = NO_XATTRS,
        *,
        major: int = 0,
        minor: int = 0,
    ) -> None:
        if kind not in self.KINDS:
            raise UsageError(f"special node: expected a device, FIFO or socket, found type {kind:#o}")
        super().__init__(permissions, uid, gid, mtime_ns, xattrs)
        self._kind = kind
        self.major = major
        self.minor = minor

    @property
    def kind(self) -> int:
        """The file type as ``stat.S_IFMT`` gives it."""
        return self._kind


def walk(root: Directory) -> Iterator[tuple[bytes, Node]]:
    """Yield every path (``b"usr/bin/env"``; the root is ``b""``) with its node, parents first, names sorted.

    A node with several names is yielded under each. Not recursive, so depth is no limit.
    """
    stack: list[tuple[bytes, Node]] = [(b"", root)]
    while stack:
        path, node = stack.pop()
        yield path, node
        if isinstance(node, Directory):
            prefix = path + b"/" if path else b""
            stack.extend((prefix + name, node.entries[name]) for name in sorted(node.entries, reverse=True))


def newest_time(root: Directory) -> int:
    """Return the newest modification time in the tree, in nanoseconds."""
    newest = root.mtime_ns
    stack = [root]
    while stack:
        nodes = stack.pop().entries.values()
        newest = max([newest, *[node.mtime_ns for node in nodes]])
        stack += [node for node in nodes if isinstance(node, Directory)]
    return newest
