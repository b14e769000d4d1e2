"""One connection's requests that were taken and not answered yet: how many, how many bytes, for how long.

Knows: counting, and waiting for room. Refuses to know: requests.
"""

from __future__ import annotations

import threading
import time

from blockwright.nbd.server.limits import PIECE, ByteBudget, Limits


class InFlight:
    """What one connection has under way. ``enter`` is called by its reading thread, ``leave`` by any."""

    def __init__(self, limits: Limits, budget: ByteBudget) -> None:
        self._limits = limits
        self._budget = budget
        self._changed = threading.Condition()
        self._since: dict[int, float] = {}
        self._costs: dict[int, int] = {}
        self._bytes = 0
        self._next = 0

    def enter(self, cost: int) -> int | None:
        """Wait for room for ``cost`` bytes and return a ticket; None where there is none within the time limit.

        A piece is let in once nothing else of this connection is under way, whatever others hold.
        """
        limit = self._limits.request_s
        began = time.monotonic()
        with self._changed:
            if not self._changed.wait_for(lambda: self._has_room(cost), limit):
                return None
        left = None if limit is None else max(0.0, began + limit - time.monotonic())
        if cost and not self._budget.take(cost, at_once=lambda: cost <= PIECE and not self._costs, timeout_s=left):
            return None
        with self._changed:
            ticket = self._next = self._next + 1
            self._costs[ticket] = cost
            self._bytes += cost
            self._since[ticket] = time.monotonic()
        return ticket

    def leave(self, ticket: int) -> None:
        """Give back the room."""
        with self._changed:
            cost = self._costs.pop(ticket)
            del self._since[ticket]
            self._bytes -= cost
            self._changed.notify_all()
            # Also nothing: whoever waits for the others' bytes may be alone now. And before anybody learns that
            # nothing is under way here: what has ended holds no bytes any more.
            self._budget.give_back(cost)

    def wait_until_empty(self, timeout_s: float | None = None) -> bool:
        """Return whether everything was answered within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._costs, timeout_s)

    @property
    def held(self) -> int:
        """The bytes that are under way."""
        return self._bytes

    @property
    def oldest_s(self) -> float:
        """For how long the oldest request has been under way; 0 where none is."""
        with self._changed:
            return time.monotonic() - next(iter(self._since.values())) if self._since else 0.0

    def _has_room(self, cost: int) -> bool:
        if not self._costs:
            return True
        limits = self._limits
        return (
            len(self._costs) < limits.connection_requests and self._bytes + cost <= limits.connection_bytes_in_flight
        )
