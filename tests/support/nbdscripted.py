"""A small NBD server that keeps every rule, and can be told to break one: what the checks are tried on.

It is dialled, not connected to: each ``dial`` makes a pair of sockets and a thread that serves one of them. Its TLS
is a toy (each byte is changed), since what is tried is what happens around it.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from blockwright.errors import NotFound
from blockwright.nbd import wire
from blockwright.nbd.protocol.steps import Identity
from blockwright.nbd.transport import SocketStream, Stream
from blockwright.nbd.wire import ChunkType, Command, CommandFlag, Error, InfoType, Option, ReplyType, TransmissionFlag
from blockwright.units import KiB, MiB

Replies = list[tuple[int, bytes]]
_HELLO = b"TOYTLS"
_GRAIN = 64 * KiB
_MAX_OPTION = 16 * KiB
_MAX_OPTIONS = 256
_MAX_PAYLOAD = 64 * MiB
_TOGGLE = bytes(each ^ 0x5A for each in range(256))

ALL_FLAGS = (
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_TRIM
    | TransmissionFlag.SEND_WRITE_ZEROES
    | TransmissionFlag.SEND_FAST_ZERO
    | TransmissionFlag.SEND_CACHE
    | TransmissionFlag.CAN_MULTI_CONN
)


class Close(Exception):
    """The server closes the connection."""


class Hang(Exception):
    """The server says nothing any more."""


@dataclass
class Config:
    """What the server offers."""

    size: int = 4 * MiB
    name: bytes = b"disk"
    handshake: int = 3
    flags: TransmissionFlag = ALL_FLAGS
    structured: bool = True
    extended: bool = True
    df: bool = True
    contexts: tuple[str, ...] = ("base:allocation", "x-test:dirty")
    blocks: tuple[int, int, int] | None = (1, 4096, 32 * MiB)
    tls: str = ""  # "", "offered", "forced"
    patience_s: float | None = None


@dataclass
class Request:
    """A request as it came."""

    command: int
    flags: int
    cookie: int
    offset: int
    length: int
    payload: bytes = b""


@dataclass
class Reply:
    """A reply before it is framed: an error, or chunks of content (structured) or data (simple)."""

    error: int = 0
    chunks: list[tuple[int, bytes]] = field(default_factory=list)
    data: bytes = b""
    simple: bool = False
    text: bytes = b"no"


def _same(value):
    return value


@dataclass
class Fault:
    """Where the server breaks a rule; a hook is given what would be right, and returns what it makes of it."""

    config: dict = field(default_factory=dict)
    greeting: Callable[[bytes], bytes] = _same
    any_flags: bool = False
    any_magic: bool = False
    patient: bool = False
    endless: bool = False
    padding: bool | None = None
    option: Callable[["Connection", int, bytes, Replies], Replies] | None = None
    export_name: Callable[["Connection", bytes], bytes | None] | None = None
    request: Callable[["Connection", Request, Reply], Reply] | None = None
    encoded: Callable[["Connection", Request, bytes], bytes] | None = None
    swallow: Callable[["Connection", Request], int] | None = None
    after_tls: Callable[["Connection"], None] | None = None
    fragile: bool = False
    greedy: bool = False
    hello: bytes = b"\x16\x03\x03\x00\x02\x02\x00"


class ToyTls(SocketStream):
    """A stream whose bytes are changed."""

    tls = True

    def receive_into(self, buffer: memoryview) -> int:
        count = super().receive_into(buffer)
        buffer[:count] = bytes(buffer[:count]).translate(_TOGGLE)
        return count

    def send(self, data, *, more: bool = False) -> None:
        super().send(bytes(data).translate(_TOGGLE), more=more)


def start_toy_tls(stream: Stream, host: str | None) -> tuple[Stream, Identity]:
    """The client's side of the toy."""
    stream.send(_HELLO)
    found = bytearray(len(_HELLO))
    view = memoryview(found)
    while view:
        count = stream.receive_into(view)
        if not count:
            raise OSError("the server ended the TLS handshake")
        view = view[count:]
    if found != _HELLO:
        raise OSError("the server does not speak TLS")
    assert isinstance(stream, SocketStream)
    return ToyTls(stream.socket), Identity()


class Server:
    """The export and its connections. ``dial`` is what a client calls."""

    def __init__(self, config: Config, fault: Fault | None = None) -> None:
        self.config = config
        self.fault = fault or Fault()
        self.data = bytearray(config.size)
        for start in range(_GRAIN, config.size // 2 + 2 * _GRAIN, 2 * _GRAIN):
            piece = bytes((start // _GRAIN * 7 + each) % 255 + 1 for each in range(255))
            self.data[start : start + _GRAIN] = (piece * (_GRAIN // 255 + 1))[:_GRAIN]
        self.lock = threading.Lock()
        self.dead = False
        self._threads: list[tuple[threading.Thread, socket.socket]] = []

    def dial(self) -> SocketStream:
        """A new connection."""
        if self.fault.fragile:
            for thread, _ in self._threads:
                thread.join(1)  # what a client that left has done is done
        if self.dead:
            raise NotFound("the server is gone")
        client, own = socket.socketpair()
        connection = Connection(self, own)
        thread = threading.Thread(target=connection.serve, daemon=True)
        thread.start()
        self._threads.append((thread, own))
        return SocketStream(client)

    def close(self) -> None:
        """End all connections, and wait for their threads."""
        for thread, own in self._threads:
            with suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)
            thread.join(30)
            assert not thread.is_alive(), "a connection's thread goes on"


class Connection:
    """One client's connection."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server, self.config, self.fault, self.sock = server, server.config, server.fault, sock
        sock.settimeout(server.config.patience_s)
        self.pushed_back = b""
        self.toggled = False
        self.tls = False
        self.fixed = True
        self.no_zeroes = False
        self.mode = "simple"
        self.selected: dict[int, str] = {}
        self.selected_for = b""
        self.trailing = b""
        self.entered = False
        self.memory: dict[str, Any] = {}  # a fault's own

    # -- bytes ---------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        try:
            self.handshake()
            self.entered = True
            while True:
                self.transmit()
        except Hang:
            with suppress(OSError):
                while self.sock.recv(_GRAIN):
                    pass
        except (Close, OSError):
            pass
        finally:
            self.sock.close()

    def recv(self, length: int) -> bytes:
        found, self.pushed_back = self.pushed_back[:length], self.pushed_back[length:]
        while len(found) < length:
            more = self.sock.recv(min(length - len(found), MiB))
            if not more:
                self.server.dead |= self.fault.fragile and bool(found)
                raise Close
            found += more.translate(_TOGGLE) if self.toggled else more
        return found

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data.translate(_TOGGLE) if self.toggled else data)
        except OSError:
            self.server.dead |= self.fault.fragile and self.entered
            raise

    # -- handshake -------------------------------------------------------------------------------------------------

    def handshake(self) -> None:
        offered = self.config.handshake
        self.send(self.fault.greeting(wire.GREETING.pack(wire.INIT_MAGIC, wire.OPTION_MAGIC, offered)))
        flags = wire.U32.unpack(self.recv(4))[0]
        if flags & ~offered and not self.fault.any_flags:
            raise Close
        self.fixed, self.no_zeroes = bool(flags & 1), bool(flags & 2)
        for _ in range(1 << 62 if self.fault.endless else _MAX_OPTIONS):
            magic, option, length = wire.OPTION.unpack(self.recv(wire.OPTION.size))
            if magic != wire.OPTION_MAGIC and not self.fault.any_magic:
                raise Close
            if length > _MAX_OPTION and not self.fault.patient:
                raise Close
            data = self.recv(length)
            if option == Option.EXPORT_NAME:
                self.enter_by_name(data)
                return
            replies = self.options(option, data)
            if self.fault.option is not None:
                replies = self.fault.option(self, option, data, replies)
            for kind, payload in replies:
                self.send(wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, kind, len(payload)) + payload)
            self.send(self.trailing)
            if option == Option.ABORT:
                raise Close
            acknowledged = bool(replies) and replies[-1][0] == ReplyType.ACK
            if option == Option.STARTTLS and acknowledged:
                self.start_tls()
            if option == Option.GO and acknowledged:
                return
        raise Close

    def start_tls(self) -> None:
        if self.fault.after_tls is not None:
            self.fault.after_tls(self)
        first = self.recv(1)
        if first == b"\x16":
            self.send(self.fault.hello)
            raise Close
        if first + (self.recv(5) if first == b"T" else b"") != _HELLO:
            raise Close
        self.send(_HELLO)
        self.toggled = self.tls = True
        self.fixed = True
        if self.fault.after_tls is None:
            self.mode, self.selected = "simple", {}

    def flags(self, option: int = Option.GO) -> int:
        flags = self.config.flags
        if self.mode != "simple" and self.config.df:
            flags |= TransmissionFlag.SEND_DF
        if self.mode == "extended" and self.selected:
            flags |= TransmissionFlag.BLOCK_STATUS_PAYLOAD
        return int(flags)

    def enter_by_name(self, name: bytes) -> None:
        if self.config.tls == "forced" and not self.tls and self.fault.export_name is None:
            raise Close
        if self.fault.export_name is not None:
            name = self.fault.export_name(self, name) or name
        elif self.mode == "extended":
            raise Close
        if name != self.config.name:
            raise Close
        padding = not self.no_zeroes if self.fault.padding is None else self.fault.padding
        head = wire.EXPORT_NAME_REPLY.pack(self.config.size, self.flags())
        self.send(head + bytes(wire.EXPORT_NAME_PADDING if padding else 0))

    def options(self, option: int, data: bytes) -> Replies:
        if self.config.tls == "forced" and not self.tls and option not in (Option.STARTTLS, Option.ABORT):
            return [(ReplyType.ERR_TLS_REQD, b"TLS first")]
        if option == Option.ABORT:
            return [(ReplyType.ACK, b"")]
        bare = (Option.LIST, Option.STARTTLS, Option.STRUCTURED_REPLY, Option.EXTENDED_HEADERS)
        if option in bare and data:
            return [(ReplyType.ERR_INVALID, b"no data is expected")]
        if option == Option.LIST:
            name = self.config.name
            return [(ReplyType.SERVER, wire.U32.pack(len(name)) + name + b"a disk"), (ReplyType.ACK, b"")]
        if option == Option.STARTTLS:
            if self.tls:
                return [(ReplyType.ERR_INVALID, b"TLS it is")]
            allowed = self.config.tls and self.fixed
            return [(ReplyType.ACK, b"") if allowed else (ReplyType.ERR_POLICY, b"no TLS here")]
        if option in (Option.INFO, Option.GO):
            return self.info(option, data)
        if option == Option.STRUCTURED_REPLY and self.config.structured:
            if self.mode == "extended":
                return [(ReplyType.ERR_EXT_HEADER_REQD, b"")]
            self.mode = "structured"
            return [(ReplyType.ACK, b"")]
        if option == Option.EXTENDED_HEADERS and self.config.extended:
            self.mode = "extended"
            return [(ReplyType.ACK, b"")]
        if option in (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT) and self.config.structured:
            return self.meta(option, data)
        return [(ReplyType.ERR_UNSUP, "unknown \u00e9".encode())]

    def info(self, option: int, data: bytes) -> Replies:
        invalid = [(ReplyType.ERR_INVALID, b"malformed")]
        if len(data) < 6:
            return invalid
        length = wire.U32.unpack_from(data)[0]
        if length > len(data) - 6:
            return invalid
        name, rest = data[4 : 4 + length], data[4 + length :]
        count = wire.U16.unpack_from(rest)[0]
        if len(rest) != 2 + 2 * count:
            return invalid
        asked = {wire.U16.unpack_from(rest, 2 + 2 * each)[0] for each in range(count)}
        if name != self.config.name:
            return [(ReplyType.ERR_UNKNOWN, b"no such export")]
        replies: Replies = [
            (ReplyType.INFO, wire.INFO_EXPORT.pack(InfoType.EXPORT, self.config.size, self.flags(option)))
        ]
        if InfoType.NAME in asked:
            replies.append((ReplyType.INFO, wire.U16.pack(InfoType.NAME) + name))
        if InfoType.DESCRIPTION in asked:
            replies.append((ReplyType.INFO, wire.U16.pack(InfoType.DESCRIPTION) + b"a disk"))
        if InfoType.BLOCK_SIZE in asked and self.config.blocks:
            replies.append((ReplyType.INFO, wire.INFO_BLOCK_SIZE.pack(InfoType.BLOCK_SIZE, *self.config.blocks)))
        if option == Option.GO and self.selected_for != name:
            self.selected = {}
        return [*replies, (ReplyType.ACK, b"")]

    def meta(self, option: int, data: bytes) -> Replies:
        listing = option == Option.LIST_META_CONTEXT
        if not listing:
            self.selected = {}
        if self.mode == "simple":
            return [(ReplyType.ERR_INVALID, b"structured replies first")]
        try:
            name, queries = _parse_meta(data)
        except ValueError:
            return [(ReplyType.ERR_INVALID, b"malformed")]
        if name != self.config.name:
            return [(ReplyType.ERR_UNKNOWN, b"no such export")]
        chosen: list[str] = []
        for context in self.config.contexts:
            namespace = context.partition(":")[0] + ":"
            if context in queries or (listing and (not queries or namespace in queries)):
                chosen.append(context)
        numbered = {0 if listing else 5 + number: context for number, context in enumerate(chosen)}
        if not listing:
            self.selected, self.selected_for = numbered, name
            items = list(numbered.items())
        else:
            items = [(0, context) for context in chosen]
        found = [(ReplyType.META_CONTEXT, wire.U32.pack(number) + text.encode()) for number, text in items]
        return [*found, (ReplyType.ACK, b"")]

    # -- transmission ----------------------------------------------------------------------------------------------

    def transmit(self) -> None:
        layout = wire.EXTENDED_REQUEST if self.mode == "extended" else wire.REQUEST
        expected = wire.EXTENDED_REQUEST_MAGIC if self.mode == "extended" else wire.REQUEST_MAGIC
        magic, flags, command, cookie, offset, length = layout.unpack(self.recv(layout.size))
        if magic != expected and not self.fault.any_magic:
            raise Close
        request = Request(command, flags, cookie, offset, length)
        carried = flags & CommandFlag.PAYLOAD_LEN if self.mode == "extended" else command == Command.WRITE
        taken = length if carried else 0
        if self.fault.swallow is not None:
            taken = self.fault.swallow(self, request)
        if taken > _MAX_PAYLOAD and not self.fault.patient:
            raise Close
        request.payload = self.recv(taken)
        if command == Command.DISC and self.fault.request is None:
            raise Close
        with self.server.lock:
            reply = self.execute(request)
            if self.fault.request is not None:
                reply = self.fault.request(self, request, reply)
            if self.fault.greedy:
                self.send(self.encode(request, reply))  # who does not read holds up all others
                return
        if command == Command.DISC and not reply.simple:
            raise Close
        data = self.encode(request, reply)
        if self.fault.encoded is not None:
            data = self.fault.encoded(self, request, data)
        self.send(data)

    def allowed_flags(self, command: int) -> int:
        extra: dict[int, int] = {
            Command.READ: CommandFlag.DF if self.mode != "simple" and self.config.df else 0,
            Command.WRITE_ZEROES: CommandFlag.NO_HOLE
            | (CommandFlag.FAST_ZERO if TransmissionFlag.SEND_FAST_ZERO in self.config.flags else 0),
            Command.BLOCK_STATUS: CommandFlag.REQ_ONE | (CommandFlag.PAYLOAD_LEN if self.mode == "extended" else 0),
            Command.WRITE: CommandFlag.PAYLOAD_LEN if self.mode == "extended" else 0,
        }
        return int(CommandFlag.FUA | extra.get(command, 0))

    def execute(self, request: Request) -> Reply:
        command, config = request.command, self.config
        if command == Command.DISC:
            return Reply()
        needed = {
            Command.FLUSH: TransmissionFlag.SEND_FLUSH,
            Command.TRIM: TransmissionFlag.SEND_TRIM,
            Command.CACHE: TransmissionFlag.SEND_CACHE,
            Command.WRITE_ZEROES: TransmissionFlag.SEND_WRITE_ZEROES,
        }
        known = command in (Command.READ, Command.WRITE, Command.BLOCK_STATUS) or (
            command in needed and needed[command] in config.flags
        )
        if not known or request.flags & ~self.allowed_flags(command):
            return Reply(Error.EINVAL)
        writes = command in (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)
        if writes and TransmissionFlag.READ_ONLY in config.flags:
            return Reply(Error.EPERM)
        if command == Command.FLUSH:
            return Reply()
        if command == Command.BLOCK_STATUS:
            return self.status(request)
        least = config.blocks[0] if config.blocks else 1
        if request.offset % least or request.length % least:
            return Reply(Error.EINVAL)
        start, end = request.offset, request.offset + request.length
        if end > config.size:
            return Reply(Error.ENOSPC if command in (Command.WRITE, Command.WRITE_ZEROES) else Error.EINVAL)
        data = self.server.data
        if command == Command.READ:
            if config.blocks and request.length > config.blocks[2]:
                return Reply(Error.EINVAL)
            return self.read(request)
        if command == Command.WRITE:
            data[start:end] = request.payload
        elif command in (Command.TRIM, Command.WRITE_ZEROES):
            data[start:end] = bytes(request.length)
        return Reply()

    def read(self, request: Request) -> Reply:
        content = bytes(self.server.data[request.offset : request.offset + request.length])
        if self.mode == "simple":
            return Reply(data=content)
        step = request.length if request.flags & CommandFlag.DF else _GRAIN
        chunks = []
        for start in range(0, request.length, max(step, 1)):
            piece = content[start : start + step]
            offset = request.offset + start
            if any(piece) or request.flags & CommandFlag.DF:
                chunks.append((ChunkType.OFFSET_DATA, wire.U64.pack(offset) + piece))
            else:
                chunks.append((ChunkType.OFFSET_HOLE, wire.HOLE.pack(offset, len(piece))))
        return Reply(chunks=chunks)

    def status(self, request: Request) -> Reply:
        length, ids = request.length, list(self.selected)
        if request.flags & CommandFlag.PAYLOAD_LEN:
            if len(request.payload) < 8 or len(request.payload) % 4:
                return Reply(Error.EINVAL)
            length = wire.U64.unpack_from(request.payload)[0]
            ids = [each[0] for each in wire.U32.iter_unpack(request.payload[8:])]
            if len(set(ids)) != len(ids) or not set(ids) <= set(self.selected):
                return Reply(Error.EINVAL)
        if not self.selected or not length or request.offset + length > self.config.size:
            return Reply(Error.EINVAL)
        one = bool(request.flags & CommandFlag.REQ_ONE)
        chunks = []
        for number in ids:
            found = self.extents(self.selected[number], request.offset, length)
            found = found[:1] if one else found
            chunks.append(status_chunk(self.mode, number, found))
        return Reply(chunks=chunks)

    def extents(self, context: str, offset: int, length: int) -> list[tuple[int, int]]:
        if context != "base:allocation":
            return [(length, 1)]
        data = self.server.data
        pieces = []
        while length:
            count = min(length, _GRAIN - offset % _GRAIN)
            pieces.append((count, 0 if any(data[offset : offset + count]) else 3))
            offset, length = offset + count, length - count
        return _merge(pieces)

    def encode(self, request: Request, reply: Reply) -> bytes:
        if self.mode == "simple" or reply.simple:
            head = wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, reply.error, request.cookie)
            return head + (b"" if reply.error else reply.data)
        chunks = list(reply.chunks)
        if reply.error:
            chunks.append((ChunkType.ERROR, wire.ERROR_HEAD.pack(reply.error, len(reply.text)) + reply.text))
        if not chunks:
            chunks.append((ChunkType.NONE, b""))
        last = len(chunks) - 1
        return b"".join(
            self.chunk(request, kind, payload, int(number == last)) for number, (kind, payload) in enumerate(chunks)
        )

    def chunk(self, request: Request, kind: int, payload: bytes, flags: int) -> bytes:
        if self.mode == "extended":
            layout, magic = wire.EXTENDED_CHUNK, wire.EXTENDED_CHUNK_MAGIC
            return layout.pack(magic, flags, kind, request.cookie, request.offset, len(payload)) + payload
        return wire.CHUNK.pack(wire.CHUNK_MAGIC, flags, kind, request.cookie, len(payload)) + payload


def status_chunk(mode: str, number: int, found: list[tuple[int, int]]) -> tuple[int, bytes]:
    """A chunk of BLOCK_STATUS as ``mode`` has it."""
    if mode == "extended":
        head = wire.EXTENDED_STATUS_HEAD.pack(number, len(found))
        return ChunkType.BLOCK_STATUS_EXT, head + b"".join(wire.EXTENDED_STATUS_ENTRY.pack(*each) for each in found)
    return ChunkType.BLOCK_STATUS, wire.U32.pack(number) + b"".join(wire.STATUS_ENTRY.pack(*each) for each in found)


def _merge(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(sum(count for count, _ in run), flags) for flags, run in groupby(pieces, key=lambda each: each[1])]


def _parse_meta(data: bytes) -> tuple[bytes, list[str]]:
    position = 0

    def take(length: int) -> bytes:
        nonlocal position
        if position + length > len(data):
            raise ValueError
        position += length
        return data[position - length : position]

    name = take(wire.U32.unpack(take(4))[0])
    queries = [take(wire.U32.unpack(take(4))[0]).decode() for _ in range(_count(take(4), len(data)))]
    if position != len(data):
        raise ValueError
    return name, queries


def _count(field: bytes, limit: int) -> int:
    count = wire.U32.unpack(field)[0]
    if count > limit // 4:
        raise ValueError
    return int(count)
