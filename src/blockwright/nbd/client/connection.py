"""One connection in transmission, used by many threads at once, with no thread of its own.

Any thread sends its requests and waits for its replies. Of those that wait, one receives for all: when its own reply
is whole it hands the task to another. So a reply that nobody else waits for costs no change of threads.

A thread that waits for read data never waits for anything but its replies: it sends all requests of a call at once.
So some thread always receives while others send, and a server that answers before it reads on cannot block both.

Knows: who sends, who receives, and how both end. Refuses to know: reconnecting, and what calls mean.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Final

from blockwright.errors import BlockwrightError, ConnectionLost, RemoteProtocolError
from blockwright.nbd.protocol.call import Call, encode
from blockwright.nbd.protocol.reply_reader import BULK, ReplyReader
from blockwright.nbd.protocol.session import Session
from blockwright.nbd.transport import Stream
from blockwright.nbd.wire import Command
from blockwright.units import KiB

JOINED: Final = 16 * KiB
"""Up to how many bytes the data of a write is copied behind its header, which is cheaper than sending parts."""

_TICK_S: Final = 1.0
"""How often the receiving thread looks at the clock, where no deadline is nearer."""

_LEAVE_S: Final = 5.0
"""How long whoever receives or sends may take to leave a stream that has ended, and a server to answer hints."""


class PendingCall(Call):
    """A call that a thread waits for. ``lost`` says why its connection ended before the reply was whole."""

    __slots__ = ("lost", "wake", "whole")

    def reset(self) -> None:
        """Forget what came back, so that the call can be made again."""
        super().reset()
        self.whole = False
        self.lost: Exception | None = None
        self.wake = threading.Lock()
        self.wake.acquire()


class Connection:
    """A connection whose handshake is over. ``failure`` says why it ended, None while it lives.

    ``timeout_s`` is the longest that any call may take; None for no limit. The connection owns the stream.
    """

    def __init__(self, stream: Stream, session: Session, *, timeout_s: float | None = None) -> None:
        self.session = session
        self.failure: Exception | None = None
        self._stream = stream
        self._pending: dict[int, Call] = {}
        self._reader = ReplyReader(session, self._pending)
        self._cookies = count(1)
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._waiting: dict[int, PendingCall] = {}
        self._bulk_sent = self._bulk_done = 0
        self._failing = threading.Lock()
        self._send_s = timeout_s
        stream.set_timeout(_TICK_S, timeout_s)

    @property
    def load(self) -> int:
        """The number of requests that are out."""
        return len(self._pending)

    def start(self, calls: Sequence[PendingCall], ends: float | None) -> None:
        """Send the requests of one call. What cannot be sent counts as lost: ``wait`` tells.

        ``ends`` is the moment (of time.monotonic) by which they must be out.
        """
        if not self._sending.acquire(timeout=_left(ends)):  # nothing was sent, so the connection is as it was
            for call in calls:
                call.lost = TimeoutError("the server takes no requests")
        else:
            try:
                self._send(calls)
            except OSError as error:
                self.fail(error if isinstance(error, TimeoutError) else _lost(error))
            except BaseException:
                self.fail(ConnectionLost("a request was interrupted while it was sent"))
                self._wait_for_receiver()
                raise
            finally:
                self._sending.release()
        if self.failure is not None:
            self._lose(calls)

    def start_unwaited(self, call: PendingCall) -> None:
        """Send a request whose reply nobody waits for, or nothing where another thread is sending."""
        if self.failure is None and self._sending.acquire(blocking=False):
            try:
                self._send([call])
            except OSError as error:
                self.fail(_lost(error))
            finally:
                self._sending.release()

    def wait(self, call: PendingCall, ends: float | None) -> None:
        """Return when the call's reply is whole, or when it is lost; nobody touches its buffers then.

        Where ``ends`` passes before, the connection is given up: its peer does not answer.
        """
        try:
            self._wait(call, ends)
        except BaseException:  # a signal: half a reply may have been taken
            self.fail(ConnectionLost("a call was interrupted while it waited"))
            self._wait_for_receiver()
            raise
        finally:
            self._waiting.pop(call.cookie, None)
        if call.lost is not None:
            self._wait_for_receiver()

    def _wait_for_receiver(self) -> None:
        """Return when nobody receives into our buffers any more: the stream has ended, so whoever does is leaving."""
        _wait_for(self._receiving)

    def _wait(self, call: PendingCall, ends: float | None) -> None:
        while not call.whole and call.lost is None:
            # Noted before the lock is tried: whoever holds it looks here when he has let go of it.
            self._waiting[call.cookie] = call
            if self._receiving.acquire(blocking=False):
                try:
                    self._waiting.pop(call.cookie, None)
                    while not call.whole and call.lost is None:
                        self._receive(ends)
                finally:
                    self._receiving.release()
                    self._hand_on()
            elif not call.wake.acquire(timeout=_left(ends)) and not call.whole:
                self.fail(TimeoutError("the server does not answer"))
                self._lose([call])

    def fail(self, error: Exception) -> None:
        """End the connection: all calls that are out are lost. Idempotent; the first reason stays."""
        with self._failing:
            if self.failure is None:
                self.failure = error
        self._stream.shut_down()
        self._lose(list(self._pending.values()))

    def close(self) -> None:
        """Take leave where that is still possible, and close the stream; no call may be out that somebody waits for.

        Replies that nobody waits for are taken first: nbdkit 1.32 aborts, with all its clients, where one has left
        before a reply is sent. What does not come in a few seconds is not waited for.
        """
        try:
            self._settle()
            if self.failure is None:
                goodbye = PendingCall(Command.DISC, 0, 0)
                self._stream.set_timeout(0.1, 0.1)
                with suppress(OSError):
                    self._stream.send(encode(goodbye, self.session))
        finally:
            self.fail(ConnectionLost("the connection is closed"))
            self._wait_for_receiver()
            _wait_for(self._sending)
            self._stream.close()

    def _settle(self) -> None:
        ends = time.monotonic() + _LEAVE_S
        if self._pending and self._receiving.acquire(timeout=_LEAVE_S):
            try:
                while self._pending and self.failure is None and time.monotonic() < ends:
                    self._receive(None)
            finally:
                self._receiving.release()

    # -- sending -----------------------------------------------------------------------------------------------

    def _send(self, calls: Sequence[PendingCall]) -> None:
        """Send requests; the caller holds ``_sending``. They are pending before the first byte is out."""
        parts: list[bytes | memoryview] = []
        small = 0
        for call in calls:
            call.cookie = next(self._cookies)
            self._pending[call.cookie] = call
            parts.append(encode(call, self.session))
            if call.command == Command.WRITE:
                parts += call.buffers
                small += call.length
            elif call.command == Command.READ and call.length >= BULK:
                self._bulk_sent += 1
        if self.failure is not None:
            return
        if len(parts) == 1:
            self._stream.send(parts[0])
        elif small <= JOINED:
            self._stream.send(b"".join(parts))
        else:
            self._stream.send_parts(parts)

    # -- receiving: by the thread that holds ``_receiving`` ------------------------------------------------------

    def _receive(self, ends: float | None) -> None:
        """Wait for bytes, and wake those whose replies they complete."""
        left = _TICK_S if ends is None else ends - time.monotonic()
        if left < _TICK_S:
            self._stream.set_timeout(max(left, 0.001), self._send_s)
        try:
            receive = self._stream.fill if self._reader.in_data else self._stream.receive_into
            got = receive(self._reader.space(bulk=self._bulk_sent != self._bulk_done))
            if not got:
                self.fail(ConnectionLost("the server ended the connection"))
                return
            finished = self._reader.received(got)
        except TimeoutError:
            finished = []
        except OSError as error:
            self.fail(_lost(error))
            return
        except RemoteProtocolError as error:
            self.fail(error)
            return
        finally:
            if left < _TICK_S:
                self._stream.set_timeout(_TICK_S, self._send_s)
        for call in finished:
            if call.command == Command.READ and call.length >= BULK:
                self._bulk_done += 1
            assert isinstance(call, PendingCall), "nobody else puts calls into ours"
            call.whole = True
            _wake(call)
        if ends is not None and time.monotonic() > ends:
            self.fail(TimeoutError("the server does not answer"))

    def _hand_on(self) -> None:
        """Have another thread receive, if one waits."""
        while self._waiting:
            try:
                _, call = self._waiting.popitem()
            except KeyError:
                return
            if not call.whole and call.lost is None:
                _wake(call)
                return

    def _lose(self, calls: Sequence[Call]) -> None:
        for call in calls:
            assert isinstance(call, PendingCall), "nobody else puts calls into ours"
            self._pending.pop(call.cookie, None)
            if not call.whole and call.lost is None:
                call.lost = self.failure
                _wake(call)


def _wake(call: PendingCall) -> None:
    with suppress(RuntimeError):  # it was woken before, and has not looked yet
        call.wake.release()


def _left(ends: float | None) -> float:
    """Return the seconds until ``ends`` in the form that Lock.acquire takes."""
    return -1 if ends is None else max(0.0, ends - time.monotonic())


def _lost(error: Exception) -> Exception:
    if isinstance(error, BlockwrightError):
        return error
    return ConnectionLost(f"the connection broke: {getattr(error, 'strerror', None) or error}".lower())


def _wait_for(lock: threading.Lock) -> None:
    """Return when nobody holds the lock, or after a while: it may be ours, if a signal came before its ``try``."""
    if lock.acquire(timeout=_LEAVE_S):
        lock.release()
