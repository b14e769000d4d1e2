"""Patterns of names, in the language of gitignore(5): which of a tree's names they mean.

``*``, ``?`` and ``[…]`` never match a slash, ``**`` does as a whole part of a path. A pattern with a slash anywhere
but at its end begins at the root; any other means a name at any depth. A slash at its end means directories. ``!``
in front takes back what patterns before it said; the last pattern that matches counts. What is within a directory
that is excluded is excluded, whatever other patterns say. A backslash takes what follows literally.

Knows: the language. Refuses to know: what becomes of the names.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import Final, NamedTuple

from blockwright.errors import LimitExceeded, UsageError
from blockwright.tree.automaton import (
    ALL,
    ANY,
    Automaton,
    Bytes,
    Expression,
    Repeated,
    Sequenced,
    State,
    TooLarge,
    literal,
)
from blockwright.tree.node import Directory

MAX_PATTERNS: Final = 100_000
MAX_PATTERN: Final = 4096
"""Bytes of a pattern."""

_SLASH: Final = Bytes(frozenset(b"/"))
_NO_SLASH: Final = Bytes(ALL - frozenset(b"/"))
_ABOVE: Final = Repeated(Sequenced((Repeated(_NO_SLASH, 1, None), _SLASH)), 0, None)
"""Directories above, any number."""


class _Rule(NamedTuple):
    """A pattern: ``literal`` is the name or path that it is where it is nothing more than one."""

    expression: Expression
    literal: bytes | None
    anchored: bool
    directory: bool
    negative: bool


class Patterns:
    """Patterns in their order. ``source`` is what messages call them."""

    def __init__(self, texts: Sequence[bytes], source: str = "pattern") -> None:
        if len(texts) > MAX_PATTERNS:
            raise LimitExceeded(f"expected at most {MAX_PATTERNS} patterns, found {len(texts)}", source=source)
        self._negative: list[bool] = []
        self._machine = Automaton()
        self._names: dict[tuple[bytes, bool], int] = {}
        self._paths: dict[tuple[bytes, bool], int] = {}
        for number, text in enumerate(texts):
            rule = _parse(text, source)
            self._negative.append(rule.negative)
            if rule.literal is not None:
                literals = self._paths if rule.anchored else self._names
                literals[rule.literal, True] = number
                if not rule.directory:
                    literals[rule.literal, False] = number
                continue
            expression = rule.expression if rule.anchored else Sequenced((_ABOVE, rule.expression))
            try:
                self._machine.add(expression, number, stat.S_IFDIR if rule.directory else None)
            except TooLarge as error:
                raise LimitExceeded(str(error), source=source) from None

    def __bool__(self) -> bool:
        return bool(self._negative)

    def within(self, directory: bytes) -> State:
        """Return what patterns expect behind the path of a directory, empty or with a slash at its end."""
        return self._machine.run(self._machine.start, directory)

    def matches(self, path: bytes, name: bytes, state: State, *, directory: bool) -> bool:
        """Whether the last pattern that matches ``path`` (no slash in front) is not a negative one.

        ``state`` is that in front of its last part, ``name``.
        """
        best = max(self._names.get((name, directory), -1), self._paths.get((path, directory), -1))
        best = max(best, self._machine.run(state, name).best(stat.S_IFDIR if directory else stat.S_IFREG))
        return best >= 0 and not self._negative[best]


def read_patterns(data: bytes) -> list[bytes]:
    """Return the patterns of a file: one a line, without empty lines and those that begin with ``#``."""
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    return [line for line in lines if line.strip() and not line.startswith(b"#")]


def exclude(root: Directory, patterns: Patterns) -> Directory:
    """Return the tree without what the patterns match."""
    top = _emptied(root)
    stack = [(b"", root, top)]
    while stack:
        prefix, old, new = stack.pop()
        state = patterns.within(prefix)
        for name, node in old.entries.items():
            path = prefix + name
            directory = isinstance(node, Directory)
            if patterns.matches(path, name, state, directory=directory):
                continue
            if isinstance(node, Directory):
                made = new.entries[name] = _emptied(node)
                stack.append((path + b"/", node, made))
            else:
                new.entries[name] = node
    return top


def only(root: Directory, patterns: Patterns) -> Directory:
    """Return the tree of what the patterns match, with all below it and the directories above it."""
    top = _emptied(root)
    stack: list[tuple[bytes, Directory, tuple[Directory, ...], tuple[bytes, ...]]] = [(b"", root, (top,), ())]
    while stack:
        prefix, old, trail, names = stack.pop()
        state = patterns.within(prefix)
        for name, node in old.entries.items():
            path = prefix + name
            if patterns.matches(path, name, state, directory=isinstance(node, Directory)):
                for upper, lower, each in zip(trail, trail[1:], names, strict=False):
                    upper.entries.setdefault(each, lower)
                trail[-1].entries[name] = node
            elif isinstance(node, Directory):
                stack.append((path + b"/", node, (*trail, _emptied(node)), (*names, name)))
    return top


def _emptied(node: Directory) -> Directory:
    return Directory(node.permissions, node.uid, node.gid, node.mtime_ns, node.xattrs)


def _parse(text: bytes, source: str) -> _Rule:
    shown = text[:80].decode("utf-8", "replace")
    if len(text) > MAX_PATTERN:
        raise LimitExceeded(f"expected patterns of at most {MAX_PATTERN} bytes, found {len(text)}", source=source)
    pattern = _stripped(text)
    negative = pattern.startswith(b"!")
    pattern = pattern[negative:]
    directory = pattern.endswith(b"/")
    pattern = pattern.rstrip(b"/") if directory else pattern
    anchored = b"/" in pattern
    pattern = pattern.lstrip(b"/")
    if not pattern or b"\0" in pattern:
        raise UsageError(f"{source}: expected a pattern of names, found {shown!r}")
    parts = pattern.split(b"/")
    if any(part in (b".", b"..") for part in parts):
        raise UsageError(f"{source}: expected a pattern without . and .., found {shown!r}")
    if not any(each in pattern for each in b"*?[\\"):
        return _Rule(literal(pattern), pattern, anchored, directory, negative)
    return _Rule(Sequenced(tuple(_translated(parts, source, shown))), None, anchored, directory, negative)


def _stripped(text: bytes) -> bytes:
    """Return a pattern without spaces at its end, but for one behind a backslash."""
    stripped = text.rstrip(b" ")
    if stripped.endswith(b"\\") and len(stripped) < len(text):
        stripped += b" "
    return stripped


def _translated(parts: list[bytes], source: str, shown: str) -> list[Expression]:
    found: list[Expression] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == b"**":
            if last:
                found.append(Repeated(ANY, 1, None))
            elif not (number and parts[number - 1] == b"**"):
                found.append(_ABOVE)
            continue
        found += _component(part, source, shown)
        if not last:
            found.append(_SLASH)
    return found


def _component(part: bytes, source: str, shown: str) -> list[Expression]:
    found: list[Expression] = []
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == ord("*"):
            while part[at : at + 1] == b"*":
                at += 1
            found.append(Repeated(_NO_SLASH, 0, None))
        elif char == ord("?"):
            found.append(_NO_SLASH)
        elif char == ord("["):
            members, at = _members(part, at, source, shown)
            found.append(Bytes(members))
        else:
            if char == ord("\\"):
                if at == len(part):
                    raise UsageError(f"{source}: expected something behind the backslash, found {shown!r}")
                char = part[at]
                at += 1
            found.append(Bytes(frozenset((char,))))
    return found


def _members(part: bytes, at: int, source: str, shown: str) -> tuple[frozenset[int], int]:
    """Return the bytes of a set that begins before ``at``, and where it ends."""
    negative = part[at : at + 1] in (b"!", b"^")
    at += negative
    members: set[int] = set()
    first = True
    while True:
        if at >= len(part):
            raise UsageError(f"{source}: expected ] behind the [, found {shown!r}")
        low = part[at]
        at += 1
        if low == ord("]") and not first:
            break
        first = False
        if low == ord("\\") and at < len(part):
            low = part[at]
            at += 1
        high = low
        if part[at : at + 1] == b"-" and part[at + 1 : at + 2] not in (b"", b"]"):
            high = part[at + 1]
            at += 2
        members.update(range(low, high + 1))
    return frozenset((ALL - members if negative else members) - {ord("/")}), at
