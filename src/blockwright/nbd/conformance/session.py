"""A connection in the transmission phase: requests of any kind, and replies taken apart but not believed.

Knows: the framing of simple, structured and extended replies. Refuses to know: which replies a rule allows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from blockwright.nbd import wire
from blockwright.nbd.conformance.link import Link
from blockwright.nbd.conformance.model import fail
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.wire import ChunkType, Command, CommandFlag, TransmissionFlag
from blockwright.units import KiB

MAX_ERROR_CHUNK: Final = 64 * KiB
MAX_STATUS_CHUNK: Final = wire.EXTENDED_STATUS_HEAD.size + wire.EXTENDED_STATUS_ENTRY.size * wire.MAX_EXTENTS
MAX_CHUNKS: Final = 1 << 17
"""Chunks of one reply."""
_FIRST_COOKIE: Final = 0x9E3779B97F4A7C15  # any will do; small ones could hide that a server cuts them


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk as it came. ``offset`` is the extended header's, None in a compact one."""

    kind: int
    flags: int
    payload: bytes
    offset: int | None = None

    @property
    def is_error(self) -> bool:
        """Whether it tells of an error."""
        return bool(self.kind & wire.CHUNK_ERROR_BIT)

    @property
    def is_content(self) -> bool:
        """Whether it is OFFSET_DATA or OFFSET_HOLE."""
        return self.kind in (ChunkType.OFFSET_DATA, ChunkType.OFFSET_HOLE)

    @property
    def span(self) -> tuple[int, int]:
        """Return offset and length of a content chunk; fail where it is too short to have them."""
        shortest = wire.HOLE.size if self.kind == ChunkType.OFFSET_HOLE else wire.DATA_OFFSET.size
        if len(self.payload) < shortest:
            fail(f"a content chunk of at least {shortest} bytes", f"one of {len(self.payload)}")
        if self.kind == ChunkType.OFFSET_HOLE:
            offset, length = wire.HOLE.unpack_from(self.payload)
            return offset, length
        return wire.DATA_OFFSET.unpack_from(self.payload)[0], len(self.payload) - wire.DATA_OFFSET.size


@dataclass(slots=True)
class Request:
    """What was asked, and what came of it so far."""

    command: int
    offset: int
    length: int
    simple: bool = False
    error: int = 0
    data: bytes = b""
    chunks: list[Chunk] = field(default_factory=list)
    done: bool = False

    @property
    def outcome(self) -> str:
        """Return the reply's error for people."""
        return error_name(self.error)

    def expect(self, *errors: int) -> Request:
        """Return itself where the reply's error is one of ``errors``, 0 being success; fail otherwise."""
        if self.error not in errors:
            fail(" or ".join(error_name(each) for each in errors), self.outcome)
        return self

    def expect_error(self) -> Request:
        """Return itself where the request was refused; fail otherwise."""
        if not self.error:
            fail("an error", self.outcome)
        return self

    def content(self) -> bytes:
        """Return what a successful READ says the export holds: its chunks put together, holes as zeros."""
        self.expect(0)
        if self.simple:
            return self.data
        whole = bytearray(self.length)
        for chunk in self.chunks:
            if chunk.is_content:
                offset, length = chunk.span
                start = offset - self.offset
                if not 0 <= start <= start + length <= self.length:
                    fail(f"content within {self.length} bytes at {self.offset}", f"{length} bytes at {offset}")
                data = (
                    chunk.payload[wire.DATA_OFFSET.size :] if chunk.kind == ChunkType.OFFSET_DATA else bytes(length)
                )
                whole[start : start + length] = data
        return bytes(whole)


def error_name(number: int) -> str:
    """Return the name of an error of the wire."""
    if not number:
        return "success"
    try:
        return wire.Error(number).name
    except ValueError:
        return f"error {number}"


class Session:
    """An entered export over a link. ``mode`` is ``simple``, ``structured`` or ``extended``."""

    def __init__(
        self, link: Link, mode: str, size: int, flags: int, blocks: BlockSizes | None, contexts: dict[int, str]
    ) -> None:
        self.link = link
        self.mode = mode
        self.size = size
        self.flags = TransmissionFlag(flags)
        self.blocks = blocks
        self.contexts = contexts
        self.pending: dict[int, Request] = {}
        self._cookie = _FIRST_COOKIE

    def header(
        self, command: int, offset: int, length: int, flags: int, cookie: int, *, magic: int | None = None
    ) -> bytes:
        """Return a request's header as this session frames it."""
        if self.mode == "extended":
            number = wire.EXTENDED_REQUEST_MAGIC if magic is None else magic
            return wire.EXTENDED_REQUEST.pack(number, flags, command, cookie, offset, length)
        number = wire.REQUEST_MAGIC if magic is None else magic
        return wire.REQUEST.pack(number, flags, command, cookie, offset, length)

    def prepare(
        self,
        command: int,
        offset: int = 0,
        length: int = 0,
        *,
        flags: int = 0,
        payload: bytes = b"",
        cookie: int | None = None,
    ) -> tuple[int, bytes]:
        """Enter a request among those that wait for a reply; return its cookie and the bytes to send.

        A WRITE in extended mode says that its length is that of the payload, as it must.
        """
        if cookie is None:
            self._cookie = (self._cookie + 0x0101010101010101) % (1 << 64)
            cookie = self._cookie
        if self.mode == "extended" and command == Command.WRITE:
            flags |= CommandFlag.PAYLOAD_LEN
        self.pending[cookie] = Request(command, offset, length)
        return cookie, self.header(command, offset, length, flags, cookie) + payload

    def ask(self, command: int, offset: int = 0, length: int = 0, *, flags: int = 0, payload: bytes = b"") -> Request:
        """Send one request and return its reply."""
        cookie, data = self.prepare(command, offset, length, flags=flags, payload=payload)
        self.link.send(data)
        return self.collect(cookie)

    def read(self, offset: int, length: int) -> bytes:
        """Return what the export holds; fail where it cannot be read."""
        return self.ask(Command.READ, offset, length).content()

    def write(self, offset: int, data: bytes, *, flags: int = 0) -> Request:
        """Send a WRITE with its payload and return the reply."""
        return self.ask(Command.WRITE, offset, len(data), flags=flags, payload=data)

    def in_step(self) -> None:
        """Fail unless an ordinary READ is answered: what came before left the stream where it should be."""
        length = min(self.size, 512 if self.blocks is None else max(512, self.blocks.minimum))
        self.ask(Command.READ, 0, length).expect(0)

    def collect(self, cookie: int) -> Request:
        """Return the request of ``cookie`` once its reply is whole; replies to others are kept."""
        request = self.pending[cookie]
        while not request.done:
            self._receive_message()
        del self.pending[cookie]
        return request

    def _receive_message(self) -> None:
        magic = wire.U32.unpack(head := self.link.receive(4))[0]
        if magic == wire.SIMPLE_REPLY_MAGIC:
            _, error, cookie = wire.SIMPLE_REPLY.unpack(head + self.link.receive(wire.SIMPLE_REPLY.size - 4))
            request = self._waiting(cookie)
            if request.chunks:
                fail("the rest of a structured reply", "a simple one to the same cookie")
            request.simple, request.error, request.done = True, error, True
            if request.command == Command.READ and not error:
                if self.mode != "simple":
                    fail("chunks", "a simple reply to READ")
                request.data = self.link.receive(request.length)
        elif magic == wire.CHUNK_MAGIC and self.mode != "extended":
            _, flags, kind, cookie, length = wire.CHUNK.unpack(head + self.link.receive(wire.CHUNK.size - 4))
            self._take(cookie, flags, kind, None, length)
        elif magic == wire.EXTENDED_CHUNK_MAGIC and self.mode == "extended":
            rest = self.link.receive(wire.EXTENDED_CHUNK.size - 4)
            _, flags, kind, cookie, offset, length = wire.EXTENDED_CHUNK.unpack(head + rest)
            self._take(cookie, flags, kind, offset, length)
        else:
            fail("the header of a reply", f"{magic:#010x}")

    def _waiting(self, cookie: int) -> Request:
        request = self.pending.get(cookie)
        if request is None or request.done:
            fail("a reply to a request that waits for one", f"one with the cookie {cookie:#x}")
        return request

    def _take(self, cookie: int, flags: int, kind: int, offset: int | None, length: int) -> None:
        request = self._waiting(cookie)
        if self.mode == "simple":
            fail("a simple reply, as nothing else was negotiated", "a chunk")
        most = MAX_ERROR_CHUNK
        if kind in (ChunkType.OFFSET_DATA, ChunkType.OFFSET_HOLE):
            most = request.length + wire.HOLE.size
        elif kind in (ChunkType.BLOCK_STATUS, ChunkType.BLOCK_STATUS_EXT):
            most = MAX_STATUS_CHUNK
        if length > most:
            fail(f"a chunk of at most {most} bytes", f"one of {length}")
        chunk = Chunk(kind, flags, self.link.receive(length), offset)
        request.chunks.append(chunk)
        if len(request.chunks) > MAX_CHUNKS:
            fail(f"at most {MAX_CHUNKS} chunks", "more")
        if chunk.is_error and not request.error:
            request.error = _error_of(chunk)
        request.done = bool(flags & wire.ChunkFlag.DONE)


def _error_of(chunk: Chunk) -> int:
    if len(chunk.payload) < wire.ERROR_HEAD.size:
        fail(f"an error chunk of at least {wire.ERROR_HEAD.size} bytes", f"one of {len(chunk.payload)}")
    error: int = wire.ERROR_HEAD.unpack_from(chunk.payload)[0]
    if not error:
        fail("an error chunk with an error", "one with 0")
    return error
