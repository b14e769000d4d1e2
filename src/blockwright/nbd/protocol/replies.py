"""Replies as a server writes them: simple, structured and extended, behind one face.

Knows: how an answer is framed. Refuses to know: what is answered, and when it is sent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from struct import Struct
from typing import Final

from blockwright.nbd import wire
from blockwright.nbd.protocol.session import Session
from blockwright.nbd.wire import ChunkType

MAX_TEXT: Final = 512
"""Bytes of an error's text; the document allows 4096."""

DONE: Final = 1
"""``ChunkFlag.DONE`` as a plain number: it is packed into every reply."""

_DATA = Struct(">IHHQIQ")
"""CHUNK and DATA_OFFSET in one."""
_EXTENDED_DATA = Struct(">IHHQQQQ")
"""EXTENDED_CHUNK and DATA_OFFSET in one."""


class Framing(ABC):
    """How one session's requests and replies are framed. Stateless.

    ``cookie`` and ``start`` are those of the request: its cookie and its offset. ``data_head_size`` bytes go in front
    of a read's data. ``whole`` says that a read is answered at once: success and all data, or an error.
    """

    request: Struct
    request_magic: int
    data_head_size: int
    whole: bool = False
    extended: bool = False

    @abstractmethod
    def put_data_head(
        self,
        buffer: bytearray,
        position: int,
        cookie: int,
        start: int,
        offset: int,
        length: int,
        done: int = DONE,
    ) -> None:
        """Write what goes in front of ``length`` bytes of data for ``offset`` into ``buffer``."""

    @abstractmethod
    def done(self, cookie: int, start: int) -> bytes:
        """Return the answer that all went well, and the end of a reply whose chunks were all sent without DONE."""

    @abstractmethod
    def error(self, cookie: int, start: int, number: int, text: str = "", offset: int | None = None) -> bytes:
        """Return the answer that the request failed; ``offset`` says where, if that is known."""

    def data_head(self, cookie: int, start: int, offset: int, length: int, done: int = DONE) -> bytes:
        """Return what goes in front of ``length`` bytes of data for ``offset``."""
        head = bytearray(self.data_head_size)
        self.put_data_head(head, 0, cookie, start, offset, length, done)
        return bytes(head)


class SimpleFraming(Framing):
    """Replies of 16 bytes: an error number, and a read's data."""

    request = wire.REQUEST
    request_magic = wire.REQUEST_MAGIC
    data_head_size = wire.SIMPLE_REPLY.size
    whole = True

    def put_data_head(
        self, buffer: bytearray, position: int, cookie: int, start: int, offset: int, length: int, done: int = DONE
    ) -> None:
        wire.SIMPLE_REPLY.pack_into(buffer, position, wire.SIMPLE_REPLY_MAGIC, 0, cookie)

    def done(self, cookie: int, start: int) -> bytes:
        return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, 0, cookie)

    def error(self, cookie: int, start: int, number: int, text: str = "", offset: int | None = None) -> bytes:
        return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, number, cookie)


class ChunkedFraming(Framing):
    """Replies in chunks, which may say where a hole or an error is."""

    @abstractmethod
    def chunk(self, kind: ChunkType, cookie: int, start: int, payload: bytes, done: int = DONE) -> bytes:
        """Return one chunk."""

    @abstractmethod
    def status(
        self, cookie: int, start: int, context: int, extents: Sequence[tuple[int, int]], done: int = DONE
    ) -> bytes:
        """Return the extents, (length, flags) each, of one context."""

    def done(self, cookie: int, start: int) -> bytes:
        return self.chunk(ChunkType.NONE, cookie, start, b"")

    def hole(self, cookie: int, start: int, offset: int, length: int, done: int = DONE) -> bytes:
        """Return the chunk that says that ``length`` bytes from ``offset`` on are zeros."""
        return self.chunk(ChunkType.OFFSET_HOLE, cookie, start, wire.HOLE.pack(offset, length), done)

    def error(self, cookie: int, start: int, number: int, text: str = "", offset: int | None = None) -> bytes:
        message = _text(text)
        payload = wire.ERROR_HEAD.pack(number, len(message)) + message
        if offset is None:
            return self.chunk(ChunkType.ERROR, cookie, start, payload)
        return self.chunk(ChunkType.ERROR_OFFSET, cookie, start, payload + wire.U64.pack(offset))


class StructuredFraming(ChunkedFraming):
    """Chunks with a header of 20 bytes."""

    request = wire.REQUEST
    request_magic = wire.REQUEST_MAGIC
    data_head_size = _DATA.size

    def put_data_head(
        self, buffer: bytearray, position: int, cookie: int, start: int, offset: int, length: int, done: int = DONE
    ) -> None:
        _DATA.pack_into(buffer, position, wire.CHUNK_MAGIC, done, 1, cookie, length + 8, offset)

    def chunk(self, kind: ChunkType, cookie: int, start: int, payload: bytes, done: int = DONE) -> bytes:
        return wire.CHUNK.pack(wire.CHUNK_MAGIC, done, kind, cookie, len(payload)) + payload

    def status(
        self, cookie: int, start: int, context: int, extents: Sequence[tuple[int, int]], done: int = DONE
    ) -> bytes:
        payload = wire.U32.pack(context) + b"".join([wire.STATUS_ENTRY.pack(*each) for each in extents])
        return self.chunk(ChunkType.BLOCK_STATUS, cookie, start, payload, done)


class ExtendedFraming(ChunkedFraming):
    """Chunks with a header of 32 bytes, and lengths of 64 bits."""

    request = wire.EXTENDED_REQUEST
    request_magic = wire.EXTENDED_REQUEST_MAGIC
    data_head_size = _EXTENDED_DATA.size
    extended = True

    def put_data_head(
        self, buffer: bytearray, position: int, cookie: int, start: int, offset: int, length: int, done: int = DONE
    ) -> None:
        _EXTENDED_DATA.pack_into(
            buffer, position, wire.EXTENDED_CHUNK_MAGIC, done, 1, cookie, start, length + 8, offset
        )

    def chunk(self, kind: ChunkType, cookie: int, start: int, payload: bytes, done: int = DONE) -> bytes:
        return wire.EXTENDED_CHUNK.pack(wire.EXTENDED_CHUNK_MAGIC, done, kind, cookie, start, len(payload)) + payload

    def status(
        self, cookie: int, start: int, context: int, extents: Sequence[tuple[int, int]], done: int = DONE
    ) -> bytes:
        payload = wire.EXTENDED_STATUS_HEAD.pack(context, len(extents))
        payload += b"".join([wire.EXTENDED_STATUS_ENTRY.pack(*each) for each in extents])
        return self.chunk(ChunkType.BLOCK_STATUS_EXT, cookie, start, payload, done)


def framing(session: Session) -> Framing:
    """Return how the session's requests and replies are framed."""
    if session.extended:
        return ExtendedFraming()
    return StructuredFraming() if session.structured else SimpleFraming()


def _text(text: str) -> bytes:
    """Return an error's text as UTF-8, cut between two characters."""
    message = text.encode("utf-8", "replace")
    if len(message) <= MAX_TEXT:
        return message
    return message[:MAX_TEXT].decode("utf-8", "ignore").encode()
