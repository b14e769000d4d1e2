"""A stream that is slow and long is gone on with over several connections: ranges of it, a few ahead, in their order.

One connection is left alone as long as it is quick: what counts is the time that is spent waiting for its bytes. A
slow one is asked beside whether the server answers ranges, and given up only when it does. Bytes come in the order in
which they would have come, so whoever writes and hashes them, and goes on behind the last one, sees no difference.

Knows: when to ask for more at once, and how much of it is in memory. Refuses to know: servers, what bytes are for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from blockwright.codec.record import Buffer
from blockwright.errors import BlockwrightError, Cancelled

WAIT_S: Final = 0.5
"""Seconds of waiting for bytes after which a connection is judged, again and again."""
QUICK: Final = 64 << 20
"""Bytes in a second with which one connection is left alone."""
LEAST: Final = 8 << 20
"""Bytes that have to be left for others to be opened."""
AT_ONCE: Final = 6
"""Connections for one stream."""
MAX_CONNECTIONS: Final = 12
"""Connections of all such streams of a process."""
_SMALLEST: Final = 256 << 10
_LARGEST: Final = 4 << 20
"""Bytes of a range: what a connection brings in a second, within these two."""
_PAUSE_S: Final = 0.5
"""Seconds before a range is asked for once more that broke off."""

Part = Callable[[int, int], Buffer]
"""``part(start, end)``: bytes [start, end), all of them. Raises what a stream that breaks off raises."""

_room = threading.BoundedSemaphore(MAX_CONNECTIONS)


def hastened(pieces: Iterator[memoryview], start: int, size: int, part: Part) -> Generator[memoryview]:
    """Yield what ``pieces`` yields, bytes from ``start`` to ``size``; sooner where ranges bring them sooner.

    At most ``AT_ONCE + 1`` ranges are in memory. Close it. Raises what ``pieces`` and ``part`` raise, in the order of
    bytes.
    """
    done, waited, came = start, 0.0, 0
    while True:
        before = time.monotonic()
        piece = next(pieces, None)
        waited += time.monotonic() - before
        if piece is None:
            return
        yield piece
        done, came = done + len(piece), came + len(piece)
        if waited < WAIT_S:
            continue
        rate, waited, came = came / waited, 0.0, 0
        if rate >= QUICK or size - done < LEAST:
            continue
        step = max(_SMALLEST, min(_LARGEST, int(rate)))
        with _connections() as room:
            if room < 2:
                continue  # others have them
            first = _tried(part, done, min(size, done + step))
            if first is not None:
                if isinstance(pieces, Generator):
                    pieces.close()
                yield memoryview(first)
                yield from _ahead(done + len(first), size, step, part, room)
                return
        yield from pieces
        return


def _tried(part: Part, start: int, end: int) -> Buffer | None:
    """Return a range, None where the server has no answer to that: the stream that is open still goes on."""
    try:
        return part(start, end)
    except Cancelled:
        raise
    except BlockwrightError:
        return None


def _ahead(start: int, size: int, step: int, part: Part, room: int) -> Generator[memoryview]:
    """Yield bytes [start, size), asked for in ranges, ``room`` at once."""
    threads = ThreadPoolExecutor(room, "range")
    waiting: deque[tuple[int, int, Future[Buffer]]] = deque()
    asked = start

    def ask() -> None:
        nonlocal asked
        while asked < size and len(waiting) < room:
            end = min(size, asked + step)
            waiting.append((asked, end, threads.submit(part, asked, end)))
            asked = end

    try:
        ask()
        while waiting:
            low, high, future = waiting.popleft()
            try:
                data = future.result()
            except Cancelled:
                raise
            except BlockwrightError:  # a server that lets in fewer than came
                room = max(1, room // 2)
                time.sleep(_PAUSE_S)
                data = part(low, high)
            ask()
            yield memoryview(data)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _connections() -> Iterator[int]:
    """A context with as many connections as one stream may have now."""
    count = 0
    try:
        while count < AT_ONCE and _room.acquire(blocking=False):
            count += 1
        yield count
    finally:
        for _ in range(count):
            _room.release()
