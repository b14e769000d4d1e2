"""Replies of a server, parsed as they arrive: simple, structured and extended ones.

Whoever owns the socket receives into ``space()`` and says how much that was; read data goes straight into the
caller's buffers. The server is an enemy: whatever it sends ends in finished calls or in RemoteProtocolError.

Knows: how replies are framed and what may answer what. Refuses to know: sockets, threads, and who waits.
"""

from __future__ import annotations

from typing import Final

from blockwright.device.vector import clear
from blockwright.errors import RemoteProtocolError
from blockwright.nbd.protocol.call import MAX_CHUNKS, Call, status_runs
from blockwright.nbd.protocol.session import Session
from blockwright.nbd.wire import (
    CHUNK,
    CHUNK_ERROR_BIT,
    CHUNK_MAGIC,
    DATA_OFFSET,
    ERROR_HEAD,
    EXTENDED_CHUNK,
    EXTENDED_CHUNK_MAGIC,
    EXTENDED_STATUS_ENTRY,
    EXTENDED_STATUS_HEAD,
    HOLE,
    MAX_EXTENTS,
    SIMPLE_REPLY,
    SIMPLE_REPLY_MAGIC,
    STATUS_ENTRY,
    U32,
    ChunkFlag,
    ChunkType,
    Command,
    CommandFlag,
)
from blockwright.units import KiB

STAGING: Final = 64 * KiB
"""Bytes received at once while only short replies are expected."""
STAGING_BULK: Final = 512
"""The same while a long read is out, so that its data is received where it belongs and not copied."""
BULK: Final = 32 * KiB
"""From how many bytes on a read is long."""
MAX_ERROR_CHUNK: Final = 8 * KiB
"""Bytes of an error chunk: its text has 4096 at most."""

_DONE: Final = int(ChunkFlag.DONE)
_ANSWERS: Final[dict[int, Command]] = {
    ChunkType.OFFSET_DATA: Command.READ,
    ChunkType.OFFSET_HOLE: Command.READ,
    ChunkType.BLOCK_STATUS: Command.BLOCK_STATUS,
    ChunkType.BLOCK_STATUS_EXT: Command.BLOCK_STATUS,
}


class ReplyReader:
    """The receiving half of a session. ``pending`` has the calls that are out, by cookie; finished ones leave it."""

    def __init__(self, session: Session, pending: dict[int, Call]) -> None:
        self._session = session
        self._pending = pending
        self._buffer = bytearray(STAGING)
        self._staged = memoryview(self._buffer)
        self._start = self._end = 0
        self._shortest = EXTENDED_CHUNK.size if session.extended else SIMPLE_REPLY.size
        # What is being received right now: the views to fill, last first, and what they complete.
        self._views: list[memoryview] = []
        self._body: memoryview | None = None
        self._call: Call | None = None
        self._kind = 0
        self._last = False

    def space(self, *, bulk: bool = False) -> memoryview:
        """Return where the next bytes from the server go; ``bulk`` says that a long read is among ``pending``."""
        if self._views:
            return self._views[-1]
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start:
            kept = self._end - self._start
            self._staged[:kept] = self._staged[self._start : self._end]
            self._start, self._end = 0, kept
        return self._staged[self._end : self._end + STAGING_BULK] if bulk else self._staged[self._end :]

    @property
    def in_data(self) -> bool:
        """Whether the whole of ``space()`` is what the server sends next: the data of a read."""
        return bool(self._views)

    def received(self, count: int) -> list[Call]:
        """Take ``count`` bytes that were put into ``space()``; return the calls whose replies are whole now.

        Raises RemoteProtocolError, after which nothing more can be read from this server.
        """
        finished: list[Call] = []
        if not self._views:
            self._end += count
            self._parse(finished)
            return finished
        view = self._views[-1]
        if count < len(view):
            self._views[-1] = view[count:]
            return finished
        self._views.pop()
        if not self._views:
            self._complete(finished)
        return finished

    # -- framing -----------------------------------------------------------------------------------------------

    def _parse(self, finished: list[Call]) -> None:
        """Take all that is staged and whole."""
        while not self._views and self._end - self._start >= self._shortest:
            magic = U32.unpack_from(self._buffer, self._start)[0]
            if self._session.extended:
                taken = self._extended(magic, finished)
            elif magic == SIMPLE_REPLY_MAGIC:
                self._simple(finished)
                taken = True
            elif magic == CHUNK_MAGIC and self._session.structured:
                taken = self._structured(finished)
            else:
                raise RemoteProtocolError(f"reply: found the magic {magic:#x}, which begins no reply of this session")
            if not taken:
                return

    def _simple(self, finished: list[Call]) -> None:
        _, error, cookie = SIMPLE_REPLY.unpack_from(self._buffer, self._start)
        call = self._of(cookie)
        if call.pieces:
            raise RemoteProtocolError("reply: found a simple one behind chunks for the same request")
        self._start += SIMPLE_REPLY.size
        call.error = error
        if call.command == Command.READ:
            if self._session.structured:
                raise RemoteProtocolError("read: expected a structured reply, found a simple one (NBD_CMD_READ)")
            if not error:
                self._receive(call, call.place(0, call.length), ChunkType.OFFSET_DATA, last=True, finished=finished)
                return
        elif call.command == Command.BLOCK_STATUS and not error:
            raise RemoteProtocolError("block status: expected a structured reply, found a simple one")
        self._finish(call, finished)

    def _structured(self, finished: list[Call]) -> bool:
        if self._end - self._start < CHUNK.size:
            return False
        _, flags, kind, cookie, length = CHUNK.unpack_from(self._buffer, self._start)
        return self._chunk(self._of(cookie), flags, kind, length, CHUNK.size, finished)

    def _extended(self, magic: int, finished: list[Call]) -> bool:
        if magic != EXTENDED_CHUNK_MAGIC:
            raise RemoteProtocolError(f"reply: expected the magic {EXTENDED_CHUNK_MAGIC:#x}, found {magic:#x}")
        _, flags, kind, cookie, offset, length = EXTENDED_CHUNK.unpack_from(self._buffer, self._start)
        call = self._of(cookie)
        if offset != call.offset:
            raise RemoteProtocolError(f"reply: expected the request's offset {call.offset}, found {offset}")
        return self._chunk(call, flags, kind, length, EXTENDED_CHUNK.size, finished)

    def _of(self, cookie: int) -> Call:
        call = self._pending.get(cookie)
        if call is None:
            raise RemoteProtocolError(f"reply: found the cookie {cookie:#x}, which no request out has")
        return call

    # -- chunks ------------------------------------------------------------------------------------------------

    def _chunk(self, call: Call, flags: int, kind: int, length: int, header: int, finished: list[Call]) -> bool:
        """Take a chunk, or as much of it as says where the rest goes; return False where too little is staged."""
        staged = self._end - self._start - header
        last = bool(flags & _DONE)
        if _ANSWERS.get(kind, call.command) != call.command:
            raise RemoteProtocolError(f"{_named(call)}: found a chunk of type {kind}, which does not answer it")
        if kind == ChunkType.OFFSET_DATA:
            if staged < DATA_OFFSET.size:
                return False
            self._count(call, header + DATA_OFFSET.size)
            self._data(call, length, last=last, finished=finished)
        elif kind == ChunkType.OFFSET_HOLE:
            _check_length(call, length, HOLE.size)
            if staged < HOLE.size:
                return False
            self._count(call, header + HOLE.size)
            self._hole(call, last=last, finished=finished)
        elif kind == ChunkType.NONE:
            _check_length(call, length, 0)
            if not last:
                raise RemoteProtocolError(f"{_named(call)}: expected an empty chunk to be the last")
            self._count(call, header)
            self._finish(call, finished)
        else:
            limit = MAX_ERROR_CHUNK if kind & CHUNK_ERROR_BIT else self._status_limit(call, kind)
            if not 0 < length <= limit:
                raise RemoteProtocolError(
                    f"{_named(call)}: expected a chunk of 1 to {limit} bytes, found {length} (type {kind:#x})"
                )
            self._count(call, header)
            body = memoryview(bytearray(length))
            self._receive(call, [body], kind, last=last, finished=finished, body=body)
        return True

    def _count(self, call: Call, consumed: int) -> None:
        self._start += consumed
        call.pieces += 1
        if call.pieces > MAX_CHUNKS:
            raise RemoteProtocolError(f"{_named(call)}: expected at most {MAX_CHUNKS} chunks, found more")

    def _data(self, call: Call, length: int, *, last: bool, finished: list[Call]) -> None:
        length -= DATA_OFFSET.size
        offset = DATA_OFFSET.unpack_from(self._buffer, self._start - DATA_OFFSET.size)[0]
        if length < 1:
            raise RemoteProtocolError(f"{_named(call)}: expected data in a data chunk, found none")
        start = offset - call.offset
        self._receive(call, call.place(start, start + length), ChunkType.OFFSET_DATA, last=last, finished=finished)

    def _hole(self, call: Call, *, last: bool, finished: list[Call]) -> None:
        offset, length = HOLE.unpack_from(self._buffer, self._start - HOLE.size)
        if not length:
            raise RemoteProtocolError(f"{_named(call)}: expected a hole of some length, found none")
        start = offset - call.offset
        for view in call.place(start, start + length):
            clear(view)
        if last:
            self._finish(call, finished)

    def _status_limit(self, call: Call, kind: int) -> int:
        """Return how long a chunk of block status may be, or raise where it may not come at all."""
        if kind != (ChunkType.BLOCK_STATUS_EXT if self._session.extended else ChunkType.BLOCK_STATUS):
            raise RemoteProtocolError(
                f"{_named(call)}: found a chunk of type {kind}, which this session does not have"
            )
        if self._session.extended:
            return EXTENDED_STATUS_HEAD.size + MAX_EXTENTS * EXTENDED_STATUS_ENTRY.size
        return U32.size + MAX_EXTENTS * STATUS_ENTRY.size

    # -- what comes whole --------------------------------------------------------------------------------------

    def _receive(
        self,
        call: Call,
        views: list[memoryview],
        kind: int,
        *,
        last: bool,
        finished: list[Call],
        body: memoryview | None = None,
    ) -> None:
        """Fill ``views`` with what is staged, and have the rest received straight into them."""
        self._call, self._kind, self._last, self._body = call, kind, last, body
        position, end = self._start, self._end
        for index, view in enumerate(views):
            part = min(len(view), end - position)
            view[:part] = self._staged[position : position + part]
            position += part
            if part < len(view):
                self._views = [view[part:], *views[index + 1 :]][::-1]
                break
        self._start = position
        if not self._views:
            self._complete(finished)

    def _complete(self, finished: list[Call]) -> None:
        call = self._call
        assert call is not None, "views belong to a call"
        if self._body is not None:
            if self._kind & CHUNK_ERROR_BIT:
                _take_error(call, self._body)
            else:
                self._take_status(call, self._body)
        self._call = self._body = None
        if self._last:
            self._finish(call, finished)

    def _take_status(self, call: Call, body: memoryview) -> None:
        wide = self._session.extended
        head, entry = (EXTENDED_STATUS_HEAD, EXTENDED_STATUS_ENTRY) if wide else (U32, STATUS_ENTRY)
        count, odd = divmod(len(body) - head.size, entry.size)
        if count < 1 or odd:
            raise RemoteProtocolError(f"{_named(call)}: expected whole extents, found a chunk of {len(body)} bytes")
        context = U32.unpack_from(body)[0]
        if wide and EXTENDED_STATUS_HEAD.unpack_from(body)[1] != count:
            raise RemoteProtocolError(f"{_named(call)}: expected {count} extents, found another count in the chunk")
        if context not in self._session.contexts or context in call.statuses:
            raise RemoteProtocolError(f"{_named(call)}: expected each selected context once, found {context}")
        runs = status_runs(body[head.size :], wide=wide)
        lengths = runs.pairs[::2]
        before_last = sum(lengths) - lengths[-1]
        one = call.flags & CommandFlag.REQ_ONE
        if not min(lengths) or before_last >= call.length or (one and (count > 1 or lengths[0] > call.length)):
            raise RemoteProtocolError(
                f"{_named(call)}: expected extents of some length, none but the last beyond {call.length} bytes"
            )
        call.statuses[context] = runs

    def _finish(self, call: Call, finished: list[Call]) -> None:
        if not call.error:
            if call.command == Command.READ and not call.covered:
                raise RemoteProtocolError(f"{_named(call)}: expected all {call.length} bytes, found a part of them")
            if call.command == Command.BLOCK_STATUS and len(call.statuses) != len(self._session.contexts):
                raise RemoteProtocolError(
                    f"{_named(call)}: expected {len(self._session.contexts)} contexts, found {len(call.statuses)}"
                )
        self._pending.pop(call.cookie, None)  # another thread may have given it up meanwhile
        finished.append(call)


def _take_error(call: Call, body: memoryview) -> None:
    """Note the first error of a reply. An error chunk of a type that is not known begins like those that are."""
    error, length = ERROR_HEAD.unpack_from(body) if len(body) >= ERROR_HEAD.size else (0, 0)
    if not error or ERROR_HEAD.size + length > len(body):
        raise RemoteProtocolError(
            f"{_named(call)}: expected an error and its text, found error {error} and {length} bytes of text in "
            f"{len(body)} bytes"
        )
    if not call.error:
        call.error = error
        call.message = bytes(body[ERROR_HEAD.size : ERROR_HEAD.size + length]).decode("utf-8", "replace")


def _check_length(call: Call, length: int, expected: int) -> None:
    if length != expected:
        raise RemoteProtocolError(f"{_named(call)}: expected a chunk of {expected} bytes, found {length}")


def _named(call: Call) -> str:
    return f"{call.command.name} of {call.length} bytes at {call.offset}"
