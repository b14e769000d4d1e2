"""What two trees differ in, path by path.

Knows: what makes two nodes equal, and that hard links are part of a tree. Refuses to know: where either came from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from heapq import merge
from typing import Final

from blockwright.tree.content import Content
from blockwright.tree.node import Directory, File, Node, Special, Symlink
from blockwright.tree.passing import PassedContent, fingerprint
from blockwright.units import MiB

ASPECTS: Final = frozenset(
    {"kind", "permissions", "uid", "gid", "mtime_ns", "xattrs", "size", "target", "device", "links", "content"}
)
"""What ``compare_trees`` looks at and can be told to ignore. A name that one tree lacks is always told."""

_CHUNK: Final = MiB
_SHOWN: Final = 16
"""Bytes that a difference of contents shows."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One aspect in which the node at ``path`` differs: its value in the left tree and in the right one.

    ``aspect`` is one of ``ASPECTS``, or ``missing``, whose values are the node where the path exists, else None. For
    ``links`` the values are the first path of the same node. For ``content`` they are ``(offset, bytes)`` from the
    first byte on that differs, or both contents where the left one has passed and only its fingerprint is known.
    """

    path: bytes
    aspect: str
    left: object
    right: object

    def __str__(self) -> str:
        shown = ascii(self.path.decode("utf-8", "surrogateescape"))[1:-1] or "/"
        if self.aspect == "missing":
            return f"{shown}: is only in the {'left' if self.left is not None else 'right'} tree"
        return f"{shown}: {self.aspect}: expected {self.left!r}, found {self.right!r}"


def compare_trees(
    left: Directory, right: Directory, *, contents: bool = False, ignore: Collection[str] = ()
) -> list[Difference]:
    """Return every difference between two trees, in order of paths; none when they are equal.

    Bodies are read, and runs of data compared byte by byte, only with ``contents``; where holes lie is no
    difference. ``ignore`` names aspects (see ``ASPECTS``) that a file system in between cannot keep.
    Raises what reading a content raises; ValueError for an unknown aspect.
    """
    unknown = set(ignore) - ASPECTS
    if unknown:
        raise ValueError(f"ignore: expected names out of {sorted(ASPECTS)}, found {sorted(unknown)}")
    return list(differences(left, right, contents=contents, ignore=ignore))


def differences(
    left: Directory, right: Directory, *, contents: bool = False, ignore: Collection[str] = ()
) -> Iterator[Difference]:
    """Yield what ``compare_trees`` returns, one at a time. What is in one tree only is told by its topmost path."""
    return _Comparison(contents=contents, ignore=ignore).run(left, right)


class _Comparison:
    def __init__(self, *, contents: bool, ignore: Collection[str]) -> None:
        self._contents = contents and "content" not in ignore
        self._ignore = ignore
        self._seen_left: dict[int, tuple[Node, bytes]] = {}
        self._seen_right: dict[int, tuple[Node, bytes]] = {}

    def run(self, left: Directory, right: Directory) -> Iterator[Difference]:
        stack: list[tuple[bytes, Node | None, Node | None]] = [(b"", left, right)]
        while stack:
            path, a, b = stack.pop()
            if a is None or b is None:
                yield Difference(path, "missing", a, b)
                continue
            yield from self._nodes(path, a, b)
            if isinstance(a, Directory) and isinstance(b, Directory):
                prefix = path + b"/" if path else b""
                names = sorted(a.entries.keys() | b.entries.keys(), reverse=True)
                stack.extend((prefix + name, a.entries.get(name), b.entries.get(name)) for name in names)

    def _nodes(self, path: bytes, a: Node, b: Node) -> Iterator[Difference]:
        if a.kind != b.kind:
            if "kind" not in self._ignore:
                yield Difference(path, "kind", a.kind, b.kind)
            return
        if not isinstance(a, Directory):
            first_a = self._seen_left.setdefault(id(a), (a, path))[1]
            first_b = self._seen_right.setdefault(id(b), (b, path))[1]
            if first_a != first_b:
                if "links" not in self._ignore:
                    yield Difference(path, "links", first_a, first_b)
            elif first_a != path:
                return  # compared under its first name
        for aspect, value, other in _aspects(a, b):
            if value != other and aspect not in self._ignore:
                yield Difference(path, aspect, value, other)
        if self._contents and isinstance(a, File) and isinstance(b, File) and a.content.size == b.content.size:
            yield from _contents(path, a.content, b.content)


def _aspects(a: Node, b: Node) -> Iterator[tuple[str, object, object]]:
    """Yield every aspect of two nodes of one kind with both values."""
    yield "permissions", oct(a.permissions), oct(b.permissions)
    yield "uid", a.uid, b.uid
    yield "gid", a.gid, b.gid
    yield "mtime_ns", a.mtime_ns, b.mtime_ns
    yield "xattrs", dict(a.xattrs), dict(b.xattrs)
    if isinstance(a, File) and isinstance(b, File):
        yield "size", a.content.size, b.content.size
    elif isinstance(a, Symlink) and isinstance(b, Symlink):
        yield "target", a.target, b.target
    elif isinstance(a, Special) and isinstance(b, Special):
        yield "device", (a.major, a.minor), (b.major, b.minor)


def _contents(path: bytes, a: Content, b: Content) -> Iterator[Difference]:
    """Yield the first difference between two contents of one size; what both call a hole is not read."""
    if isinstance(a, PassedContent):
        if a.digest != fingerprint(b):
            yield Difference(path, "content", a, b)
        return
    found = first_difference(a, b)
    if found is not None:
        at = found
        length = min(_SHOWN, a.size - at)
        yield Difference(path, "content", (at, a.read(at, length)), (at, b.read(at, length)))


def first_difference(a: Content, b: Content) -> int | None:
    """Return the first byte in which two contents of one size differ, None where they are equal."""
    first, second = bytearray(min(_CHUNK, a.size)), bytearray(min(_CHUNK, a.size))
    position = 0
    for start, length in merge(a.runs(), b.runs()):
        end = start + length
        position = max(position, start)
        while position < end:
            part = min(_CHUNK, end - position)
            if part != len(first):
                first, second = bytearray(part), bytearray(part)
            a.read_into(position, memoryview(first))
            b.read_into(position, memoryview(second))
            if first != second:
                return position + next(index for index in range(part) if first[index] != second[index])
            position += part
    return None
