"""What every file system's ``read`` module gives: files by path, read-only, through a device.

Knows: the questions that can be asked of any file system, and path lookup over them.
Refuses to know: how any of them stores the answers.
"""

from __future__ import annotations

import stat as stat_module
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, NotFound, UsageError
from blockwright.tree.node import MAX_SYMLINKS, Directory

MAX_DEPTH = 4096
"""Directories below one another that a path may go through."""


@dataclass(frozen=True, slots=True)
class Stat:
    """An inode's metadata. Times in nanoseconds since 1970, None where the file system does not keep one."""

    inode: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    allocated: int
    mtime_ns: int
    atime_ns: int | None = None
    ctime_ns: int | None = None
    crtime_ns: int | None = None
    major: int = 0
    minor: int = 0

    @property
    def kind(self) -> int:
        """The file type as ``stat.S_IFMT`` gives it."""
        return stat_module.S_IFMT(self.mode)


class Placed(NamedTuple):
    """``length`` bytes of a file from byte ``offset`` on lie from byte ``position`` of the device on."""

    offset: int
    position: int
    length: int


class Entry(NamedTuple):
    """A name in a directory, the inode it stands for, and its type (``S_IFMT`` bits)."""

    name: bytes
    inode: int
    kind: int


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a file system is. Sizes in bytes; inodes are 0 where there are none."""

    size: int
    free: int
    available: int
    block_size: int
    inodes: int = 0
    inodes_free: int = 0


class FileSystem(ABC):
    """A file system opened for reading. Owns the device it was given; closing closes it.

    ``kind`` is its short name (``ext4``, ``fat32``), ``label`` and ``uuid`` its text identities, empty where unset.
    ``features`` are the names it gives its own. Inode numbers are the file system's own where it has them.
    """

    kind: str
    label: str
    uuid: str
    root_inode: int
    features: tuple[str, ...] = ()

    @abstractmethod
    def usage(self) -> Usage:
        """Return how full it is, from its own accounting."""

    @abstractmethod
    def stat_inode(self, inode: int) -> Stat:
        """Return the metadata of an inode. Raises Corrupt for a number that is not in use."""

    @abstractmethod
    def entries(self, inode: int) -> Iterator[Entry]:
        """Yield a directory's names without ``.`` and ``..``, in the order they are stored."""

    @abstractmethod
    def find(self, inode: int, name: bytes) -> int | None:
        """Return the inode that ``name`` stands for in the directory ``inode``, or None."""

    @abstractmethod
    def link_target(self, inode: int) -> bytes:
        """Return where a symbolic link points."""

    @abstractmethod
    def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        """Return the extended attributes, names and values as Linux's getxattr gives them."""

    @abstractmethod
    def open_inode(self, inode: int) -> BlockDevice:
        """Return a regular file's bytes as a read-only device with its holes as extents. The caller closes it."""

    @abstractmethod
    def placement(self, inode: int) -> list[Placed]:
        """Return where a regular file's bytes lie on the device, ascending, whole blocks to the end of the last.

        Holes are left out, and so is a file whose bytes lie within its inode.
        """

    @abstractmethod
    def tree(self) -> Directory:
        """Return everything as a tree value whose contents refer to this file system, which must stay open."""

    @abstractmethod
    def close(self) -> None:
        """Close the device."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- by path ---------------------------------------------------------------------------------------------

    def resolve(self, path: bytes, *, follow: bool = True) -> int:
        """Return the inode that ``path`` stands for, from the root. ``..`` stops at the root.

        ``follow`` says whether a link in the last component is followed; links before it always are.
        Raises NotFound with the component that is missing; UsageError on a NUL or on too many links.
        """
        return self.trail(path, follow=follow)[-1]

    def trail(self, path: bytes, *, follow: bool = True) -> list[int]:
        """Return the inodes from the root to what ``path`` stands for, links gone. Raises as ``resolve`` does."""
        if b"\0" in path:
            raise UsageError("path: expected no NUL byte")
        trail = [self.root_inode]
        parts = path.split(b"/")[::-1]
        links = 0
        while parts:
            part = parts.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            if self.stat_inode(trail[-1]).kind != stat_module.S_IFDIR:
                raise NotFound(f"{show_path(path)}: what stands before {show_path(part)} is no directory")
            inode = self.find(trail[-1], part)
            if inode is None:
                raise NotFound(f"{show_path(path)}: no such file or directory")
            last = not any(rest not in (b"", b".") for rest in parts)
            if self.stat_inode(inode).kind == stat_module.S_IFLNK and (follow or not last):
                links += 1
                if links > MAX_SYMLINKS:
                    raise UsageError(f"{show_path(path)}: expected at most {MAX_SYMLINKS} symbolic links, found more")
                target = self.link_target(inode)
                if target.startswith(b"/"):
                    trail = [self.root_inode]
                parts.extend(target.split(b"/")[::-1])
                continue
            trail.append(inode)
            if len(trail) > MAX_DEPTH:
                raise Corrupt(f"{show_path(path)}: expected at most {MAX_DEPTH} directories, found more")
        return trail

    def stat(self, path: bytes, *, follow: bool = True) -> Stat:
        """Return the metadata of what ``path`` stands for."""
        return self.stat_inode(self.resolve(path, follow=follow))

    def open(self, path: bytes) -> BlockDevice:
        """Return the bytes of the regular file at ``path`` as a read-only device."""
        inode = self.resolve(path)
        if not stat_module.S_ISREG(self.stat_inode(inode).mode):
            raise UsageError(f"{show_path(path)}: expected a regular file")
        return self.open_inode(inode)


def show_path(path: bytes) -> str:
    """Return a path within a file system as messages show it."""
    return ascii(path.decode("utf-8", "surrogateescape"))[1:-1][:200]
