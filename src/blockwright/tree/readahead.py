"""Chunks made in a thread, a few ahead of whoever takes them.

Knows: waiting on both sides, and stopping. Refuses to know: what makes the chunks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator


class ReadAhead:
    """Runs the iterator ``chunks`` in a thread of its own, at most ``depth`` chunks ahead.

    ``finished`` is called in that thread when the iterator is at its end or was stopped. An exception of the
    iterator is raised by ``get`` behind the chunks before it.
    """

    def __init__(self, chunks: Iterator[bytes], depth: int, finished: Callable[[], object] | None = None) -> None:
        self._chunks = chunks
        self._depth = depth
        self._finished = finished
        self._ready: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._stopped = self._done = False
        self._error: BaseException | None = None
        # A daemon: it may stand in a read of a pipe that nobody writes to.
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def get(self) -> bytes:
        """Return the next chunk; an empty one at the end. Raises what the iterator raised."""
        with self._changed:
            while not self._ready and not self._done:
                self._changed.wait()
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
        if self._error is not None:
            raise self._error
        return b""

    def stop(self, wait_s: float = 1.0) -> None:
        """Ask the thread to end, and wait for it a little: it may stand in a read that nothing ends."""
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(wait_s)

    def _run(self) -> None:
        try:
            try:
                for chunk in self._chunks:
                    if not self._put(chunk):
                        break
            finally:
                if self._finished is not None:
                    self._finished()
        except BaseException as error:  # noqa: BLE001 - it is raised where the chunk is asked for
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _put(self, chunk: bytes) -> bool:
        """Hand over a chunk when there is room; False when nobody wants it any more."""
        with self._changed:
            while len(self._ready) >= self._depth and not self._stopped:
                self._changed.wait()
            self._ready.append(chunk)
            self._changed.notify_all()
            return not self._stopped
