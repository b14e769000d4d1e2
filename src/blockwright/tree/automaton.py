"""Many regular expressions over bytes as one machine: which is the last of them that matches a whole text.

A machine of positions (Glushkov's) whose sets of positions become states as texts need them. Each byte of a text is
looked at once, whatever the expressions are, so no text takes time without bound; and where texts begin alike, as
paths within a directory do, what they share is looked at once for all of them.

Knows: expressions as values, and matching. Refuses to know: how expressions are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_POSITIONS: Final = 4_000_000
"""Places in all expressions together where a byte is expected."""
MAX_FOLLOWERS: Final = 200_000
"""Pairs of places of one expression that can stand behind one another."""
MAX_STATES: Final = 20_000
MAX_EXPECTED: Final = 2_000_000
"""States that are kept, and places that all of them expect next; beyond, all are forgotten, and found anew."""

ALL: Final = frozenset(range(256))


class TooLarge(ValueError):
    """An expression, or all together, would take too much memory."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """One byte out of a set."""

    members: frozenset[int]


@dataclass(frozen=True, slots=True)
class Sequenced:
    """One part behind the other."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of several parts."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    """A part ``least`` to ``most`` times; None is without limit."""

    part: Expression
    least: int
    most: int | None


Expression = Bytes | Sequenced | Either | Repeated

ANY: Final = Bytes(ALL)


def literal(text: bytes) -> Sequenced:
    """Return the expression for a text."""
    return Sequenced(tuple([_ONE[each] for each in text]))


_ONE: Final = [Bytes(frozenset((each,))) for each in range(256)]


class _Piece:
    """Part of an expression: whether it may be empty, and the positions that it begins and ends with."""

    __slots__ = ("empty", "first", "last")

    def __init__(self, *, empty: bool, first: list[int], last: list[int]) -> None:
        self.empty = empty
        self.first = first
        self.last = last


class State:
    """What is expected next. ``ends`` are the numbers of expressions that match here, each with its kind."""

    __slots__ = ("_best", "dead", "ends", "expected", "others", "single", "table")

    def __init__(self, positions: Sequence[int], machine: Automaton) -> None:
        self.table: dict[int, State] = {}
        self._best: dict[int, int] = {}
        self.ends = [machine.ends[each] for each in positions if each in machine.ends]
        expected: set[int] = set()
        for each in positions:
            expected.update(machine.followers[each])
        self.single: dict[int, list[int]] = {}
        self.others: list[tuple[frozenset[int], int]] = []
        for each in expected:
            members = machine.members[each]
            if len(members) == 1:
                (byte,) = members
                self.single.setdefault(byte, []).append(each)
            else:
                self.others.append((members, each))
        self.expected = len(expected)
        self.dead = not expected and not self.ends

    def best(self, kind: int) -> int:
        """Return the greatest number of an expression of that kind, or of any, that matches here; -1 for none."""
        found = self._best.get(kind)
        if found is None:
            found = max((number for number, of in self.ends if of in (None, kind)), default=-1)
            self._best[kind] = found
        return found


class Automaton:
    """Expressions, each with a number and the kind of thing that it is for; None is for any."""

    def __init__(self) -> None:
        # Position 0 is in front of everything.
        self.members: list[frozenset[int]] = [frozenset()]
        self.followers: list[list[int]] = [[]]
        self.ends: dict[int, tuple[int, int | None]] = {}
        self._states: dict[frozenset[int], State] = {}
        self._expected = 0
        self._start: State | None = None

    def add(self, expression: Expression, number: int, kind: int | None = None) -> None:
        """Add an expression that does not match the empty text. Raises TooLarge."""
        size = len(self.members)
        piece = self._emit(expression, [0])
        if len(self.members) > MAX_POSITIONS:
            raise TooLarge(f"expected at most {MAX_POSITIONS} places for bytes, found more")
        assert size < len(self.members), "an expression has a byte"
        self.followers[0] += piece.first
        for each in piece.last:
            self.ends[each] = number, kind
        self._start = None

    @property
    def start(self) -> State:
        """The state in front of a text."""
        if self._start is None:
            self._start = State((0,), self)
        return self._start

    def run(self, state: State, text: bytes) -> State:
        """Return the state behind a text that begins in ``state``."""
        for byte in text:
            following = state.table.get(byte)
            if following is None:
                if state.dead:
                    return state
                following = self._step(state, byte)
            state = following
        return state

    def _step(self, state: State, byte: int) -> State:
        matched = frozenset([*state.single.get(byte, ()), *[each for of, each in state.others if byte in of]])
        found = self._states.get(matched)
        if found is None:
            if len(self._states) >= MAX_STATES or self._expected >= MAX_EXPECTED:
                self._forget()
            found = self._states[matched] = State(tuple(matched), self)
            self._expected += found.expected
        state.table[byte] = found
        return found

    def _forget(self) -> None:
        for each in self._states.values():
            each.table.clear()  # no circles are left, so that memory is given back at once
        self._states.clear()
        self._expected = 0
        if self._start is not None:
            self._start.table.clear()

    def _emit(self, expression: Expression, budget: list[int]) -> _Piece:
        """Add an expression's positions, and say which of them follow one another."""
        if isinstance(expression, Bytes):
            self.members.append(expression.members)
            self.followers.append([])
            if len(self.members) > MAX_POSITIONS:
                raise TooLarge(f"expected at most {MAX_POSITIONS} places for bytes, found more")
            here = [len(self.members) - 1]
            return _Piece(empty=False, first=here, last=here)
        if isinstance(expression, Sequenced):
            whole = _Piece(empty=True, first=[], last=[])
            for part in expression.parts:
                whole = self._joined(whole, self._emit(part, budget), budget)
            return whole
        if isinstance(expression, Either):
            pieces = [self._emit(part, budget) for part in expression.parts]
            return _Piece(
                empty=any(each.empty for each in pieces),
                first=[position for each in pieces for position in each.first],
                last=[position for each in pieces for position in each.last],
            )
        return self._repeated(expression, budget)

    def _repeated(self, expression: Repeated, budget: list[int]) -> _Piece:
        whole = _Piece(empty=True, first=[], last=[])
        for number in range(expression.least if expression.most is None else expression.most):
            piece = self._emit(expression.part, budget)
            piece.empty |= number >= expression.least
            whole = self._joined(whole, piece, budget)
        if expression.most is None:
            piece = self._emit(expression.part, budget)
            piece.empty = True
            self._follow(piece.last, piece.first, budget)
            whole = self._joined(whole, piece, budget)
        return whole

    def _joined(self, left: _Piece, right: _Piece, budget: list[int]) -> _Piece:
        self._follow(left.last, right.first, budget)
        return _Piece(
            empty=left.empty and right.empty,
            first=left.first + right.first if left.empty else left.first,
            last=left.last + right.last if right.empty else right.last,
        )

    def _follow(self, last: list[int], first: list[int], budget: list[int]) -> None:
        budget[0] += len(last) * len(first)
        if budget[0] > MAX_FOLLOWERS:
            raise TooLarge(f"expected at most {MAX_FOLLOWERS} ways from one byte to the next, found more")
        for each in last:
            self.followers[each] += first
