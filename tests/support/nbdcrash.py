"""A small NBD server that can crash, fall silent and come back: what its disk forgot then is what no flush covered.

One thread for each connection, simple or structured replies. It does what a test tells it in ``Rules``.
"""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from blockwright.nbd import wire
from blockwright.nbd.wire import Command, CommandFlag, Option, ReplyType, TransmissionFlag
from tests.support.nbdserver import GREETING, ack, chunk, export, reply, simple, unsupported

FLAGS = (
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_TRIM
    | TransmissionFlag.SEND_WRITE_ZEROES
)


@dataclass
class Rules:
    """How the server behaves. ``before`` is called before each request is done and may raise Crash or Hang.

    ``resets`` handshakes end by a reset, each counted down. What ``raw_reply`` gives is sent in place of the reply;
    ``hang_up`` ends the connection behind it.
    """

    size: int = 1 << 20
    flags: int = FLAGS
    structured: bool = False
    blocks: bytes | None = None
    before: Callable[["Request"], None] = field(default=lambda request: None)
    raw_reply: Callable[["Request"], bytes | None] = field(default=lambda request: None)
    resets: int = 0
    hang_up: Callable[["Request"], bool] = field(default=lambda request: False)


@dataclass
class Request:
    number: int
    command: Command
    flags: int
    cookie: int
    offset: int
    length: int


class Crash(Exception):
    """Ends every connection; what was not flushed is gone."""


class CrashAfter(Exception):
    """The same, behind the request's reply."""


class Hang(Exception):
    """This request is never answered, nor any behind it on its connection."""


class CrashServer:
    """Listens on a Unix socket in ``folder`` until ``close``."""

    def __init__(self, folder: Path, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.path = str(folder / "nbd.sock")
        self.uri = f"nbd+unix:///disk?socket={self.path}"
        self.durable = bytearray(self.rules.size)
        self.volatile = bytearray(self.rules.size)
        self.requests: list[Request] = []
        self.crashes = 0
        self.accepted = 0
        self._lock = threading.RLock()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.start()

    def start(self) -> None:
        """Listen, as after a restart."""
        Path(self.path).unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(16)
        thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Crash, and listen no more."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            Path(self.path).unlink(missing_ok=True)
        self.crash()

    def crash(self) -> None:
        with self._lock:
            self.crashes += 1
            self.volatile[:] = self.durable
            connections, self._connections = self._connections, set()
            for sock in connections:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.stop()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a server's thread is stuck"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                self._connections.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, struct.error, EOFError):
            file = sock.makefile("rb")
            with file:
                if self._shake(sock, file):
                    self._transmit(sock, file)

    def _shake(self, sock: socket.socket, file) -> bool:
        sock.sendall(GREETING)
        if self.rules.resets:
            self.rules.resets -= 1
            select.select([sock], [], [], 30)  # closing with something unread resets the connection
            return False
        exactly(file, 4)
        while True:
            _, option, length = wire.OPTION.unpack(exactly(file, wire.OPTION.size))
            exactly(file, length)
            if option == Option.GO:
                more = () if self.rules.blocks is None else (self.rules.blocks,)
                sock.sendall(export(Option.GO, self.rules.size, self.rules.flags, *more))
                return True
            if option == Option.ABORT:
                sock.sendall(ack(Option.ABORT))
                return False
            if option == Option.STRUCTURED_REPLY and self.rules.structured:
                sock.sendall(ack(Option.STRUCTURED_REPLY))
            elif option == Option.SET_META_CONTEXT:
                sock.sendall(self._select())
            else:
                sock.sendall(unsupported(Option(option)))

    def _select(self) -> bytes:
        return reply(Option.SET_META_CONTEXT, ReplyType.ERR_UNKNOWN)

    def _transmit(self, sock: socket.socket, file) -> None:
        while True:
            _, flags, command, cookie, offset, length = wire.REQUEST.unpack(exactly(file, wire.REQUEST.size))
            data = exactly(file, length) if command == Command.WRITE else b""
            with self._lock:
                if sock not in self._connections:
                    return  # crashed while this request was on its way
                request = Request(len(self.requests), Command(command), flags, cookie, offset, length)
                self.requests.append(request)
                if command == Command.DISC:
                    return
                try:
                    self.rules.before(request)
                    answer = self.rules.raw_reply(request)
                    if answer is None:
                        answer = self._do(request, data)
                except Crash:
                    self.crash()
                    return
                except CrashAfter:
                    sock.sendall(self._do(request, data))
                    self.crash()
                    return
                except Hang:
                    break
            sock.sendall(answer)
            if self.rules.hang_up(request):
                return
        sock.settimeout(60)
        while file.read(1):
            pass

    def _do(self, request: Request, data: bytes) -> bytes:
        low, high = request.offset, request.offset + request.length
        content = b""
        if request.command == Command.READ:
            content = bytes(self.volatile[low:high])
        elif request.command == Command.WRITE:
            self.volatile[low:high] = data
        elif request.command == Command.WRITE_ZEROES:
            self.volatile[low:high] = bytes(request.length)
        elif request.command == Command.TRIM:
            self.volatile[low:high] = b"\xa5" * request.length
        elif request.command == Command.RESIZE:
            self.rules.size = request.offset
            for disk in (self.volatile, self.durable):
                disk[:] = disk[: request.offset].ljust(request.offset, b"\0")
        if request.command == Command.FLUSH:
            self.durable[:] = self.volatile
        elif request.flags & CommandFlag.FUA:
            self.durable[low:high] = self.volatile[low:high]
        if self.rules.structured and request.command == Command.READ:
            return chunk(request.cookie, 1, wire.U64.pack(request.offset) + content, done=True)
        return simple(request.cookie, 0, content)


def exactly(file, length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise EOFError
    return data
