"""A stream that the kernel cannot use itself, such as one inside TLS, behind a socket that it can.

Two threads carry bytes, one for each direction, between the stream and one end of a pair of sockets; the kernel gets
the other end. The device lives as long as this process. It must not hold swap: the threads need memory to carry what
would free some.

Knows: bytes. Refuses to know: NBD, and devices.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final

from blockwright.errors import ProtocolError
from blockwright.nbd.transport import Stream
from blockwright.units import KiB

PIECE: Final = 256 * KiB
"""Bytes that are carried at once."""
_Carry = Callable[[Stream, socket.socket], None]


def carried(stream: Stream) -> socket.socket:
    """Return a socket at whose other end is what was at that of ``stream``, which belongs to it from now on.

    When either end closes, both are closed.
    """
    outer, inner = socket.socketpair()
    stream.set_timeout(None, None)
    ended = _Ending(stream, inner)
    for name, carry in (("down", _down), ("up", _up)):
        threading.Thread(target=_run, args=(carry, stream, inner, ended), name=f"nbd: {name}", daemon=True).start()
    return outer


class _Ending:
    """Closes both sides when both threads have left them."""

    def __init__(self, stream: Stream, inner: socket.socket) -> None:
        self._stream = stream
        self._inner = inner
        self._lock = threading.Lock()
        self._left = 2

    def one(self) -> None:
        """Wake the other thread; the last one closes."""
        with contextlib.suppress(OSError):
            self._inner.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._left -= 1
            last = not self._left
        if not last:
            self._stream.shut_down(reading_only=True)
            return
        with contextlib.suppress(OSError, ProtocolError):
            self._stream.close()
        self._inner.close()


def _run(carry: _Carry, stream: Stream, inner: socket.socket, ended: _Ending) -> None:
    try:
        with contextlib.suppress(OSError, ProtocolError):
            carry(stream, inner)
    finally:
        ended.one()


def _down(stream: Stream, inner: socket.socket) -> None:
    """Carry what the kernel asks."""
    buffer = memoryview(bytearray(PIECE))
    while count := inner.recv_into(buffer):
        stream.send(buffer[:count])


def _up(stream: Stream, inner: socket.socket) -> None:
    """Carry what the server answers."""
    buffer = memoryview(bytearray(PIECE))
    while count := stream.receive_into(buffer):
        inner.sendall(buffer[:count])
