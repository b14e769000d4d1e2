"""Connections that could not be accepted: each is counted, and what keeps failing is told where it begins and ends.

Knows: which failures are one trouble. Refuses to know: sockets, but to tell them apart.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from blockwright.nbd.server.log import Log
from blockwright.nbd.server.metrics import ServerMetrics

QUIET_S: Final = 5.0
"""Seconds without a failure that end a trouble: a server at its limit has one with every client that goes."""

_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What all listeners lack together."""


@dataclass(slots=True)
class _Trouble:
    reason: str
    failed: int
    last: float
    works: bool = False


class Unaccepted:
    """Failures of one accept loop, whose thread makes all calls.

    A trouble is one error: of the listener that has it, of all of them where the process or the host is out of
    something. It is over when connections are accepted again and none has failed for ``QUIET_S`` seconds.
    """

    def __init__(self, log: Log, metrics: ServerMetrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._troubles: dict[tuple[int | None, Hashable], _Trouble] = {}

    def failed(self, listener: Hashable, error: OSError) -> None:
        """Take note that ``listener`` has a connection that could not be accepted."""
        self._metrics.count("not accepted", errno.errorcode.get(error.errno or 0, "other"))
        key = (error.errno, None if error.errno in _SHORT else listener)
        trouble = self._troubles.get(key)
        if trouble is None:
            trouble = self._troubles[key] = _Trouble((error.strerror or str(error)).lower(), 0, 0)
            self._log("not accepted", reason=trouble.reason)
        trouble.failed += 1
        trouble.last = self._clock()
        trouble.works = False

    def accepted(self, listener: Hashable) -> None:
        """Take note that ``listener`` had a connection that was accepted."""
        for (_, of), trouble in self._troubles.items():
            if of is None or of == listener:
                trouble.works = True

    def look(self) -> None:
        """Tell which troubles are over; to be called every now and then."""
        if not self._troubles:
            return
        quiet = self._clock() - QUIET_S
        for key, trouble in list(self._troubles.items()):
            if trouble.works and trouble.last <= quiet:
                del self._troubles[key]
                self._log("accepting again", reason=trouble.reason, failed=trouble.failed)
