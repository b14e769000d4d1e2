"""file_contexts: which label a path gets, as libselinux finds it.

A line is an expression, perhaps a type of file, and a context. The last line that matches counts, but lines that are
plain paths count before all others. Beside the file are those that are read with it: ``.homedirs`` and ``.local``
behind it, ``.subs`` and ``.subs_dist`` with aliases of directories. ``<<none>>`` says that a path keeps its label.

All lines together are one machine, so a path costs its length, however many lines there are.

Knows: the files and their order. Refuses to know: trees.

Source: file_contexts(5), selabel_file(5), of libselinux 3.4.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from typing import Final, NamedTuple

from blockwright.errors import LimitExceeded
from blockwright.tree.automaton import Automaton, Expression, State, TooLarge
from blockwright.tree.changes.text import Line, read_host, shown
from blockwright.tree.selinux.regex import Unusable, translate
from blockwright.units import MiB

MAX_FILE: Final = 64 * MiB
MAX_RULES: Final = 200_000
MAX_ALIASES: Final = 1000
NONE: Final = b"<<none>>"

_KINDS: Final = {
    b"--": stat.S_IFREG,
    b"-d": stat.S_IFDIR,
    b"-c": stat.S_IFCHR,
    b"-b": stat.S_IFBLK,
    b"-l": stat.S_IFLNK,
    b"-p": stat.S_IFIFO,
    b"-s": stat.S_IFSOCK,
}
_CONTEXT: Final = re.compile(rb"[^\s:]+:[^\s:]+:[^\s:]+(:[!-~]+)?")


class Rule(NamedTuple):
    """A line that says what matches, of which kind of file (None is any), and its label (None is ``<<none>>``).

    ``literal`` is the path where the expression is nothing more than one.
    """

    kind: int | None
    literal: bytes | None
    expression: Expression
    context: bytes | None
    line: Line


class Alias(NamedTuple):
    """Paths at and below ``path`` are looked up as if they were at ``stands_for``."""

    path: bytes
    stands_for: bytes


class Contexts:
    """Rules in their order. ``subs`` are looked at before ``subs_dist``. Raises LimitExceeded with the line."""

    def __init__(self, rules: Sequence[Rule], subs: Sequence[Alias] = (), subs_dist: Sequence[Alias] = ()) -> None:
        self._literals: dict[bytes, list[tuple[int | None, bytes | None]]] = {}
        self._machine = Automaton()
        self._contexts = [rule.context for rule in rules]
        for number, rule in enumerate(rules):
            if rule.literal is not None:
                self._literals.setdefault(rule.literal, []).append((rule.kind, rule.context))
                continue
            try:
                self._machine.add(rule.expression, number, rule.kind)
            except TooLarge as error:
                raise LimitExceeded(str(error), source=str(rule.line)) from None
        self._subs, self._subs_dist = tuple(subs), tuple(subs_dist)
        self.aliased = frozenset(each.path for each in (*subs, *subs_dist))

    def lookup(self, path: bytes, kind: int) -> bytes | None:
        """Return the label of an absolute path, None where it keeps what it has. ``kind`` is a type of ``S_IFMT``."""
        path = self.alias(path)
        return self.find(path, kind, self.within(b""), path)

    def alias(self, path: bytes) -> bytes:
        """Return the path that a path is looked up as."""
        for aliases in (self._subs, self._subs_dist):
            path = _replaced(path, aliases)
        return path

    def within(self, directory: bytes) -> State:
        """Return what rules expect behind the path of a directory, which ends in a slash."""
        return self._machine.run(self._machine.start, directory)

    def find(self, path: bytes, kind: int, state: State, name: bytes) -> bytes | None:
        """Return the label of a path that is no alias; ``state`` is that in front of its last part, ``name``."""
        literal = self._literals.get(path)
        if literal is not None:
            for wanted, context in reversed(literal):
                if wanted is None or wanted == kind:
                    return context
        best = self._machine.run(state, name).best(kind)
        return None if best < 0 else self._contexts[best]


def _replaced(path: bytes, aliases: Sequence[Alias]) -> bytes:
    for each in aliases:
        length = len(each.path)
        if path.startswith(each.path) and path[length : length + 1] in (b"", b"/"):
            rest = path[length:]
            if each.stands_for == b"/":
                return rest or b"/"
            return each.stands_for + rest
    return path


def read_contexts(path: str) -> Contexts:
    """Return the rules of a file of the host and of those beside it. Raises as reading and parsing do, NotFound."""
    data = [(path, read_host(path, MAX_FILE))]
    data += [(path + each, read_host(path + each, MAX_FILE)) for each in _beside(path, (".homedirs", ".local"))]
    rules = [rule for name, text in data for rule in parse_contexts(text, name)]
    if len(rules) > MAX_RULES:
        raise LimitExceeded(f"expected at most {MAX_RULES} rules, found {len(rules)}", source=path)
    subs, dist = (
        parse_aliases(read_host(path + each, MAX_FILE), path + each) if _beside(path, (each,)) else []
        for each in (".subs", ".subs_dist")
    )
    return Contexts(rules, subs, dist)


def _beside(path: str, suffixes: tuple[str, ...]) -> list[str]:
    return [each for each in suffixes if os.path.exists(path + each)]


def parse_contexts(data: bytes, source: str) -> list[Rule]:
    """Return the rules of a file. Raises Corrupt, Unsupported or LimitExceeded with the line."""
    rules: list[Rule] = []
    for line, words in _lines(data, source):
        if len(rules) == MAX_RULES:
            raise LimitExceeded(f"expected at most {MAX_RULES} rules, found more", source=str(line))
        if len(words) not in (2, 3):
            raise line.corrupt(f"expected an expression, perhaps a type, and a context, found {len(words)} words")
        kind = None
        if len(words) == 3:
            kind = _KINDS.get(words[1])
            if kind is None:
                raise line.corrupt(f"type: expected one of {b' '.join(_KINDS).decode()}, found {shown(words[1])}")
        context = words[-1]
        if context != NONE and not _CONTEXT.fullmatch(context):
            raise line.corrupt(f"context: expected user:role:type:range or <<none>>, found {shown(context)}")
        try:
            literal, expression = translate(words[0])
        except Unusable as error:
            raise line.unsupported(f"expression {shown(words[0])}: {error}") from None
        rules.append(Rule(kind, literal, expression, None if context == NONE else context, line))
    return rules


def parse_aliases(data: bytes, source: str) -> list[Alias]:
    """Return the aliases of a file: an alias, and what it stands for. Raises Corrupt, LimitExceeded with the line."""
    found: list[Alias] = []
    for line, words in _lines(data, source):
        if len(words) != 2 or not all(each.startswith(b"/") for each in words) or not words[0].strip(b"/"):
            raise line.corrupt("expected two paths, an alias and what it stands for")
        if len(found) == MAX_ALIASES:
            raise LimitExceeded(f"expected at most {MAX_ALIASES} aliases, found more", source=str(line))
        found.append(Alias(words[0].rstrip(b"/"), words[1].rstrip(b"/") or b"/"))
    return found


def _lines(data: bytes, source: str) -> list[tuple[Line, list[bytes]]]:
    found = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        words = raw.split()
        if words and not words[0].startswith(b"#"):
            found.append((Line(source, number), words))
    return found
