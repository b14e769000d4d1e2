"""One request of a client and what has come back for it so far, as a value.

Knows: which bytes of a read have arrived, and the extents of a block status. Refuses to know: framing, cookies'
uniqueness, and who waits.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from blockwright.errors import RemoteProtocolError
from blockwright.nbd.protocol.session import Session
from blockwright.nbd.wire import (
    EXTENDED_REQUEST,
    EXTENDED_REQUEST_MAGIC,
    REQUEST,
    REQUEST_MAGIC,
    Command,
    CommandFlag,
)

MAX_CHUNKS: Final = 1 << 16
"""Chunks of one reply: a read of 32 MiB in pieces of 512 bytes."""


class StatusRuns(NamedTuple):
    """The extents of one meta context from the request's offset on, as lengths and flags in turn."""

    pairs: array[int]

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]  # pairs, not the tuple's one field
        steps = iter(self.pairs)
        return zip(steps, steps, strict=True)


class Call:
    """A request: what is asked, the buffers it fills or sends, and its outcome.

    ``buffers`` hold ``length`` bytes together, for READ and WRITE only. When the reply is whole, ``error`` is the
    wire's number (0 for success) and ``message`` the server's text; a block status has ``statuses``, by context id.
    """

    __slots__ = (
        "buffers",
        "command",
        "cookie",
        "edges",
        "error",
        "flags",
        "length",
        "message",
        "offset",
        "pieces",
        "statuses",
    )

    def __init__(
        self,
        command: Command,
        offset: int,
        length: int,
        *,
        flags: int = 0,
        buffers: Sequence[memoryview] = (),
    ) -> None:
        self.command = command
        self.flags = flags
        self.offset = offset
        self.length = length
        self.buffers = buffers
        self.cookie = 0
        self.reset()

    def reset(self) -> None:
        """Forget what came back, so that the call can be made again."""
        self.error = 0
        self.message = ""
        self.pieces = 0
        self.edges: list[int] = []
        self.statuses: dict[int, StatusRuns] = {}

    @property
    def covered(self) -> bool:
        """Whether every byte of a read has arrived."""
        return self.edges == [0, self.length]

    def place(self, start: int, end: int) -> list[memoryview]:
        """Return where the bytes from ``start`` to ``end`` of a read belong, and note that they have arrived.

        Both count from the request's offset. Raises RemoteProtocolError where they lie outside the request or
        were told before.
        """
        if end > self.length or start < 0:
            raise RemoteProtocolError(
                f"read: expected data within {self.length} bytes at {self.offset}, found bytes {start} to {end} of it"
            )
        edges = self.edges
        if not edges:
            self.edges = [start, end]
        else:
            index = bisect_right(edges, start)
            if index & 1 or (index < len(edges) and edges[index] < end):
                raise RemoteProtocolError(
                    f"read: expected each byte once, found one of bytes {start} to {end} of {self.length} at "
                    f"{self.offset} again"
                )
            joins_left = index > 0 and edges[index - 1] == start
            joins_right = index < len(edges) and edges[index] == end
            edges[index - joins_left : index + joins_right] = [start] * (not joins_left) + [end] * (not joins_right)
        return _cut(self.buffers, start, end)


def _cut(buffers: Sequence[memoryview], start: int, end: int) -> list[memoryview]:
    """Return views of the bytes from ``start`` to ``end`` of all buffers."""
    if len(buffers) == 1:
        return [buffers[0][start:end]]
    views = []
    position = 0
    for buffer in buffers:
        behind = position + len(buffer)
        if behind > start and position < end and len(buffer):
            views.append(buffer[max(start - position, 0) : end - position])
        position = behind
        if position >= end:
            break
    return views


def encode(call: Call, session: Session) -> bytes:
    """Return the header of a request as the session frames it; a write's data follows it."""
    if session.extended:
        flags = call.flags | CommandFlag.PAYLOAD_LEN if call.command == Command.WRITE else call.flags
        return EXTENDED_REQUEST.pack(
            EXTENDED_REQUEST_MAGIC, flags, call.command, call.cookie, call.offset, call.length
        )
    return REQUEST.pack(REQUEST_MAGIC, call.flags, call.command, call.cookie, call.offset, call.length)


def status_runs(body: memoryview, *, wide: bool) -> StatusRuns:
    """Return the extents that ``body`` holds in 32-bit pairs, or 64-bit ones where it is ``wide``."""
    pairs = array("Q" if wide else "I")
    assert pairs.itemsize == (8 if wide else 4), "C's int has 32 bits wherever CPython runs"
    pairs.frombytes(body)
    if sys.byteorder == "little":
        pairs.byteswap()
    return StatusRuns(pairs)
