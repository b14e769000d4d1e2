"""A tree's regular files in a private directory of the host, for programs that read directories.

Only regular files (0644, or 0755 where the tree has any execute bit) and directories that hold some (0755) are made,
each by a descriptor of its directory and one name, with O_EXCL and O_NOFOLLOW; no symlink, device, FIFO, owner,
attribute or other mode. So nothing of a hostile tree can be followed, opened for ever, or hide behind its mode; and a
scanner loses nothing by it, since scanners look at regular files. What the tree has through its links at a path that
scanners look for (``inventory.KNOWN_FILES``) is made a file there. A file with several names is one file here, too.

What scanners look for by its name goes first within the budget: package databases, and the lists and archives that
tell what a language's packages are. That is what a vulnerability scanner reads; where room is short, data is what may
be missing. What is left out is counted and named, and by default no verdict then (``Policy.allow_incomplete``).

Knows: names, order, budget. Refuses to know: what scanners make of it.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from contextlib import suppress
from typing import Final, NamedTuple, Self

# Before the imports, since what is imported here is not there either.
assert sys.platform != "win32", "files cannot be made by descriptor and name there"

from blockwright.errors import Corrupt, ScanFailed  # noqa: E402
from blockwright.scan.inventory import KNOWN_FILES  # noqa: E402
from blockwright.scan.policy import Budget  # noqa: E402
from blockwright.scan.scanner import Projected  # noqa: E402
from blockwright.scan.verdict import LeftOut  # noqa: E402
from blockwright.tree.content import Content  # noqa: E402
from blockwright.tree.extract_target import DIRECTORY_FLAGS  # noqa: E402
from blockwright.tree.lookup import lookup  # noqa: E402
from blockwright.tree.node import Directory, File, walk  # noqa: E402
from blockwright.units import MiB  # noqa: E402

MAX_DEPTH: Final = 256
"""Names in a path; what lies deeper is left out."""

MAX_NAMED: Final = 20
"""Names of what was left out that are kept."""

MAX_LINKED_PATH: Final = 4000
"""Bytes of a path that the host still takes whole."""

_FIRST_NAMES: Final = re.compile(
    rb"(?:composer|package|packages|pubspec|pdm|poetry|uv|cargo|pipfile|gemfile|npm-shrinkwrap|pnpm-lock|yarn|mix|"
    rb"podfile|go|conan|gradle|bun|package-lock|package\.resolved|renv|manifest|requirements[^/]*)"
    rb"\.(?:lock|json|toml|mod|sum|lockb|yaml|txt)|pipfile|gemfile|pom\.xml|metadata|pkg-info|description|"
    rb"[^/]*\.(?:gemspec|nuspec|jar|war|ear|par)|[^/]*\.deps\.json",
    re.IGNORECASE,
)
_FIRST_FOLDERS: Final = re.compile(
    rb"(?:var/lib/dpkg|(?:usr/)?lib/apk/db|var/lib/rpm|usr/lib/sysimage/rpm|usr/share/rpm)/"
)
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_TAKEN: Final = (errno.EEXIST, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENOTDIR)
"""What a host's file system answers to a name that it does not take, or takes for another's."""


class _Item(NamedTuple):
    path: bytes
    node: File


def project(root: Directory, folder: str, budget: Budget, *, numbered: bool = False) -> Projected:
    """Write the regular files of ``root`` into the empty directory ``folder``, which is private.

    They have the tree's names; ``numbered`` puts each content once into the one directory, with a number for its
    name, for programs that print names in lines, which a name could break.

    Raises ScanFailed where the host has no room or refuses, Corrupt for a tree with impossible names, and what
    reading its contents raises.
    """
    fd = os.open(folder, DIRECTORY_FLAGS)
    with _Writer(fd, budget) as writer:
        return writer.run(root, folder, numbered=numbered)


def _dealt(root: Directory) -> list[_Item]:
    """Return all regular files: those that scanners look for, then the others, each in the order of paths."""
    first: dict[bytes, File] = {}
    rest: list[_Item] = []
    for path in KNOWN_FILES:
        node = lookup(root, path)
        if isinstance(node, File):
            first[path] = node
    for path, node in walk(root):
        if not isinstance(node, File) or path in first:
            continue
        name = path.rpartition(b"/")[2]
        if _FIRST_NAMES.fullmatch(name) or _FIRST_FOLDERS.match(path):
            first[path] = node
        else:
            rest.append(_Item(path, node))
    return [*(_Item(*each) for each in sorted(first.items(), key=lambda item: item[0])), *rest]


class _Writer:
    """Writes one projection; a directory stays open while names within it follow one another."""

    def __init__(self, folder_fd: int, budget: Budget) -> None:
        self._folder_fd = folder_fd
        self._budget = budget
        self._buffer = memoryview(bytearray(MiB))
        self._trail: list[tuple[bytes, int]] = [(b"", folder_fd)]
        self._written: dict[int, bytes] = {}
        self._files = self._size = self._left_files = self._left_size = 0
        self._left_names: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        while self._trail:
            os.close(self._trail.pop()[1])

    def run(self, root: Directory, folder: str, *, numbered: bool) -> Projected:
        """Write what the budget takes."""
        names: dict[str, bytes] = {}
        for number, item in enumerate(_dealt(root)):
            if not numbered:
                self._file(item.path, item)
            elif id(item.node) not in self._written and item.node.content.size:
                name = b"%08d" % number
                if self._file(name, item):
                    names[name.decode()] = item.path
        left = LeftOut(self._left_files, self._left_size, tuple(self._left_names))
        return Projected(folder, self._files, self._size, left, names)

    def _file(self, path: bytes, item: _Item) -> bool:
        """Make one file, or count it as left out; return whether it was made."""
        parts = path.split(b"/")
        for part in parts:
            if part in (b"", b".", b"..") or b"\0" in part:
                raise Corrupt(f"scan: expected a name, found {part[:64]!r}")
        linked = self._written.get(id(item.node))
        size = 0 if linked is not None else item.node.content.size
        fits = self._files < self._budget.files and self._size + size <= self._budget.size
        if not fits or len(parts) > MAX_DEPTH:
            return self._leave(item)
        try:
            fd = self._enter(parts[:-1])
            if linked is None or not self._link(linked, fd, parts[-1]):
                self._make(fd, parts[-1], item.node)
                self._size += item.node.content.size
                self._written[id(item.node)] = path
        except OSError as error:
            if error.errno in _NOT_TAKEN:
                return self._leave(item)
            raise ScanFailed(f"{_text(item.path)}: put before the scanner: {str(error.strerror).lower()}") from error
        self._files += 1
        return True

    def _leave(self, item: _Item) -> bool:
        self._left_files += 1
        self._left_size += item.node.content.size
        if len(self._left_names) < MAX_NAMED:
            self._left_names.append(_text(item.path))
        return False

    def _enter(self, parts: list[bytes]) -> int:
        """Return the descriptor of a directory, which is made where it is missing."""
        trail = self._trail
        shared = 0
        while shared < len(parts) and shared + 1 < len(trail) and trail[shared + 1][0] == parts[shared]:
            shared += 1
        while len(trail) > shared + 1:
            os.close(trail.pop()[1])
        for part in parts[shared:]:
            here = trail[-1][1]
            made = True
            try:
                os.mkdir(part, 0o700, dir_fd=here)
            except FileExistsError:
                made = False
            fd = os.open(part, DIRECTORY_FLAGS, dir_fd=here)
            trail.append((part, fd))
            if made:
                os.fchmod(fd, 0o755)
        return trail[-1][1]

    def _link(self, linked: bytes, folder_fd: int, name: bytes) -> bool:
        """Give a file of ours another name; return whether that could be done."""
        if len(linked) > MAX_LINKED_PATH:
            return False
        try:
            os.link(linked, name, src_dir_fd=self._folder_fd, dst_dir_fd=folder_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EPERM, errno.ENOTSUP):
                raise
            return False
        return True

    def _make(self, folder_fd: int, name: bytes, node: File) -> None:
        fd = os.open(name, _CREATE, 0o600, dir_fd=folder_fd)
        try:
            self._copy(fd, node.content)
            os.fchmod(fd, 0o755 if node.permissions & 0o111 else 0o644)
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder_fd)
            raise
        finally:
            os.close(fd)

    def _copy(self, fd: int, content: Content) -> None:
        runs = content.runs()
        if content.size and (not runs or sum(runs[-1]) < content.size):
            os.ftruncate(fd, content.size)
        for start, length in runs:
            for offset in range(start, start + length, len(self._buffer)):
                part = self._buffer[: min(len(self._buffer), start + length - offset)]
                content.read_into(offset, part)
                position = 0
                while position < len(part):
                    position += os.pwrite(fd, part[position:], offset + position)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
