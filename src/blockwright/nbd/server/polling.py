"""How long a connection is polled before its thread goes to sleep.

To be woken costs, above all in a virtual machine, more than to serve a small request, so a busy connection is polled
for about as long as that. What decides is whether it helped the last times, and whether a core can be spared: a
thread that polls while others wait for the core takes from them what it hoped to gain.

Knows: time, cores, and how often the host took the core away. Refuses to know: sockets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

MAX_NS: Final = 50_000
"""The longest poll: about what it takes to be woken on another core."""
LOOK_EVERY: Final = 64
"""Polls between two looks at whether the core was wanted by others."""
REST: Final = 4096
"""Waits without a poll after it was."""

if sys.platform == "linux":
    from resource import RUSAGE_THREAD, getrusage

    def _interruptions() -> int:
        """Return how often this thread had to leave a core that it wanted to keep."""
        return getrusage(RUSAGE_THREAD).ru_nivcsw

else:

    def _interruptions() -> int:
        """Return 0: nobody tells."""
        return 0


class Polling:
    """One connection's polls. ``has_spare_core`` says whether there are fewer sessions than cores."""

    def __init__(self, has_spare_core: Callable[[], bool]) -> None:
        self._has_spare_core = has_spare_core
        self._length_ns = 0
        self._polls = 0
        self._rest = 0
        self._seen = 0

    def length_ns(self) -> int:
        """Return how long to poll now; 0 for not at all."""
        if not self._length_ns or not self._has_spare_core():
            return 0
        if self._rest:
            self._rest -= 1
            return 0
        self._polls += 1
        if self._polls % LOOK_EVERY == 0:
            seen, self._seen = self._seen, _interruptions()
            if self._seen - seen > 1 and self._polls > LOOK_EVERY:
                self._rest = REST
                return 0
        return self._length_ns

    def waited(self, elapsed_ns: int) -> None:
        """Learn from a wait that was not ended by a poll: how long it took from its beginning."""
        # To poll longer than this never pays, and where nothing came in that time it did not pay at all.
        self._length_ns = MAX_NS if elapsed_ns < 2 * MAX_NS else self._length_ns // 4
