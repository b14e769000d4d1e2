"""A client of NBD in the smallest words: sends what a test says, also what no client should. Knows no library."""

import os
import socket
import struct
from typing import Any, Self

from blockwright.nbd import wire

OPTION_MAGIC = 0x49484156454F5054
REPLY_MAGIC = 0x0003E889045565A9


class RawClient:
    """A connected socket, with the greeting read unless `greet` is False."""

    def __init__(self, sock: socket.socket, *, greet: bool = True, flags: int = 3, timeout: float = 60) -> None:
        self.sock = sock
        sock.settimeout(timeout)
        if greet:
            self.greeting = self.take(18)
            self.sock.sendall(struct.pack(">I", flags))

    @classmethod
    def at(cls, path: str | os.PathLike[str], **more: Any) -> Self:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(60)
        sock.connect(os.fspath(path))
        try:
            return cls(sock, **more)
        except BaseException:
            sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def take(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = self.sock.recv(min(length - len(data), 1 << 20))
            if not part:
                raise EOFError(f"ended {len(data)} bytes into {length}")
            data += part
        return bytes(data)

    def ended(self) -> bool:
        """Whether the server has hung up; waits for it."""
        try:
            return not self.sock.recv(1)
        except ConnectionResetError:
            return True

    def send_option(self, number: int, data: bytes = b"") -> None:
        self.sock.sendall(struct.pack(">QII", OPTION_MAGIC, number, len(data)) + data)

    def option_reply(self) -> tuple[int, int, bytes]:
        """Return (option, type, data)."""
        magic, option, kind, length = struct.unpack(">QIII", self.take(20))
        assert magic == REPLY_MAGIC
        return option, kind, self.take(length)

    def option(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Send an option and return its replies up to the last, as (type, data)."""
        self.send_option(number, data)
        found = []
        while True:
            answered, kind, payload = self.option_reply()
            assert answered == number
            found.append((kind, payload))
            if kind == wire.ReplyType.ACK or kind >= 1 << 31:
                return found

    def go(self, name: str = "", *, structured: bool = False, extended: bool = False, context: bool = False) -> int:
        """Enter transmission and return the export's size."""
        if extended:
            assert self.option(11)[-1][0] == 1
        elif structured:
            assert self.option(8)[-1][0] == 1
        encoded = name.encode()
        if context:
            query = b"base:allocation"
            data = struct.pack(">I", len(encoded)) + encoded + struct.pack(">II", 1, len(query)) + query
            assert [kind for kind, _ in self.option(10, data)] == [4, 1]
        replies = self.option(7, struct.pack(">I", len(encoded)) + encoded + b"\0\0")
        assert replies[-1][0] == 1, replies
        size, self.flags = next(struct.unpack(">QH", data[2:12]) for kind, data in replies if data[:2] == b"\0\0")
        return int(size)

    def request(
        self, command: int, cookie: int = 1, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0
    ) -> None:
        self.sock.sendall(struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length) + data)

    def reply(self, length: int = 0) -> tuple[int, int, bytes]:
        """Return a simple reply: (error, cookie, data), data of `length` bytes where there was no error."""
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        assert magic == 0x67446698, hex(magic)
        return error, cookie, b"" if error else self.take(length)

    def chunk(self) -> tuple[int, int, int, bytes]:
        """Return a structured chunk: (flags, type, cookie, payload)."""
        magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self.take(20))
        assert magic == 0x668E33EF, hex(magic)
        return flags, kind, cookie, self.take(length)

    def chunks(self) -> list[tuple[int, int, bytes]]:
        """Return one reply's chunks: (type, cookie, payload), up to the last."""
        found = []
        while True:
            flags, kind, cookie, payload = self.chunk()
            found.append((kind, cookie, payload))
            if flags & 1:
                return found
