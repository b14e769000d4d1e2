"""Where the files of boot loaders are found: a directory the user names, the tree of the system itself, this host.

All files of one loader come from one place, since parts of different builds do not fit each other.

Knows: where distributions and the loaders' own build trees put each file, and which Debian package has it.
Refuses to know: what is in the files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from blockwright.errors import LimitExceeded, NotFound
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.lookup import lookup
from blockwright.tree.node import Directory, File

MAX_LOADER: Final = 64 << 20
"""Bytes of one file of a loader at the most."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file, or a directory by one file in it: where systems install it, and where it is in a directory of its own.

    Paths are relative; ``package`` is Debian's.
    """

    what: str
    installed: tuple[str, ...]
    loose: tuple[str, ...]
    package: str


@dataclass(frozen=True, slots=True)
class Shelf:
    """A place to look in. ``read`` returns the file of a relative path, or None; ``loose``: not only as installed."""

    name: str
    read: Callable[[str], Content | None]
    loose: bool = False

    def paths(self, wanted: Wanted) -> tuple[str, ...]:
        """Return the paths that are looked at, in order."""
        return (*wanted.loose, *wanted.installed) if self.loose else wanted.installed

    def find(self, wanted: Wanted) -> Found | None:
        """Return the first of the paths that is there."""
        for path in self.paths(wanted):
            content = self.read(path)
            if content is not None and content.size:
                return Found(self, path, content)
        return None


class Found(NamedTuple):
    """A file of a loader, and where it was."""

    shelf: Shelf
    path: str
    content: Content

    @property
    def name(self) -> str:
        """The file as messages show it."""
        return os.path.join(self.shelf.name, self.path)

    def bytes(self) -> bytes:
        """Return all of it. Raises LimitExceeded."""
        return all_bytes(self.content, self.name)


def of_tree(root: Directory) -> Shelf:
    """Return the tree of a system, where that has loaders installed."""

    def read(path: str) -> Content | None:
        node = lookup(root, path.encode())
        return node.content if isinstance(node, File) else None

    return Shelf("the tree", read)


def of_host(top: str = "/") -> Shelf:
    """Return this host, where its packages are installed."""
    return Shelf(top, lambda path: _host_file(os.path.join(top, path)))


def of_directory(directory: str) -> Shelf:
    """Return a directory that holds loaders. Raises NotFound where there is none."""
    if not os.path.isdir(directory):
        raise NotFound(f"{directory}: no such directory")
    return Shelf(directory, lambda path: _host_file(os.path.join(directory, path)), loose=True)


def find(shelves: Sequence[Shelf], wanted: Wanted) -> Found:
    """Return the file from the first shelf that has it. Raises NotFound as ``missing`` has it."""
    for shelf in shelves:
        found = shelf.find(wanted)
        if found is not None:
            return found
    raise missing(shelves, wanted)


def missing(shelves: Sequence[Shelf], wanted: Wanted) -> NotFound:
    """Return the error that says what was not found, where it was looked for, and which package has it."""
    places = "; ".join(f"in {shelf.name}: {', '.join(shelf.paths(wanted))}" for shelf in shelves)
    return NotFound(
        f"boot: {wanted.what}: not found ({places}): install the Debian package {wanted.package}, or name a directory"
        " with it by --loader-dir"
    )


def all_bytes(content: Content, name: str) -> bytes:
    """Return what a loader's file holds. Raises LimitExceeded for one that is too large."""
    if content.size > MAX_LOADER:
        raise LimitExceeded(f"expected at most {MAX_LOADER} bytes, found {content.size}", source=name)
    buffer = bytearray(content.size)
    content.read_into(0, memoryview(buffer))
    return bytes(buffer)


def _host_file(path: str) -> Content | None:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return None
        with open(path, "rb") as file:
            if status.st_size > MAX_LOADER:
                raise LimitExceeded(f"expected at most {MAX_LOADER} bytes, found {status.st_size}", source=path)
            return BytesContent(file.read(MAX_LOADER))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
        return None
