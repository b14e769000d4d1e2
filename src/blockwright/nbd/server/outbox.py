"""What goes out on one connection: whole replies, one behind the other, from several threads.

The thread that reads a connection may wait for its client to take replies. A worker, which serves others too, may
not: what the client does not take at once is left to a thread that ends when all of it is sent.

Knows: turns. Refuses to know: what a reply is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from blockwright.nbd.transport import Stream

Sent = Callable[[], None]


class Outbox:
    """Sends replies whole, in the order of asking. After a failure nothing is sent any more.

    ``failed`` is called once, with the error that ended it, unless that was raised to whoever had a turn.
    """

    def __init__(self, stream: Stream, failed: Callable[[Exception], None]) -> None:
        self._stream = stream
        self._failed = failed
        self._queue: deque[tuple[memoryview, Sent]] = deque()
        self._lock = threading.Lock()
        self._free = threading.Condition(self._lock)
        self._busy = False
        self._waiting = 0
        self._broken = False

    def __enter__(self) -> Stream:
        """Wait for a turn and return the stream, to be sent on by this thread alone until the context ends."""
        with self._lock:
            while self._busy:
                self._waiting += 1
                self._free.wait()
                self._waiting -= 1
            self._busy = True
        return self._stream

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None:  # half a reply may be out, and whatever followed would be taken for the rest of it
            self._broken = True
        if self._queue or self._broken:
            self._drain()
            return
        with self._lock:
            if not self._queue:
                self._end_turn()
                return
        self._drain()

    def post(self, data: bytes | bytearray | memoryview, sent: Sent) -> None:
        """Send ``data`` without waiting for the client, now or as soon as it takes it; ``sent`` is called then.

        ``sent`` is called too where nothing can be sent any more.
        """
        with self._lock:
            self._queue.append((memoryview(data), sent))
            if self._busy:
                return
            self._busy = True
        if not self._drain(wait=False):
            try:
                threading.Thread(target=self._drain, name="nbd: late replies", daemon=True).start()
            except RuntimeError as error:  # the host has no thread for it, and nobody here may wait
                self._broke(error)
                self._drain()

    def _drain(self, *, wait: bool = True) -> bool:
        """Send what is queued and end the turn; False where that would be waiting for, with the turn still held."""
        while True:
            with self._lock:
                if not self._queue:
                    self._end_turn()
                    return True
                data, sent = self._queue[0]
            if not self._broken:
                try:
                    if wait:
                        self._stream.send(data)
                    else:
                        count = self._stream.send_now(data)
                        if count < len(data):
                            self._queue[0] = (data[count:], sent)
                            return False
                except Exception as error:  # noqa: BLE001 - whatever the stream raises ends the connection
                    self._broke(error)
            self._queue.popleft()
            sent()

    def _end_turn(self) -> None:
        self._busy = False
        if self._waiting:
            self._free.notify()

    def _broke(self, error: Exception) -> None:
        """Take note that the stream cannot be sent on any more. Whoever has the turn is the first to learn of it."""
        assert not self._broken, "nothing is sent behind a failure"
        self._broken = True
        self._failed(error)

    def wait_until_sent(self) -> None:
        """Return when nothing is queued."""
        with self:
            pass
