"""Reservations of ranges, so that no lock on a whole map is held during I/O.

Knows: which ranges are held, and who waits for whom. Refuses to know: what is done inside.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Hold:
    """One reservation of [start, end), waiting or granted."""

    __slots__ = ("end", "exclusive", "start")

    def __init__(self, start: int, end: int, *, exclusive: bool) -> None:
        self.start = start
        self.end = end
        self.exclusive = exclusive


class RangeLock:
    """Shared and exclusive holds on ranges [start, end).

    A hold waits only for holds that were asked for earlier, overlap it, and are exclusive where it is shared: first
    come, first served, so nobody starves. A thread must not ask for a second range while it holds a first one that
    overlaps it; for ranges that do not overlap, in ascending order only.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._holds: dict[_Hold, None] = {}  # in the order of asking
        self._waiting = 0

    @contextmanager
    def shared(self, start: int, end: int) -> Iterator[None]:
        """Hold the range together with other shared holds."""
        hold = self._acquire(start, end, exclusive=False)
        try:
            yield
        finally:
            self._release(hold)

    @contextmanager
    def exclusive(self, start: int, end: int) -> Iterator[None]:
        """Hold the range alone."""
        hold = self._acquire(start, end, exclusive=True)
        try:
            yield
        finally:
            self._release(hold)

    def wait_for_earlier(self) -> None:
        """Return when every hold that was asked for before this call has ended: what a flush needs."""
        with self._changed:
            earlier = list(self._holds)
            while any(hold in self._holds for hold in earlier):
                self._wait()

    @property
    def held(self) -> int:
        """The number of holds, waiting ones included."""
        return len(self._holds)

    def _acquire(self, start: int, end: int, *, exclusive: bool) -> _Hold:
        hold = _Hold(start, end, exclusive=exclusive)
        with self._changed:
            self._holds[hold] = None
            try:
                while self._must_wait(hold):
                    self._wait()
            except BaseException:
                del self._holds[hold]
                self._changed.notify_all()
                raise
        return hold

    def _wait(self) -> None:
        self._waiting += 1
        try:
            self._changed.wait()
        finally:
            self._waiting -= 1

    def _release(self, hold: _Hold) -> None:
        with self._changed:
            del self._holds[hold]
            if self._waiting:
                self._changed.notify_all()

    def _must_wait(self, hold: _Hold) -> bool:
        start, end, exclusive = hold.start, hold.end, hold.exclusive
        for other in self._holds:
            if other is hold:
                return False
            if other.start < end and start < other.end and (exclusive or other.exclusive):
                return True
        return False
