"""Nodes become files in directories that are open: by descriptor and one name, never by a path.

Directories are private while they are filled, and get their owner, attributes, mode and time when all below them is
made. A file with several names is kept in the stage too, so that each further name is a link to that.

Knows: how each kind of node is made and replaced, and what its owner's rule lets it keep. Refuses to know: where the
target is, and what becomes of it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

# Before the imports, since what is imported here is not there either.
assert sys.platform != "win32", "files cannot be made by descriptor and name there"

from blockwright.errors import Corrupt, LimitExceeded, NotSupported, UsageError  # noqa: E402
from blockwright.tree.content import Content, Fill, Runs  # noqa: E402
from blockwright.tree.extract import Extracted, ExtractOptions, Progress, StagedContent  # noqa: E402
from blockwright.tree.extract_target import DIRECTORY_FLAGS, Target  # noqa: E402
from blockwright.tree.node import Directory, File, Node, Special, Symlink  # noqa: E402
from blockwright.units import MiB  # noqa: E402

MAX_DEPTH: Final = 512
"""Directories below one another: each is open while what it holds is made."""

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_ID: Final = (1 << 32) - 2
_LATEST_S: Final = 1 << 33
_GRANTED: Final = (b"security.", b"trusted.", b"system.")
"""Attributes that grant something to somebody, or label it: kept only where owners are."""
_UNSET: Final = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSPC, errno.E2BIG, errno.ERANGE)


class Stage:
    """Bodies of a stream, each put into a file of the target's stage; numbers are its names."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._buffer = memoryview(bytearray(MiB))
        self._count = 0

    def place(self, size: int, runs: Runs, fill: Fill, /) -> Content:
        """Write a body, holes and all."""
        self._count += 1
        name = f"body-{self._count}"
        fd = os.open(name, _CREATE, 0o600, dir_fd=self._target.stage_fd)
        try:
            _resize(fd, size, runs)
            for start, length in runs:
                for offset in range(start, start + length, len(self._buffer)):
                    part = self._buffer[: min(len(self._buffer), start + length - offset)]
                    fill(part)
                    _write_at(fd, part, offset)
        finally:
            os.close(fd)
        return StagedContent(size, runs, name)


class _Open(NamedTuple):
    """A directory that is being filled."""

    node: Directory
    fd: int
    names: Iterator[bytes]
    name: bytes


class Writer:
    """Makes one tree in a target."""

    def __init__(self, target: Target, options: ExtractOptions, progress: Progress | None) -> None:
        self._target = target
        self._stage = target.stage_fd
        self._options = options
        self._owner = options.owner
        self._progress = progress
        self._buffer = memoryview(bytearray(MiB))
        self._left_out: Counter[str] = Counter()
        self._entries = self._count = self._done = self._total = 0
        self._several: set[int] = set()
        self._linked: dict[int, bytes] = {}
        self._made: set[tuple[int, int]] = set()
        self._trail: list[_Open] = []
        self._now = b""

    def run(self, root: Directory) -> Extracted:
        """Make everything, the target's own metadata last. Raises as ``Extraction.write`` does."""
        self._survey(root)
        trail = self._trail
        trail.append(_Open(root, os.dup(self._target.root_fd), iter(sorted(root.entries)), b""))
        try:
            while trail:
                here = trail[-1]
                name = next(here.names, None)
                if name is not None:
                    with self._naming(name):
                        self._entry(here, name)
                    continue
                if len(trail) == 1:
                    self._target.end_stage()
                if len(trail) > 1 or not self._target.replaces:
                    with self._naming(b""):
                        self._finish(here.fd, here.node)
                trail.pop()
                os.close(here.fd)
        finally:
            for each in trail:
                os.close(each.fd)
        return Extracted(self._entries, self._left_out)

    def _survey(self, root: Directory) -> None:
        """Find which nodes have several names, and how many bytes there are to write."""
        seen: set[int] = set()
        stack = [root]
        while stack:
            for node in stack.pop().entries.values():
                if isinstance(node, Directory):
                    stack.append(node)
                elif id(node) in seen:
                    self._several.add(id(node))
                else:
                    seen.add(id(node))
                    if isinstance(node, File) and not isinstance(node.content, StagedContent):
                        self._total += node.content.size

    def _entry(self, here: _Open, name: bytes) -> None:
        _check_name(name)
        node = here.node.entries[name]
        if isinstance(node, Directory):
            if len(self._trail) >= MAX_DEPTH:
                raise LimitExceeded(
                    f"extract: expected at most {MAX_DEPTH} directories below one another, found more"
                )
            fd = self._directory(here.fd, name)
            self._trail.append(_Open(node, fd, iter(sorted(node.entries)), name))
        elif isinstance(node, Special) and not self._options.specials:
            self._left_out["special files"] += 1
            return
        else:
            self._leaf(here.fd, name, node)
        self._entries += 1

    # -- directories -------------------------------------------------------------------------------------------

    def _directory(self, fd: int, name: bytes) -> int:
        """Return a directory of this name, made or found, open."""
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:
            there = self._there(fd, name)
            if not stat.S_ISDIR(there.st_mode):
                os.unlink(name, dir_fd=fd)
                os.mkdir(name, 0o700, dir_fd=fd)
        made = os.open(name, DIRECTORY_FLAGS, dir_fd=fd)
        self._remember(made)
        return made

    def _there(self, fd: int, name: bytes) -> os.stat_result:
        """Return what has the name already; raise UsageError where it is ours, or must not be replaced."""
        there = os.lstat(name, dir_fd=fd)
        if not self._target.replaces or (there.st_dev, there.st_ino) in self._made:
            raise UsageError(
                f"{self._shown(name)}: expected each name once, found another that this file system takes for it"
            )
        return there

    def _remember(self, fd: int) -> None:
        if self._target.replaces:
            status = os.fstat(fd)
            self._made.add((status.st_dev, status.st_ino))

    # -- everything else ---------------------------------------------------------------------------------------

    def _leaf(self, fd: int, name: bytes, node: Node) -> None:
        several = id(node) in self._several
        known = self._linked.get(id(node))
        if known is not None:
            self._move(known, fd, name, keep=True)
            return
        staged = None
        if isinstance(node, File) and isinstance(node.content, StagedContent):
            staged = os.fsencode(node.content.name)
            made = os.open(staged, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._stage)
            try:
                self._finish(made, node)
            finally:
                os.close(made)
        elif self._target.replaces or isinstance(node, Special):  # whose mode can be set by name in private only
            staged = self._new_name()
            self._make(self._stage, staged, node)
        if staged is not None:
            self._move(staged, fd, name, keep=several)
            if several:
                self._linked[id(node)] = staged
            return
        try:
            self._make(fd, name, node)
        except FileExistsError:
            self._there(fd, name)
            raise
        if several:
            kept = self._linked[id(node)] = self._new_name()
            os.link(name, kept, src_dir_fd=fd, dst_dir_fd=self._stage, follow_symlinks=False)

    def _new_name(self) -> bytes:
        self._count += 1
        return b"node-%d" % self._count

    def _move(self, staged: bytes, fd: int, name: bytes, *, keep: bool) -> None:
        """Give what is in the stage its name; with ``keep`` it stays there too."""
        if keep:
            link = self._new_name()
            os.link(staged, link, src_dir_fd=self._stage, dst_dir_fd=self._stage, follow_symlinks=False)
            staged = link
        try:
            there = self._there(fd, name)
        except FileNotFoundError:
            pass
        else:
            if stat.S_ISDIR(there.st_mode):
                raise UsageError(f"{self._shown(name)}: expected no directory in a file's place, found one")
        if self._target.replaces:
            status = os.lstat(staged, dir_fd=self._stage)
            if not keep:
                self._made.add((status.st_dev, status.st_ino))
        os.rename(staged, name, src_dir_fd=self._stage, dst_dir_fd=fd)

    def _make(self, fd: int, name: bytes, node: Node) -> None:
        """Make a node under a free name."""
        if isinstance(node, File):
            made = os.open(name, _CREATE, 0o600, dir_fd=fd)
            try:
                self._copy(node.content, made)
                self._finish(made, node)
            finally:
                os.close(made)
            return
        if isinstance(node, Symlink):
            os.symlink(node.target, name, dir_fd=fd)
        elif isinstance(node, Special):
            os.mknod(name, node.kind | 0o600, os.makedev(node.major, node.minor), dir_fd=fd)
        owner = self._owner_of(node)
        if owner is not None:
            os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
        if isinstance(node, Special):
            os.chmod(name, self._permissions(node), dir_fd=fd)
        if node.xattrs:
            self._set_xattrs_by_name(fd, name, node.xattrs)
        _set_time(name, node.mtime_ns, fd)

    def _copy(self, content: Content, fd: int) -> None:
        runs = content.runs()
        _resize(fd, content.size, runs)
        for start, length in runs:
            for offset in range(start, start + length, len(self._buffer)):
                part = self._buffer[: min(len(self._buffer), start + length - offset)]
                content.read_into(offset, part)
                _write_at(fd, part, offset)
                if self._progress is not None:
                    self._progress(self._done + offset + len(part), self._total)
        self._done += content.size

    # -- metadata ----------------------------------------------------------------------------------------------

    def _finish(self, fd: int, node: Node) -> None:
        """Give an open file or directory its owner, attributes, mode and time, in the order that keeps them all."""
        owner = self._owner_of(node)
        if owner is not None:
            os.fchown(fd, *owner)
        if node.xattrs:
            self._set_xattrs(fd, node.xattrs)
        os.fchmod(fd, self._permissions(node))
        _set_time(fd, node.mtime_ns)

    def _owner_of(self, node: Node) -> tuple[int, int] | None:
        owner = self._owner
        if owner.keep:
            if max(node.uid, node.gid) > _MAX_ID:  # which the host would take for leaving it as it is: ours
                raise NotSupported(
                    f"{self._shown(self._now)}: owner: expected ids from 0 to {_MAX_ID}, "
                    f"found {node.uid} and {node.gid}: --owner gives others"
                )
            return node.uid, node.gid
        if owner.uid is None and owner.gid is None:
            return None
        return -1 if owner.uid is None else owner.uid, -1 if owner.gid is None else owner.gid

    def _permissions(self, node: Node) -> int:
        return node.permissions & (0o7777 if self._owner.keep else 0o1777)

    if sys.platform == "linux":

        def _set_xattrs(self, where: int | bytes, xattrs: Mapping[bytes, bytes], *, follow: bool = True) -> None:
            for name, value in xattrs.items():
                if not self._owner.keep and name.startswith(_GRANTED):
                    self._leave_out_xattr(name, None)
                    continue
                try:
                    os.setxattr(where, name, value, follow_symlinks=follow)
                except OSError as error:
                    if error.errno not in _UNSET:
                        raise
                    self._leave_out_xattr(name, error)

        def _set_xattrs_by_name(self, fd: int, name: bytes, xattrs: Mapping[bytes, bytes]) -> None:
            # There is no call by descriptor and name; this path is the descriptor's directory, whatever it is called.
            self._set_xattrs(b"/proc/self/fd/%d/%b" % (fd, name), xattrs, follow=False)
    else:

        def _set_xattrs(self, where: int | bytes, xattrs: Mapping[bytes, bytes], *, follow: bool = True) -> None:
            for name in xattrs:  # which are Linux's
                self._leave_out_xattr(name, None)

        def _set_xattrs_by_name(self, fd: int, name: bytes, xattrs: Mapping[bytes, bytes]) -> None:
            self._set_xattrs(fd, xattrs)

    def _leave_out_xattr(self, name: bytes, error: OSError | None) -> None:
        if self._options.strict:
            why = "only with --owner keep" if error is None else str(error.strerror).lower()
            raise UsageError(f"{self._shown(self._now)}: extended attribute {_text(name)}: {why}")
        self._left_out["extended attributes"] += 1

    # -- messages ----------------------------------------------------------------------------------------------

    def _shown(self, name: bytes) -> str:
        parts = [each.name for each in self._trail[1:]] + ([name] if name else [])
        return _text(b"/".join(parts)) or "/"

    @contextmanager
    def _naming(self, name: bytes) -> Iterator[None]:
        """Give an error of the host the name of the tree that it came of."""
        self._now = name
        try:
            yield
        except OSError as error:
            if error.filename is None or isinstance(error.filename, (bytes, int)):
                error.filename = self._shown(name)
                error.filename2 = None
            raise


def _check_name(name: bytes) -> None:
    """Raise Corrupt for what would not be one name in a directory, whoever made the tree."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise Corrupt(f"extract: expected a name, found {name[:64]!r}")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _resize(fd: int, size: int, runs: Runs) -> None:
    """Set a new file's size where its data does not."""
    if size and (not runs or sum(runs[-1]) < size):
        os.ftruncate(fd, size)


def _write_at(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def _set_time(where: int | bytes, time_ns: int, folder_fd: int | None = None) -> None:
    """Set both times; what the host's numbers cannot hold becomes the nearest that most file systems can."""
    try:
        _utime(where, time_ns, folder_fd)
    except OverflowError:
        _utime(where, (_LATEST_S if time_ns > 0 else -(1 << 31)) * 10**9, folder_fd)


def _utime(where: int | bytes, time_ns: int, folder_fd: int | None) -> None:
    if folder_fd is None:
        os.utime(where, ns=(time_ns, time_ns))
    else:
        os.utime(where, ns=(time_ns, time_ns), dir_fd=folder_fd, follow_symlinks=False)
