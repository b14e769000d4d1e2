"""One text over HTTP, for whoever scrapes metrics: ``GET /metrics`` and nothing else.

A request has ``MAX_REQUEST`` bytes and ``DEADLINE_S`` seconds in all, a few are served at once, and each connection
ends behind its answer; so whatever comes in, the server's own work goes on.

Knows: as much of HTTP/1 as one answer takes. Refuses to know: what the text says.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, Self

MAX_REQUEST: Final = 8192
DEADLINE_S: Final = 5.0
MAX_AT_ONCE: Final = 4
_PATHS: Final = ("/metrics", "/")


class ScrapeServer:
    """Answers on listening sockets, which it owns, with what ``render`` returns at that moment."""

    def __init__(self, sockets: Iterable[socket.socket], render: Callable[[], str], content_type: str) -> None:
        self._sockets = list(sockets)
        self._render = render
        self._content_type = content_type
        self._room = threading.Semaphore(MAX_AT_ONCE)
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._serve, args=(each,), name="metrics", daemon=True) for each in self._sockets
        ]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping = True
        for each in self._sockets:
            with suppress(OSError):  # Darwin: not connected
                each.shutdown(socket.SHUT_RDWR)  # ends the accept under way
            each.close()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def _serve(self, listener: socket.socket) -> None:
        while not self._stopping:
            self._room.acquire()
            try:
                client, _ = listener.accept()
            except OSError:
                self._room.release()
                if not self._stopping:
                    time.sleep(0.05)  # out of descriptors: what is open may end
                continue
            try:
                threading.Thread(target=self._answer, args=(client,), name="metrics: scrape", daemon=True).start()
            except RuntimeError:  # the host has no thread for it now
                client.close()
                self._room.release()

    def _answer(self, client: socket.socket) -> None:
        try:
            with client, suppress(OSError):
                end = time.monotonic() + DEADLINE_S
                answer = self._reply(_request_line(client, end))
                client.settimeout(max(0.001, end - time.monotonic()))
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
        finally:
            self._room.release()

    def _reply(self, line: bytes | None) -> bytes:
        """Return the whole answer to a request's first line; None is one that was too long."""
        if line is None:
            return _response("431 Request Header Fields Too Large")
        words = line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request")
        method, target, _ = words
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "Allow: GET, HEAD\r\n")
        if target.split(b"?")[0].decode("latin-1") not in _PATHS:
            return _response("404 Not Found")
        body = self._render().encode()
        return _response("200 OK", f"Content-Type: {self._content_type}\r\n", body, head=method == b"HEAD")


def _request_line(client: socket.socket, end: float) -> bytes | None:
    """Return the first line of a request whose headers are all there; None where they are too long.

    Raises OSError where the client hangs up or takes too long.
    """
    data = bytearray()
    while b"\r\n\r\n" not in data and b"\n\n" not in data:
        client.settimeout(max(0.001, end - time.monotonic()))
        if time.monotonic() >= end:
            raise TimeoutError("the request took too long")
        part = client.recv(MAX_REQUEST + 1 - len(data))
        if not part:
            raise ConnectionResetError("the client hung up within a request")
        data += part
        if len(data) > MAX_REQUEST:
            return None
    return bytes(data).split(b"\n", 1)[0].rstrip(b"\r")


def _response(status: str, headers: str = "", body: bytes = b"", *, head: bool = False) -> bytes:
    start = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return start.encode() + (b"" if head else body)
