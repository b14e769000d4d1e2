"""A session from the end of its handshake on: the same in the process that accepted it and in a worker.

Knows: what one session is made of. Refuses to know: handshakes and processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from blockwright.nbd.protocol.session import Session
from blockwright.nbd.server.commands import Commands
from blockwright.nbd.server.ending import Ending, ended_by
from blockwright.nbd.server.export import Served
from blockwright.nbd.server.failure import failure
from blockwright.nbd.server.flight import InFlight
from blockwright.nbd.server.inbox import Inbox
from blockwright.nbd.server.limits import ByteBudget, Limits
from blockwright.nbd.server.log import Log
from blockwright.nbd.server.metrics import ExportMetrics
from blockwright.nbd.server.outbox import Outbox
from blockwright.nbd.server.polling import Polling
from blockwright.nbd.server.transmission import Transmission
from blockwright.nbd.transport import Stream


class SessionRun:
    """One session over a stream, which stays its caller's. ``serve`` is called once, the rest by any thread."""

    def __init__(
        self,
        stream: Stream,
        session: Session,
        served: Served,
        limits: Limits,
        budget: ByteBudget,
        metrics: ExportMetrics,
        log: Log,
        stopping: threading.Event,
        has_spare_core: Callable[[], bool],
    ) -> None:
        self._stream = stream
        self._limits = limits
        self._flight = InFlight(limits, budget)
        self._inbox = Inbox(stream, Polling(has_spare_core), idle_s=limits.idle_s, request_s=limits.request_s)
        self._outbox = Outbox(stream, self._cannot_send)
        commands = Commands(session, served, self._outbox, self._flight, metrics, log)
        self._loop = Transmission(self._inbox, self._outbox, session, commands, metrics, stopping.is_set)
        self._cut_off: Ending | None = None

    def serve(self) -> Ending:
        """Serve until the session ends, with every request answered or given up, and return why. Never raises."""
        try:
            ending = self._loop.serve()
        except Exception as error:  # noqa: BLE001 - also a bug of ours, or of a device: one client must not end others
            ending = ended_by(error)
        # Workers may still be at it, and the device and the stream must outlast them.
        self._flight.wait_until_empty()
        self._outbox.wait_until_sent()
        return self._cut_off or ending

    @property
    def bytes_in_flight(self) -> int:
        """The bytes that requests under way hold."""
        return self._flight.held

    def cut_off(self, ending: Ending) -> None:
        """End the session from another thread."""
        self._cut_off = self._cut_off or ending
        self._stream.shut_down()

    def cut_off_if_stuck(self) -> None:
        """End the session if one of its requests has been under way for longer than the limit."""
        limit = self._limits.request_s
        if limit is not None and self._flight.oldest_s > limit:
            self.cut_off(Ending("cut off", f"a request took more than {limit:g} s"))

    def wait_until_idle(self, timeout_s: float) -> None:
        """Return when nothing is under way, or the time is over."""
        self._flight.wait_until_empty(timeout_s)

    def _cannot_send(self, error: Exception) -> None:
        """End a session whose replies cannot be sent, also for the thread that waits for requests."""
        how = "timeout" if isinstance(error, TimeoutError) else "broken"
        self.cut_off(Ending(how, f"replies cannot be sent: {failure(error)[1]}"))
