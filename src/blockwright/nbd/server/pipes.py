"""A pair of pipes as a stream, and what standard input and output are: how inetd and test harnesses call a server.

Knows: two descriptors. Refuses to know: NBD.
"""

from __future__ import annotations

import os
import selectors
import socket
import stat
import sys
import threading
import time
from contextlib import suppress

from blockwright.errors import NotSupported, UsageError
from blockwright.nbd.server.peer import Peer, peer_of
from blockwright.nbd.transport import SocketStream, Stream


class PipeStream(Stream):
    """Reads from one descriptor and writes to another, both of which it owns. Not on Windows."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._in = incoming
        self._out = outgoing
        self.timeout_s: float | None = None
        self._send_s: float | None = None
        # Readable for good once nothing is read any more, and once nothing is written any more: one each, since
        # replies may still be waited for when requests are not.
        self._reading_ended, self._end_reading = os.pipe()
        self._writing_ended, self._end_writing = os.pipe()
        self._ended = self._broken = False
        self._lock = threading.Lock()
        self._closed = False
        if sys.platform != "win32":
            for fd in (incoming, outgoing, self._end_reading, self._end_writing):
                os.set_blocking(fd, False)

    def receive_into(self, buffer: memoryview) -> int:
        end = _after(self.timeout_s)
        while True:
            count = self.receive_now(buffer)
            if count is not None:
                return count
            self._wait(self._in, selectors.EVENT_READ, self._reading_ended, end, "the peer sent nothing in time")

    def receive_now(self, buffer: memoryview) -> int | None:
        if self._ended:
            return 0
        try:
            data = os.read(self._in, len(buffer))
        except BlockingIOError:
            return None
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | bytearray | memoryview, *, more: bool = False) -> None:
        rest = memoryview(data)
        end = _after(self._send_s)
        while rest:
            count = self.send_now(rest)
            if count:
                rest, end = rest[count:], _after(self._send_s)
            else:
                self._wait(self._out, selectors.EVENT_WRITE, self._writing_ended, end, "the peer took nothing")

    def send_now(self, data: memoryview) -> int:
        if self._broken:
            raise BrokenPipeError("the stream was shut down")
        try:
            return os.write(self._out, data)
        except BlockingIOError:
            return 0

    def set_timeout(self, receive_s: float | None, send_s: float | None) -> None:
        self.timeout_s, self._send_s = receive_s, send_s

    def shut_down(self, *, reading_only: bool = False) -> None:
        with self._lock:
            self._ended = True
            self._broken = self._broken or not reading_only
            if not self._closed:
                for fd in (self._end_reading,) if reading_only else (self._end_reading, self._end_writing):
                    with suppress(OSError):  # full, and so readable
                        os.write(fd, b"x")

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            ends = (self._reading_ended, self._end_reading, self._writing_ended, self._end_writing)
            for fd in {self._in, self._out, *ends}:
                os.close(fd)

    def fileno(self) -> int:
        return self._in

    def _wait(self, fd: int, event: int, ended: int, end: float | None, late: str) -> None:
        """Wait until ``fd`` is ready or ``ended`` is readable. Raises TimeoutError with the text ``late``."""
        with selectors.DefaultSelector() as selector:
            selector.register(fd, event)
            selector.register(ended, selectors.EVENT_READ)
            if not selector.select(None if end is None else max(0.0, end - time.monotonic())):
                raise TimeoutError(late)


def _after(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def open_stdio() -> tuple[Stream, Peer]:
    """Return standard input and output as a stream to one client, and who that is.

    Descriptor 0 is a socket that is used both ways, as inetd has it, or 0 and 1 are pipes. Afterwards both are
    the null device and standard error, so that nothing printed by mistake reaches the client. Raises UsageError,
    NotSupported.
    """
    if sys.platform == "win32":
        raise NotSupported("stdio: this system has no descriptors that can be waited for")
    try:
        modes = [os.fstat(fd).st_mode for fd in (0, 1)]
    except OSError:
        raise UsageError("stdio: expected standard input and output to be open, found one closed") from None
    is_socket = stat.S_ISSOCK(modes[0])
    if not is_socket and not all(stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) for mode in modes):
        raise UsageError("stdio: expected a socket on standard input, or pipes on standard input and output")
    incoming = os.dup(0)
    outgoing = -1 if is_socket else os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    if not is_socket:
        return PipeStream(incoming, outgoing), Peer("pipe")
    sock = socket.socket(fileno=incoming)
    if sock.type != socket.SOCK_STREAM:
        sock.close()
        raise UsageError("stdio: expected a stream socket on standard input")
    return SocketStream(sock), peer_of(sock)
