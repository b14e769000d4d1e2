"""What a server counts: requests, bytes, errors and latencies, by export and command.

Knows: counters and histograms. Refuses to know: how they are shown.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

from blockwright.nbd.server.heat import Heat, HeatMap
from blockwright.nbd.wire import Command

OTHER: Final = -1
"""Counts for every command number that the protocol does not know: clients may send any."""

_KNOWN: Final = frozenset(map(int, Command))

BUCKETS_US: Final = tuple(1 << power for power in range(3, 25))
"""Upper bounds of the latency buckets in microseconds: 8 us to 16 s; one more bucket has no bound."""


@dataclass(slots=True)
class CommandMetrics:
    """Totals of one command: requests, those answered with an error, bytes, and latencies by bucket."""

    requests: int = 0
    errors: int = 0
    bytes: int = 0
    nanoseconds: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_US) + 1))


class ExportMetrics:
    """Totals of one export. Thread-safe; counts only grow. With ``heat`` it is also known which blocks are used."""

    def __init__(self, *, heat: bool = False) -> None:
        self._lock = threading.Lock()
        self.has_heat = heat
        self._heats: list[Heat] = []
        self._past = HeatMap(0, (), ())
        self._commands: dict[int, CommandMetrics] = {}

    def record(self, command: int, nanoseconds: int, length: int, *, count: int = 1, errors: int = 0) -> None:
        """Add ``count`` requests of ``length`` bytes in all that took ``nanoseconds`` each."""
        # Bounds are powers of two, so the bit length is the bucket, and costs less than a search.
        bucket = min(max(((nanoseconds - 1) // 1000).bit_length() - 3, 0), len(BUCKETS_US))
        with self._lock:
            found = self._commands.get(command)
            if found is None:
                command = command if command in _KNOWN else OTHER
                found = self._commands.setdefault(command, CommandMetrics())
            found.requests += count
            found.errors += errors
            found.bytes += length
            found.nanoseconds += nanoseconds * count
            found.buckets[bucket] += count

    def add(self, commands: dict[int, CommandMetrics]) -> None:
        """Add totals that another process has counted."""
        with self._lock:
            for number, more in commands.items():
                found = self._commands.setdefault(number, CommandMetrics())
                found.requests += more.requests
                found.errors += more.errors
                found.bytes += more.bytes
                found.nanoseconds += more.nanoseconds
                found.buckets = [a + b for a, b in zip(found.buckets, more.buckets, strict=True)]

    def begin_heat(self, size: int) -> Heat | None:
        """Return what a session over ``size`` bytes is to count in; None where nobody wants to know."""
        if not self.has_heat:
            return None
        found = Heat(size)
        with self._lock:
            self._heats.append(found)
        return found

    def end_heat(self, heat: Heat | None) -> None:
        """Keep what a session has counted, which has ended."""
        if heat is not None:
            with self._lock:
                self._heats.remove(heat)
                self._past += heat.snapshot()

    def heat(self) -> HeatMap:
        """Return which blocks were read and written so far."""
        with self._lock:
            return sum((each.snapshot() for each in self._heats), self._past)

    def take(self) -> dict[int, CommandMetrics]:
        """Return the totals and begin anew: for a process that tells another what it counts."""
        with self._lock:
            taken, self._commands = self._commands, {}
            return taken

    def commands(self) -> dict[int, CommandMetrics]:
        """Return the totals as they are now, by command number or OTHER."""
        with self._lock:
            return {
                number: CommandMetrics(each.requests, each.errors, each.bytes, each.nanoseconds, list(each.buckets))
                for number, each in self._commands.items()
            }


class ServerMetrics:
    """Totals of a server: of each export, and of connections. Thread-safe; an export keeps its totals by its name.

    With ``heat`` sessions also count which blocks they use.
    """

    def __init__(self, *, heat: bool = False) -> None:
        self._lock = threading.Lock()
        self._heat = heat
        self._exports: dict[str, ExportMetrics] = {}
        self._events: dict[tuple[str, str], int] = {}

    def export(self, name: str) -> ExportMetrics:
        """Return the totals of the export called ``name``."""
        with self._lock:
            found = self._exports.get(name)
            if found is None:
                found = self._exports[name] = ExportMetrics(heat=self._heat)
            return found

    def count(self, event: str, reason: str = "") -> None:
        """Count an event of a connection: ``accepted``, ``not accepted``, ``refused``, ``ended``.

        ``reason`` is one of a few words of ours or of the system's: what a client sends never stands in it.
        """
        with self._lock:
            self._events[event, reason] = self._events.get((event, reason), 0) + 1

    def exports(self) -> dict[str, ExportMetrics]:
        """Return the totals of all exports, by name."""
        with self._lock:
            return dict(self._exports)

    def events(self) -> dict[tuple[str, str], int]:
        """Return how often each (event, reason) was counted."""
        with self._lock:
            return dict(self._events)
