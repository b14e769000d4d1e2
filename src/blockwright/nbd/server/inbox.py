"""What a client sent and nobody has taken yet: one buffer, filled by as few system calls as possible.

Knows: bytes and time. Refuses to know: what the bytes mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from blockwright.nbd.server.polling import Polling
from blockwright.nbd.transport import Stream
from blockwright.units import KiB

SMALLEST: Final = 16 * KiB
"""Bytes of an idle connection's buffer."""
LARGEST: Final = 256 * KiB
"""Bytes of a busy one's: some 64 writes of 4 KiB."""
SHRINK_AFTER_S: Final = 2.0
"""Seconds of silence after which a buffer that has grown is given back."""


class Inbox:
    """The bytes [start, end) of ``data`` were received and not taken. Used by one thread.

    ``let_go`` is called once, and forgotten, when the peer is silent between requests for SHRINK_AFTER_S: for whoever
    has memory of a busy time to give back.
    """

    def __init__(self, stream: Stream, polling: Polling, *, idle_s: float | None, request_s: float | None) -> None:
        self._stream = stream
        self._polling = polling
        self._idle_s = idle_s
        self._request_s = request_s
        self._timeout_s: float | None = -1.0
        self.let_go: Callable[[], None] | None = None
        self.start = 0
        self.end = 0
        # Where the request begins of which only a part is here, and by when the rest of it must be.
        self._begun = -1
        self._late_at = 0.0
        self.data = bytearray(SMALLEST)
        self.view = memoryview(self.data)
        self._set_timeout(idle_s)  # also for a client that is sent to before it is waited for

    @property
    def held(self) -> int:
        """The bytes that were not taken."""
        return self.end - self.start

    def fill(self, wanted: int = 1) -> bool:
        """Receive more, waiting for it; False where the peer has ended.

        There is room for ``wanted`` bytes from ``start`` on afterwards. Raises TimeoutError when the peer is silent
        for too long between two requests, or takes too long for one.
        """
        if not self.held:
            self._begun = -1
        self._make_room(wanted)
        count = self._receive(self.view[self.end :])
        if not count:
            return False
        self.end += count
        return True

    def take_into(self, buffer: memoryview) -> bool:
        """Fill ``buffer`` with the next bytes, straight from the peer where they are not here; False at its end."""
        held = min(self.held, len(buffer))
        buffer[:held] = self.view[self.start : self.start + held]
        self.start += held
        buffer = buffer[held:]
        late = self._late()
        while buffer:
            count = self._receive_within(buffer, late)
            if not count:
                return False
            buffer = buffer[count:]
        return True

    def skip(self, length: int) -> bool:
        """Take ``length`` bytes and forget them; False where the peer ends before."""
        held = min(length, self.held)
        self.start += held
        length -= held
        if length:  # and so nothing is held
            self.start = self.end = 0
        late = self._late()
        while length:
            count = self._receive_within(self.view[:length], late)
            if not count:
                return False
            length -= count
        return True

    def _late(self) -> float:
        """Return the moment by which the request under way must have arrived."""
        return float("inf") if self._request_s is None else time.monotonic() + self._request_s

    def _receive_within(self, room: memoryview, late: float) -> int:
        """Receive some of a request. Raises TimeoutError for a peer that stalls, or has dripped for too long."""
        if time.monotonic() > late:
            raise TimeoutError("the peer took too long to send a request")
        self._set_timeout(self._request_s)
        return self._stream.receive_into(room)

    def _allocate(self, size: int) -> None:
        data = bytearray(size)
        held = self.held
        if held:
            data[:held] = self.view[self.start : self.end]
        self.data, self.view = data, memoryview(data)
        self._moved(held)

    def _moved(self, held: int) -> None:
        """Take note that what is held lies at the beginning of the buffer now."""
        self._begun = 0 if self._begun == self.start else -1
        self.start, self.end = 0, held

    def _make_room(self, wanted: int) -> None:
        """Make room behind ``end``: a buffer that was filled to its end is too small for how the peer sends."""
        size = len(self.data)
        held = self.end - self.start
        full = self.end == size
        if full and size < LARGEST:
            self._allocate(max(wanted, min(LARGEST, size * 4)))
        elif wanted > size:
            self._allocate(wanted)
        elif not held:
            self.start = self.end = 0
        elif full or self.start + wanted > size:
            self.data[:held] = self.data[self.start : self.end]
            self._moved(held)

    def _receive(self, room: memoryview) -> int:
        started = now = time.perf_counter_ns()
        end = started + self._polling.length_ns()
        while now < end:
            count = self._stream.receive_now(room)
            now = time.perf_counter_ns()
            if count is not None:
                self._polling.waited(now - started)
                return count
        count = self._wait(room)
        self._polling.waited(time.perf_counter_ns() - started)
        return count

    def _wait(self, room: memoryview) -> int:
        if self.held:
            if self._begun != self.start:
                self._begun, self._late_at = self.start, self._late()
            return self._receive_within(room, self._late_at)
        if len(self.data) > SMALLEST or self.let_go is not None:
            try:
                self._set_timeout(SHRINK_AFTER_S)
                return self._stream.receive_into(room)
            except TimeoutError:
                if len(self.data) > SMALLEST:
                    self._allocate(SMALLEST)
                    room = self.view
                let_go, self.let_go = self.let_go, None
                if let_go is not None:
                    let_go()
        self._set_timeout(self._idle_s)
        return self._stream.receive_into(room)

    def _set_timeout(self, seconds: float | None) -> None:
        if seconds != self._timeout_s:
            self._timeout_s = seconds
            self._stream.set_timeout(seconds, self._request_s)
