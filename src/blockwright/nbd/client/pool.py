"""The connections of one device: several at once where the server allows it, and new ones when they end.

All connections end together. A server that lost one may have restarted, and then what it acknowledged on any of them
and did not flush may be gone: the first new connection makes those writes again before anything else is asked, and
no request on an older connection may overtake that.

No thread works in the background: whoever needs a connection makes it, and the others wait for him.

Knows: dialling again, backing off, what must be as before. Refuses to know: what calls are for.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from blockwright.errors import Cancelled, ConnectionLost, NotFound, Refused, RemoteProtocolError
from blockwright.nbd.client.connection import Connection, PendingCall
from blockwright.nbd.client.unflushed import Entry, Unflushed
from blockwright.nbd.protocol.session import Session
from blockwright.nbd.wire import Command, TransmissionFlag

FIRST_PAUSE_S: Final = 0.05
"""The pause behind the first attempt to connect again that fails; each further one is twice as long."""
LONGEST_PAUSE_S: Final = 5.0
_LEAST_S: Final = 0.25
"""The time below which a further connection is not tried: a server that takes none must have had time to take one."""

Dial = Callable[[float | None], Connection]
"""Connects and shakes hands within so many seconds."""

_NEEDED: Final = (
    TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_TRIM
    | TransmissionFlag.SEND_WRITE_ZEROES
    | TransmissionFlag.SEND_FAST_ZERO
    | TransmissionFlag.SEND_CACHE
    | TransmissionFlag.CAN_MULTI_CONN
    | TransmissionFlag.SEND_RESIZE
)
"""What a device has promised to its users, and a server that comes back must still have."""


class _AnotherExport(ConnectionLost):
    """A server came back that cannot keep the promise; to try again is pointless."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What the device told its users, to which every further connection must fit."""

    size: int
    flags: TransmissionFlag
    minimum_block: int
    maximum_payload: int
    writable: bool
    contexts: frozenset[str] = frozenset()

    def check(self, session: Session) -> None:
        """Raise ConnectionLost where the server is another than it was."""
        export, blocks = session.export, session.export.blocks
        problem = ""
        if export.size < self.size:
            problem = f"expected {self.size} bytes, found {export.size}"
        elif missing := self.flags & _NEEDED & ~export.flags:
            problem = f"expected {missing.name}, found it gone"
        elif gone := self.contexts - set(session.contexts.values()):
            problem = f"expected the meta context {min(gone)}, found it gone"
        elif self.writable and export.flags & TransmissionFlag.READ_ONLY:
            problem = "expected to write, found it read-only"
        elif blocks is not None and (blocks.minimum > self.minimum_block or blocks.maximum < self.maximum_payload):
            problem = (
                f"expected blocks from {self.minimum_block} and payloads to {self.maximum_payload} bytes, "
                f"found {blocks.minimum} and {blocks.maximum}"
            )
        if problem:
            raise _AnotherExport(f"the export is not what it was: {problem}")


class Pool:
    """Up to ``limit`` connections, of which the first is given. ``dial`` makes others; None: there are none.

    ``reconnect_s`` is how long a lost connection is tried for again. ``cancellations`` counts calls of ``cancel``.
    """

    def __init__(
        self,
        first: Connection,
        dial: Dial | None,
        promise: Promise,
        unflushed: Unflushed,
        *,
        limit: int,
        reconnect_s: float,
    ) -> None:
        self.promise = promise
        self.cancellations = 0
        self.reconnects = 0
        self._connections = [first]
        self._dial = dial
        self._unflushed = unflushed
        self._limit = limit if dial is not None else 1
        self._reconnect_s = reconnect_s
        self._changed = threading.Condition(threading.Lock())
        self._connecting = False
        self._closed = False
        self._lost_at: float | None = None
        self._pause_s = FIRST_PAUSE_S

    def pick(self, ends: float | None, cancellations: int) -> Connection:
        """Return a living connection, the one with the fewest requests out; makes one where that helps.

        Raises Cancelled where ``cancel`` was called since there were ``cancellations``; ConnectionLost,
        TimeoutError, RemoteProtocolError where there is no connection to be had.
        """
        connections = self._connections
        best = connections[0] if len(connections) == 1 else min(connections, key=_load)
        if best.failure is None:
            if not best.load or len(connections) >= self._limit:
                return best
            return self._another(ends) or best
        return self._recover(best.failure, ends, cancellations)

    def idle(self) -> Connection | None:
        """Return a living connection without making one."""
        connection = self._connections[0]
        return connection if connection.failure is None else None

    def resized(self, size: int) -> None:
        """Promise another size from now on."""
        self.promise = replace(self.promise, size=size)

    def cancel(self) -> None:
        """End all that waits for the server; the next call connects again."""
        with self._changed:
            self.cancellations += 1
            self._changed.notify_all()
        for each in self._connections:
            each.fail(Cancelled("the call was cancelled"))

    def close(self) -> None:
        """Close all connections; no call may be under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for each in self._connections:
            each.close()

    # -- more connections --------------------------------------------------------------------------------------

    def _another(self, ends: float | None = None) -> Connection | None:
        """Return a further connection, unless another thread is making one or the server refuses.

        It is made in half the time that is left until ``ends``: the call has to be done too, without it if need be.
        """
        left = None if ends is None else _shortest(ends, math.inf) / 2
        if left is not None and left < _LEAST_S:
            return None
        with self._changed:
            if self._connecting or self._closed or len(self._connections) >= self._limit:
                return None
            self._connecting = True
            beside = self._connections
        made = None
        try:
            made = self._made(left)
        except (OSError, NotFound, Refused, RemoteProtocolError):
            self._limit = max(1, len(beside))
        finally:
            with self._changed:
                self._connecting = False
                self._changed.notify_all()
                if made is not None and self._connections is beside and all(e.failure is None for e in beside):
                    self._connections = [*beside, made]
                elif made is not None:
                    made.close()
                    made = None
        return made

    def _made(self, timeout_s: float | None) -> Connection:
        assert self._dial is not None, "who cannot dial has one connection"
        connection = self._dial(timeout_s)
        try:
            self.promise.check(connection.session)
        except BaseException:
            connection.close()
            raise
        return connection

    # -- instead of lost ones ----------------------------------------------------------------------------------

    def _recover(self, failure: Exception, ends: float | None, cancellations: int) -> Connection:
        """Return the first connection of a new set, made by this thread or by another."""
        while True:
            with self._changed:
                while self._connecting:
                    self._check(ends, cancellations)
                    self._changed.wait(_shortest(ends, LONGEST_PAUSE_S))
                self._check(ends, cancellations)
                if self._connections[0].failure is None:
                    return self._connections[0]
                if self._dial is None or isinstance(failure, RemoteProtocolError) or not self._reconnect_s:
                    raise again(failure)
                self._connecting = True
            try:
                return self._replace(ends)
            except _TryAgain as refusal:
                reason = refusal.reason
            finally:
                with self._changed:
                    self._connecting = False
                    self._changed.notify_all()
            self._back_off(reason, ends, cancellations)

    def _replace(self, ends: float | None) -> Connection:
        """Connect once, make the unflushed writes again, and put the connection in place of all others."""
        for each in self._connections:
            each.fail(ConnectionLost("another connection to the server ended"))
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        kept = self._unflushed.lost()
        try:
            connection = self._made(_shortest(ends, self._reconnect_s))
        except _AnotherExport:
            raise
        except (OSError, NotFound, Refused, RemoteProtocolError) as error:
            raise _TryAgain(error) from None
        try:
            _make_again(connection, kept, ends)
        except BaseException as error:
            connection.close()
            if isinstance(error, ConnectionLost):
                raise _TryAgain(error) from None
            raise
        old, self._connections = self._connections, [connection]
        for each in old:
            each.close()
        self._lost_at, self._pause_s = None, FIRST_PAUSE_S
        self.reconnects += 1
        return connection

    def _back_off(self, reason: Exception, ends: float | None, cancellations: int) -> None:
        """Wait before the next attempt, or raise where there shall be none."""
        with self._changed:
            lost_for = time.monotonic() - (self._lost_at or time.monotonic())
            if lost_for >= self._reconnect_s:
                self._lost_at, self._pause_s = None, FIRST_PAUSE_S
                if isinstance(reason, RemoteProtocolError):
                    raise again(reason)
                raise ConnectionLost(f"the connection is lost, and no other is to be had: {_text(reason)}")
            until = time.monotonic() + min(self._pause_s, self._reconnect_s - lost_for)
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
            while (left := until - time.monotonic()) > 0:
                self._check(ends, cancellations)
                self._changed.wait(_shortest(ends, left))

    def _check(self, ends: float | None, cancellations: int) -> None:
        """Raise where the call must not wait any longer."""
        if self.cancellations != cancellations:
            raise Cancelled("the call was cancelled")
        if ends is not None and time.monotonic() > ends:
            raise TimeoutError("the server is gone, and did not come back in time")


class _TryAgain(Exception):
    """Never leaves this module."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason = reason


def _make_again(connection: Connection, entries: list[Entry], ends: float | None) -> None:
    """Write what an earlier server acknowledged and did not flush. Raises ConnectionLost, PeerError."""
    for entry in entries:
        command = Command.WRITE_ZEROES if entry.data is None else Command.WRITE
        buffers = () if entry.data is None else (memoryview(entry.data),)
        call = PendingCall(command, entry.offset, entry.length, flags=entry.flags, buffers=buffers)
        connection.start([call], ends)
        connection.wait(call, ends)
        if call.lost is not None:
            raise ConnectionLost(f"the connection ended again: {_text(call.lost)}")
        if call.error:
            raise ConnectionLost(
                f"the server came back, and refuses a write that it had taken before (error {call.error})"
            )


def again(failure: Exception) -> Exception:
    """Return an exception like ``failure`` to raise in another thread: each needs a traceback of its own."""
    if isinstance(failure, RemoteProtocolError):
        return RemoteProtocolError(*failure.args)
    if isinstance(failure, Cancelled):
        return Cancelled(*failure.args)
    return ConnectionLost(_text(failure))


def _text(error: Exception) -> str:
    return str(error) if not isinstance(error, OSError) else str(error.strerror or error).lower()


def _load(connection: Connection) -> int:
    return connection.load if connection.failure is None else -1


def _shortest(ends: float | None, seconds: float) -> float:
    """Return the seconds to wait: those given, or those until ``ends`` where they are fewer."""
    return seconds if ends is None else max(0.0, min(seconds, ends - time.monotonic()))
