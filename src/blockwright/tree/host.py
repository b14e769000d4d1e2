"""A directory of the host as a tree.

One pass: each directory is opened once, its names sorted, and each entry costs one lstat and one listxattr. Regular
files are not opened, unless they have holes: what they hold is read when it is copied, and an error then names the
file. What can be known without opening is told at once: a directory that cannot be listed, and a file whose
permissions do not let us read it.

A directory is opened without following a link and must be the inode that its parent showed, so nothing outside
``path`` can enter the tree, whoever renames things in it meanwhile.

Knows: how a host is listed. Refuses to know: contents (see ``hostfile``), and what the tree is for.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Mapping
from types import MappingProxyType

from blockwright.errors import NotFound, SourceChanged
from blockwright.tree.content import EMPTY, Content
from blockwright.tree.hostfile import HostFile, SparseHostFile
from blockwright.tree.node import NO_XATTRS, Directory, File, Node, Special, Symlink

_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_XATTR_PREFIXES = (b"user.", b"trusted.", b"security.", b"system.posix_acl_")
"""What belongs to a file. Other names (``system.nfs4_acl``, ``btrfs.compression``) are the host file system's own."""


def read_directory(path: str | bytes | os.PathLike[str], *, one_file_system: bool = False) -> Directory:
    """Return the tree below the directory ``path``: every name, exact to the nanosecond, hard links as one node.

    Contents are ``HostFile``: they are read when asked for, and raise SourceChanged when the file is another then.
    With ``one_file_system`` a directory that something else is mounted on is entered empty.
    Raises NotFound when ``path`` does not exist; NotADirectoryError; SourceChanged when something vanishes while
    it is listed; any other OSError as the host gives it, with the file's name (unreadable directory or file).
    """
    top = os.fsencode(path)
    try:
        status = os.stat(top)
    except FileNotFoundError as error:
        raise NotFound(f"{os.fsdecode(top)}: no such file or directory") from error
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(top))
    try:
        return _Scan(top, status, one_file_system=one_file_system).run()
    except OSError as error:
        if isinstance(error.filename, bytes):  # for people to read
            error.filename = os.fsdecode(error.filename)
        raise


def read_node(path: str | bytes | os.PathLike[str]) -> Node:
    """Return what is at ``path``, a link in its last part followed: a file, a directory with all below it, a device.

    Raises as ``read_directory`` does.
    """
    whole = os.path.realpath(os.fsencode(path))
    try:
        status = os.lstat(whole)
    except FileNotFoundError as error:
        raise NotFound(f"{os.fsdecode(path)}: no such file or directory") from error
    if stat.S_ISDIR(status.st_mode):
        return read_directory(path)
    try:
        return _Scan(whole, status, one_file_system=False).node(status)
    except OSError as error:
        if isinstance(error.filename, bytes):  # for people to read
            error.filename = os.fsdecode(error.filename)
        raise


class _Scan:
    """One pass over a directory."""

    def __init__(self, top: bytes, status: os.stat_result, *, one_file_system: bool) -> None:
        self._top = top
        self._top_status = status
        self._device = status.st_dev if one_file_system else None
        self._links: dict[tuple[int, int], Node] = {}
        self._without_xattrs: set[int] = set()
        self._shared_xattrs: dict[tuple[tuple[bytes, bytes], ...], Mapping[bytes, bytes]] = {}
        # Root reads everything. Anybody else may be refused what is not readable for all.
        self._check_access = getattr(os, "geteuid", lambda: 0)() != 0

    def node(self, status: os.stat_result) -> Node:
        """Return the node of what is no directory."""
        folder, name = os.path.split(self._top)
        return self._node(os.path.join(folder, b""), name, status)

    def run(self) -> Directory:
        status = self._top_status
        root = Directory(
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            self._xattrs(os.path.join(self._top, b""), status.st_dev),  # the slash follows a link
        )
        pending = [(root, self._top, status)]
        while pending:
            found = self._directory(*pending.pop())
            found.reverse()
            pending += found
        return root

    def _directory(
        self, directory: Directory, path: bytes, status: os.stat_result
    ) -> list[tuple[Directory, bytes, os.stat_result]]:
        """Enter everything that ``path`` holds, and return its directories in order."""
        try:
            listed = _list(path, status, follow=path is self._top)
        except FileNotFoundError as error:
            raise _vanished(path) from error
        prefix = os.path.join(path, b"")
        found: list[tuple[Directory, bytes, os.stat_result]] = []
        entries = directory.entries
        try:
            for name, entry_status in listed:
                node = self._node(prefix, name, entry_status)
                entries[name] = node
                if type(node) is Directory and (self._device is None or entry_status.st_dev == self._device):
                    found.append((node, prefix + name, entry_status))
        except FileNotFoundError as error:
            raise _vanished(prefix + name) from error
        return found

    def _node(self, prefix: bytes, name: bytes, status: os.stat_result) -> Node:
        mode, device = status.st_mode, status.st_dev
        kind = mode & 0o170000
        linked = status.st_nlink > 1 and kind != stat.S_IFDIR
        if linked:
            known = self._links.get((device, status.st_ino))
            if known is not None:
                return known
        xattrs = NO_XATTRS
        if device not in self._without_xattrs:
            xattrs = self._xattrs(prefix + name, device, link=kind == stat.S_IFLNK)
        permissions, uid, gid, mtime_ns = mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime_ns
        node: Node
        if kind == stat.S_IFREG:
            content = self._content(prefix, name, status, mtime_ns)
            node = File(permissions, uid, gid, mtime_ns, xattrs, content)
        elif kind == stat.S_IFDIR:
            return Directory(permissions, uid, gid, mtime_ns, xattrs)
        elif kind == stat.S_IFLNK:
            node = Symlink(os.readlink(prefix + name), permissions, uid, gid, mtime_ns, xattrs)
        else:
            major, minor = _device_numbers(status, kind)
            node = Special(kind, permissions, uid, gid, mtime_ns, xattrs, major=major, minor=minor)
        if linked:
            self._links[device, status.st_ino] = node
        return node

    def _content(self, prefix: bytes, name: bytes, status: os.stat_result, mtime_ns: int) -> Content:
        size = status.st_size
        if not size:
            return EMPTY
        if self._check_access and not status.st_mode & 0o004 and not os.access(prefix + name, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(prefix + name))
        if getattr(status, "st_blocks", size) * 512 < size:
            sparse = SparseHostFile(prefix, name, status, mtime_ns)
            if sparse.runs() != ((0, size),):
                return sparse
        return HostFile(prefix, name, status, mtime_ns)

    if sys.platform == "linux":

        def _xattrs(self, path: bytes, device: int, *, link: bool = False) -> Mapping[bytes, bytes]:
            """Return what belongs to the file. Equal sets are one object: with SELinux most files have the same."""
            try:
                names = os.listxattr(path, follow_symlinks=False)
                if not names:
                    return NO_XATTRS
                found = [
                    (name, os.getxattr(path, name, follow_symlinks=False))
                    for name in sorted(map(os.fsencode, names))
                    if name.startswith(_XATTR_PREFIXES)
                ]
            except OSError as error:
                if error.errno == errno.ENODATA:
                    raise _changed(path, f"extended attributes: {error.strerror}") from error
                if error.errno != errno.ENOTSUP:
                    raise
                if not link:  # a file system may have them for files and not for links
                    self._without_xattrs.add(device)
                return NO_XATTRS
            key = tuple(found)
            return self._shared_xattrs.setdefault(key, MappingProxyType(dict(found))) if found else NO_XATTRS
    else:

        def _xattrs(self, path: bytes, device: int, *, link: bool = False) -> Mapping[bytes, bytes]:
            """Return nothing: Linux's names and values are not to be had here."""
            return NO_XATTRS


if sys.platform != "win32":
    # A FIFO in the directory's place fails O_DIRECTORY before anything could wait.
    _DIRECTORY_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY

    def _list(path: bytes, status: os.stat_result, *, follow: bool) -> list[tuple[bytes, os.stat_result]]:
        """Return every name in the directory with its lstat, sorted by the bytes of the name."""
        try:
            fd = os.open(path, _DIRECTORY_FLAGS | (0 if follow else os.O_NOFOLLOW))
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise _changed(path, f"{error.strerror}") from error
            raise
        try:
            opened = os.fstat(fd)
            if opened.st_ino != status.st_ino or opened.st_dev != status.st_dev:
                raise _changed(path, f"inode: expected {status.st_ino}, found {opened.st_ino}")
            with os.scandir(fd) as entries:
                listed = [
                    (entry.name.encode(_ENCODING, _ERRORS), entry.stat(follow_symlinks=False)) for entry in entries
                ]
        finally:
            os.close(fd)
        listed.sort(key=_first)
        return listed
else:

    def _list(
        path: bytes,
        status: os.stat_result,  # noqa: ARG001 - as above; inodes of open directories are not to be had
        *,
        follow: bool,  # noqa: ARG001 - as above
    ) -> list[tuple[bytes, os.stat_result]]:
        """Return every name in the directory with its lstat, sorted by the bytes of the name."""
        with os.scandir(path) as entries:
            listed = [(entry.name, os.lstat(entry.path)) for entry in entries]
        listed.sort(key=_first)
        return listed


def _first(entry: tuple[bytes, os.stat_result]) -> bytes:
    return entry[0]


def _device_numbers(status: os.stat_result, kind: int) -> tuple[int, int]:
    if sys.platform == "win32" or kind not in (stat.S_IFCHR, stat.S_IFBLK):
        return 0, 0
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _changed(path: bytes, how: str) -> SourceChanged:
    return SourceChanged(f"{os.fsdecode(path)}: changed since it was looked at: {how}")


def _vanished(path: bytes) -> SourceChanged:
    return SourceChanged(f"{os.fsdecode(path)}: vanished while its directory was read")
