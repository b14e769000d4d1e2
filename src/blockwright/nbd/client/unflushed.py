"""Writes that the server acknowledged and no flush has covered yet: what a server that restarts may have forgotten.

They are kept, in the order of their acknowledgement, until a flush succeeds, and are made again behind a reconnect.
Where they need more than the budget they are not kept: then the next flush behind a reconnect must fail.

Knows: what would have to be made again. Refuses to know: connections.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from blockwright.nbd.protocol.call import Call
from blockwright.nbd.wire import Command, CommandFlag

_OVERHEAD: Final = 256
"""What an entry costs beside its data."""


class Entry(NamedTuple):
    """A write to make again; ``data`` is None for zeros, of which there are ``length``."""

    number: int
    offset: int
    length: int
    flags: int
    data: bytes | None

    @property
    def cost(self) -> int:
        """The memory it takes."""
        return _OVERHEAD + len(self.data or b"")


class Unflushed:
    """The writes since the last flush. ``lock`` orders what is noted and what is taken for making it again."""

    def __init__(self, budget: int) -> None:
        self.lock = threading.Lock()
        self._budget = budget
        self._entries: deque[Entry] = deque()
        self._cost = 0
        self._number = 0
        self._over = 0  # the number of the last write that was not kept
        self._forgotten = 0  # the number of the last write that a server may have forgotten for good

    def note(self, calls: Sequence[Call]) -> None:
        """Keep writes that were acknowledged, while their buffers are still there; the caller holds ``lock``."""
        for call in calls:
            assert call.command in (Command.WRITE, Command.WRITE_ZEROES), "what a discard leaves is anything"
            if call.flags & CommandFlag.FUA and not self._entries and not self._over:
                continue  # it is durable, and nothing that is made again could cover it
            self._number += 1
            size = call.length if call.command == Command.WRITE else 0
            if self._over or self._cost + size + _OVERHEAD > self._budget:
                self._entries.clear()
                self._cost = 0
                self._over = self._number
                continue
            data = b"".join(call.buffers) if call.command == Command.WRITE else None
            entry = Entry(self._number, call.offset, call.length, call.flags & ~CommandFlag.FAST_ZERO, data)
            self._entries.append(entry)
            self._cost += entry.cost

    def mark(self) -> int:
        """Return a number for ``flushed``: all that was noted until now. A flush must be sent behind this call."""
        with self.lock:
            return self._number

    def flushed(self, mark: int) -> None:
        """Forget what a flush that succeeded has covered."""
        with self.lock:
            while self._entries and self._entries[0].number <= mark:
                self._cost -= self._entries.popleft().cost
            if self._over <= mark:
                self._over = 0

    def lost(self) -> list[Entry]:
        """Return what must be made again, first things first, now that the server may have forgotten it."""
        with self.lock:
            if self._over:
                self._forgotten = self._over
            return list(self._entries)

    def take_forgotten(self) -> bool:
        """Say whether the server may have forgotten writes that were not kept; only once for the same ones."""
        with self.lock:
            forgotten, self._forgotten = self._forgotten, 0
            if forgotten and self._over <= forgotten:
                self._over = 0
            return bool(forgotten)
