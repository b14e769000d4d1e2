"""The one seam between the protocol and sockets: bytes in, bytes out, deadlines, TLS.

``SocketStream`` is a connected socket as it is; ``nbd.tls.TlsStream`` is one inside TLS. Both are used by one
reading thread and any number of sending ones, which the caller serialises.

Knows: sockets. Refuses to know: NBD.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from blockwright.errors import RemoteProtocolError
from blockwright.nbd.protocol.steps import Handshake, Identity, Receive, Send, Skip, StartTls
from blockwright.units import KiB

_Result = TypeVar("_Result")
TlsStarter = Callable[["Stream", "str | None"], "tuple[Stream, Identity]"]
"""Begins TLS over a stream, with the host that a client expects; gives the encrypted stream and who its peer is."""
_SKIPPED_AT_ONCE: Final = 64 * KiB
_NOW: Final = getattr(socket, "MSG_DONTWAIT", 0)
_MORE: Final = getattr(socket, "MSG_MORE", 0)
_MAX_PARTS: Final = 1024  # IOV_MAX of every system we run on


class Stream(ABC):
    """A byte stream to a peer. A call that finds the peer gone raises OSError."""

    tls: bool = False
    """Whether what is sent is encrypted."""
    timeout_s: float | None = None
    """How long a receive may wait, as ``set_timeout`` said."""

    @abstractmethod
    def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes, put what there is into ``buffer`` and return how many; 0 when the peer has ended.

        Raises TimeoutError when the time set by ``set_timeout`` passes without any.
        """

    def fill(self, buffer: memoryview) -> int:
        """Do what ``receive_into`` does, and wait until ``buffer`` is full where the system does that in one call.

        So what comes back may be less than the whole: as much as came before the peer ended or the time passed.
        """
        return self.receive_into(buffer)

    @abstractmethod
    def receive_now(self, buffer: memoryview) -> int | None:
        """Do what ``receive_into`` does without waiting: None where nothing is there."""

    @abstractmethod
    def send(self, data: bytes | bytearray | memoryview, *, more: bool = False) -> None:
        """Send all of ``data``; ``more`` says that what belongs to it follows at once.

        Raises TimeoutError when the peer takes nothing for the time set by ``set_timeout``.
        """

    def send_parts(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Send all of ``parts``, one behind the other, as ``send`` does; with one system call where that can be."""
        for index, part in enumerate(parts):
            self.send(part, more=index + 1 < len(parts))

    @abstractmethod
    def send_now(self, data: memoryview) -> int:
        """Send what the peer takes without waiting and return how many bytes that was."""

    def send_file(self, fd: int, offset: int, length: int) -> int | None:
        """Send bytes of an open file without reading them and return how many; None where this stream cannot.

        Fewer than ``length`` may be sent, and none are where the file has ended. Raises OSError of either side, and
        nothing was sent then.
        """
        return None

    @abstractmethod
    def set_timeout(self, receive_s: float | None, send_s: float | None) -> None:
        """Set how long a call may wait for the peer; None for ever."""

    @abstractmethod
    def shut_down(self, *, reading_only: bool = False) -> None:
        """End what other threads wait for: a receive returns 0. Idempotent, from any thread."""

    @abstractmethod
    def close(self) -> None:
        """Close the stream. Idempotent; no other call may be under way."""

    @abstractmethod
    def fileno(self) -> int:
        """Return the socket's descriptor."""


class SocketStream(Stream):
    """A connected stream socket, which it owns."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        # Linux lets nobody wait for more of a vsock than its buffer holds.
        self._fill_flags = 0 if sock.family == getattr(socket, "AF_VSOCK", None) else socket.MSG_WAITALL
        self._ending = threading.Lock()

    def receive_into(self, buffer: memoryview) -> int:
        try:
            return self.socket.recv_into(buffer)
        except BlockingIOError:
            raise TimeoutError("the peer sent nothing in time") from None

    def fill(self, buffer: memoryview) -> int:
        try:
            return self.socket.recv_into(buffer, 0, self._fill_flags)
        except BlockingIOError:
            raise TimeoutError("the peer sent nothing in time") from None

    def receive_now(self, buffer: memoryview) -> int | None:
        try:
            return self.socket.recv_into(buffer, 0, _NOW)
        except BlockingIOError:
            return None

    def send(self, data: bytes | bytearray | memoryview, *, more: bool = False) -> None:
        flags = _MORE if more else 0
        sent = self._send_some(data, flags)
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                rest = rest[self._send_some(rest, flags) :]

    def _send_some(self, data: bytes | bytearray | memoryview, flags: int) -> int:
        try:
            return self.socket.send(data, flags)
        except BlockingIOError:
            raise TimeoutError("the peer took nothing in time") from None

    if sys.platform != "win32":

        def send_parts(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
            for first in range(0, len(parts), _MAX_PARTS):
                some = parts[first : first + _MAX_PARTS]
                more = _MORE if first + _MAX_PARTS < len(parts) else 0
                try:
                    sent = self.socket.sendmsg(some, (), more)
                except BlockingIOError:
                    raise TimeoutError("the peer took nothing in time") from None
                for part in some:
                    if sent < len(part):
                        self.send(memoryview(part)[sent:])
                    sent = max(0, sent - len(part))

    def send_now(self, data: memoryview) -> int:
        try:
            return self.socket.send(data, _NOW)
        except BlockingIOError:
            return 0

    if sys.platform == "linux":

        def send_file(self, fd: int, offset: int, length: int) -> int | None:
            try:
                return os.sendfile(self.socket.fileno(), fd, offset, length)
            except BlockingIOError:
                raise TimeoutError("the peer took nothing in time") from None

    def set_timeout(self, receive_s: float | None, send_s: float | None) -> None:
        self.timeout_s = receive_s
        # By the kernel: a socket that Python times asks poll() before each call.
        for option, seconds in ((socket.SO_RCVTIMEO, receive_s), (socket.SO_SNDTIMEO, send_s)):
            _set_option(self.socket, option, _timeval(seconds))

    def shut_down(self, *, reading_only: bool = False) -> None:
        # A number that was closed meanwhile may be another connection's by now.
        with self._ending, suppress(OSError):  # the peer was quicker
            self.socket.shutdown(socket.SHUT_RD if reading_only else socket.SHUT_RDWR)

    def close(self) -> None:
        with self._ending:
            self.socket.close()

    def fileno(self) -> int:
        return self.socket.fileno()


def _set_option(sock: socket.socket, option: int, value: bytes) -> None:
    if sys.platform != "linux" or sock.family != socket.AF_VSOCK:
        sock.setsockopt(socket.SOL_SOCKET, option, value)
        return
    # Python takes nothing but 8-byte numbers for vsock, so the same socket is set under another family's name.
    other = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=sock.fileno())
    try:
        other.setsockopt(socket.SOL_SOCKET, option, value)
    finally:
        other.detach()


def _timeval(seconds: float | None) -> bytes:
    """Return a time for SO_RCVTIMEO: a struct timeval, milliseconds on Windows; zero is for ever."""
    if seconds is not None:
        seconds = max(seconds, 0.001)
    if sys.platform == "win32":
        return struct.pack("@I", round((seconds or 0) * 1000))
    whole, part = divmod(round((seconds or 0) * 1_000_000), 1_000_000)
    return struct.pack("@ll", whole, part)


class Deadline:
    """A moment after which a handshake is given up, however slowly its bytes drip."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def remaining_s(self) -> float | None:
        """The seconds left, None for no limit. Raises TimeoutError where there are none."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the handshake took too long")
        return left


def receive_exactly(stream: Stream, length: int, deadline: Deadline) -> bytes:
    """Return exactly ``length`` bytes. Raises RemoteProtocolError where the peer ends first, TimeoutError."""
    data = bytearray(length)
    view = memoryview(data)
    while view:
        remaining = deadline.remaining_s
        if remaining is not None:
            stream.set_timeout(remaining, remaining)
        count = stream.receive_into(view)
        if not count:
            raise RemoteProtocolError(
                f"handshake: the peer ended it: expected {length} bytes, found {length - len(view)}"
            )
        view = view[count:]
    return bytes(data)


def run(
    handshake: Handshake[_Result],
    stream: Stream,
    *,
    deadline: Deadline | None = None,
    start_tls: TlsStarter | None = None,
) -> tuple[_Result, Stream]:
    """Drive a handshake over ``stream``; return its result and the stream to go on with, which TLS may have replaced.

    ``start_tls`` takes the stream and the expected host and gives the encrypted one with the peer's identity, within
    the stream's ``timeout_s``, which is what is left until the deadline.
    Raises what the handshake raises, RemoteProtocolError where the peer ends early, TimeoutError, OSError.
    """
    deadline = deadline or Deadline(None)
    answer: bytes | Identity | None = None
    try:
        while True:
            step = handshake.send(answer)
            answer = None
            if isinstance(step, Receive):
                answer = receive_exactly(stream, step.length, deadline)
            elif isinstance(step, Send):
                stream.set_timeout(deadline.remaining_s, deadline.remaining_s)
                stream.send(step.data)
            elif isinstance(step, Skip):
                for position in range(0, step.length, _SKIPPED_AT_ONCE):
                    receive_exactly(stream, min(_SKIPPED_AT_ONCE, step.length - position), deadline)
            else:
                assert isinstance(step, StartTls)
                assert start_tls is not None, "a handshake that may start TLS is run with a way to do it"
                stream.set_timeout(deadline.remaining_s, deadline.remaining_s)
                stream, answer = start_tls(stream, step.host)
    except StopIteration as finished:
        return finished.value, stream
    finally:
        handshake.close()
