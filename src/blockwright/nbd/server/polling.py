"""Whether a connection is polled before its thread goes to sleep.

To be woken costs, above all in a virtual machine, more than to serve a small request. But a thread that polls a core
which its client or somebody else wants takes from them what it hoped to gain, and no number that the host has to give
tells the two apart. So it is tried: a few waits in each period are done the other way, and the quicker way is kept.

Knows: time and cores. Refuses to know: sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAX_NS: Final = 50_000
"""How long a poll lasts: about what it takes to be woken on another core."""
WORTHWHILE_NS: Final = 4 * MAX_NS
"""Waits that are longer than this are not shortened by a poll that matters."""
TRIAL: Final = 32
"""Waits at the beginning of a period that are done the other way."""
FIRST_PERIOD: Final = 128
LAST_PERIOD: Final = 4096
"""Waits from one judgement to the next: few at first, for a verdict soon, and then ever more."""
MARGIN: Final = 0.9
"""Polling has to be that much quicker: it costs a core."""


class Polling:
    """One connection's polls. ``has_spare_core`` says whether there are fewer sessions than cores.

    ``length_ns`` is asked before each wait, and ``waited`` told after it.
    """

    def __init__(self, has_spare_core: Callable[[], bool]) -> None:
        self._has_spare_core = has_spare_core
        self._pays = False
        self._period = FIRST_PERIOD
        self._waits = 0
        self._polls = False
        # What waits took in all, and how many there were: without a poll, and with one.
        self._taken = [0, 0]
        self._counts = [0, 0]

    def length_ns(self) -> int:
        """Return how long to poll now; 0 for not at all."""
        if self._waits == self._period:
            self._judge()
        self._waits += 1
        self._polls = self._pays != (self._waits <= TRIAL) and self._has_spare_core()
        return MAX_NS if self._polls else 0

    def waited(self, elapsed_ns: int) -> None:
        """Take note of how long the wait took from its beginning."""
        # One long silence says nothing about the others.
        self._taken[self._polls] += min(elapsed_ns, 2 * WORTHWHILE_NS)
        self._counts[self._polls] += 1

    def _judge(self) -> None:
        """Keep the quicker way for the next period."""
        without, polled = (taken / max(1, count) for taken, count in zip(self._taken, self._counts, strict=True))
        self._pays = bool(self._counts[1]) and polled < MARGIN * without and without < WORTHWHILE_NS
        self._period = min(LAST_PERIOD, self._period * 2)
        self._waits = 0
        self._taken, self._counts = [0, 0], [0, 0]
