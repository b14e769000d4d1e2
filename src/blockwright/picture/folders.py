"""What fills a file system: its directories by what lies below them, counted within a budget.

Directories are read breadth first, so what a budget leaves out lies deep; each inode counts once, whatever loops and
links a hostile file system has.

Knows: counting. Refuses to know: file systems, and drawing.
"""

from __future__ import annotations

import stat
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from blockwright.draw.picture import Contents, Folder
from blockwright.draw.words import plain
from blockwright.errors import FormatError
from blockwright.fs.reader import Entry, FileSystem

MAX_ENTRIES: Final = 100_000
"""Names that are looked at in one picture, over all of its file systems: some seconds, and some tens of MiB."""
LEVELS: Final = 3
"""Levels of directories that are told apart; what lies deeper counts for the one above it."""
MAX_CHILDREN: Final = 24
"""Children of a directory that are told apart; the others are one."""
_KEPT: Final = 4 * MAX_CHILDREN


class Budget:
    """Names that may still be looked at."""

    def __init__(self, entries: int = MAX_ENTRIES) -> None:
        self.left = entries


@dataclass(slots=True)
class _Node:
    """A directory under way, or a file: bytes of it alone, and those of children by name."""

    name: bytes
    parent: _Node | None
    level: int
    size: int = 0
    entries: int = 0
    children: list[_Node] = field(default_factory=list)
    files: list[tuple[int, bytes]] = field(default_factory=list)

    def add(self, size: int, entries: int) -> None:
        node: _Node | None = self
        while node is not None:
            node.size += size
            node.entries += entries
            node = node.parent


def contents_of(files: FileSystem, budget: Budget) -> Contents:
    """Return what fills a file system, as far as the budget goes. Broken directories are left out and told."""
    return _Walk(files, budget).run()


class _Walk:
    def __init__(self, files: FileSystem, budget: Budget) -> None:
        self._files = files
        self._budget = budget
        self._seen: set[int] = {files.root_inode}
        self._problem = ""
        self._count = [0, 1]

    def run(self) -> Contents:
        root = _Node(b"/", None, 0)
        self._stat(root, files_inode=self._files.root_inode)
        queue = deque([(self._files.root_inode, root)])
        while queue and self._budget.left > 0:
            inode, node = queue.popleft()
            try:
                self._read(inode, node, queue)
            except FormatError as error:
                self._problem = self._problem or plain(str(error))
        complete = not queue and self._budget.left > 0 and not self._problem
        return Contents(_folder(root), self._count[0], self._count[1], complete, self._problem)

    def _read(self, inode: int, node: _Node, queue: deque[tuple[int, _Node]]) -> None:
        for entry in self._files.entries(inode):
            if self._budget.left <= 0:
                return
            self._budget.left -= 1
            if entry.inode in self._seen:  # another name of what was counted, or a loop
                node.add(0, 1)
                continue
            self._seen.add(entry.inode)
            try:
                self._take(entry, node, queue)
            except FormatError as error:
                self._problem = self._problem or plain(str(error))

    def _take(self, entry: Entry, node: _Node, queue: deque[tuple[int, _Node]]) -> None:
        found = self._files.stat_inode(entry.inode)
        size = max(0, found.allocated)
        if found.kind != stat.S_IFDIR:
            self._count[0] += 1
            node.add(size, 1)
            if node.level < LEVELS and size:
                node.files.append((size, entry.name))
                if len(node.files) > _KEPT:
                    node.files = sorted(node.files, key=_by_size)[:MAX_CHILDREN]
            return
        self._count[1] += 1
        node.add(0, 1)
        below = node
        if node.level < LEVELS:
            below = _Node(entry.name, node, node.level + 1)
            node.children.append(below)
        below.add(size, 0)
        queue.append((entry.inode, below))

    def _stat(self, root: _Node, *, files_inode: int) -> None:
        try:
            root.add(max(0, self._files.stat_inode(files_inode).allocated), 0)
        except FormatError as error:
            self._problem = plain(str(error))


def _by_size(file: tuple[int, bytes]) -> tuple[int, bytes]:
    return -file[0], file[1]


def _folder(node: _Node) -> Folder:
    """Return a directory with its largest children, and the rest of it as one."""
    found = [
        *((-child.size, 0, child.name, child) for child in node.children if child.size),
        *((-size, 1, name, None) for size, name in node.files),
    ]
    found.sort(key=lambda each: each[:3])
    shown: list[Folder] = []
    for size, _, name, child in found[:MAX_CHILDREN]:
        shown.append(
            _folder(child) if child else Folder(plain(name), -size, is_directory=False, entries=1, is_file=True)
        )
    rest = node.size - sum(each.size for each in shown)
    others = max(0, node.entries - sum(each.entries + each.is_directory for each in shown))
    if rest > 0 and shown:
        shown.append(Folder("the rest" if others else "its own blocks", rest, is_directory=False, entries=others))
    return Folder(plain(node.name), node.size, entries=node.entries, children=tuple(shown))
