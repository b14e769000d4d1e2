"""As much of HTTP/1 as answering GET takes: one answer for each connection, within limits.

A request has ``MAX_REQUEST`` bytes and ``DEADLINE_S`` seconds in all, a few are served at once, and each connection
ends behind its answer; so whatever comes in, the server's own work goes on.

Knows: requests and replies as bytes. Refuses to know: what is asked for.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self

MAX_REQUEST: Final = 8192
DEADLINE_S: Final = 5.0
MAX_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Request:
    """A request to read: its path and query as they came, its headers by lower-case name, the last of each."""

    path: str
    query: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status line's end, what its body is, the body, and further headers."""

    status: str = "200 OK"
    content_type: str = ""
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = field(default=())

    def encode(self, *, head: bool = False) -> bytes:
        """Return the bytes to send; the headers alone where ``head``."""
        kind = f"Content-Type: {self.content_type}\r\n" if self.content_type else ""
        more = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        length = f"Content-Length: {len(self.body)}\r\nConnection: close\r\n"
        return f"HTTP/1.1 {self.status}\r\n{length}{kind}{more}\r\n".encode() + (b"" if head else self.body)


class WebServer:
    """Answers on listening sockets, which it owns, with what ``answer`` returns; it must not raise or wait."""

    def __init__(
        self,
        sockets: Iterable[socket.socket],
        answer: Callable[[Request], Reply],
        *,
        name: str = "web",
        at_once: int = MAX_AT_ONCE,
    ) -> None:
        self._sockets = list(sockets)
        self._answer = answer
        self._name = name
        self._room = threading.Semaphore(at_once)
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._serve, args=(each,), name=name, daemon=True) for each in self._sockets
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
                threading.Thread(target=self._one, args=(client,), name=f"{self._name}: request", daemon=True).start()
            except RuntimeError:  # the host has no thread for it now
                client.close()
                self._room.release()

    def _one(self, client: socket.socket) -> None:
        try:
            with client, suppress(OSError):
                end = time.monotonic() + DEADLINE_S
                answer = self._reply(_received(client, end))
                client.settimeout(max(0.001, end - time.monotonic()))
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
        finally:
            self._room.release()

    def _reply(self, data: bytes | None) -> bytes:
        """Return the whole answer to a request; None is one that was too long."""
        if data is None:
            return Reply("431 Request Header Fields Too Large").encode()
        lines = data.decode("latin-1").replace("\r\n", "\n").split("\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return Reply("400 Bad Request").encode()
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return Reply("405 Method Not Allowed", headers=(("Allow", "GET, HEAD"),)).encode()
        path, _, query = target.partition("?")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        return self._answer(Request(path, query, headers)).encode(head=method == "HEAD")


def _received(client: socket.socket, end: float) -> bytes | None:
    """Return a request's first line and headers; None where they are too long.

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
    return bytes(data)
