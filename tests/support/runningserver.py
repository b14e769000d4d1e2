"""A server in this process on a Unix socket, for tests that look inside, and handshakes fed with bytes."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from blockwright.errors import RemoteProtocolError
from blockwright.nbd.protocol.server import handshake
from blockwright.nbd.protocol.steps import Identity, Receive, Send, Skip, StartTls
from blockwright.nbd.server.connection import Options
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.limits import Limits
from blockwright.nbd.server.listeners import closing_all, listen_unix
from blockwright.nbd.server.server import Server
from tests.support.rawnbd import RawClient


class Running:
    """A server under way: where it listens, and what it has logged."""

    def __init__(self, server: Server, path: str, events: list[tuple[str, dict[str, object]]]) -> None:
        self.server = server
        self.path = path
        self.uri = f"nbd+unix:///?socket={path}"
        self.events = events

    def client(self, **more: Any) -> RawClient:
        return RawClient.at(self.path, **more)

    def reasons(self) -> list[str]:
        """Why sessions have ended so far."""
        return [str(fields["reason"]) for event, fields in self.events if event == "disconnected"]


@contextmanager
def running(exports: Iterable[Export], *, grace_s: float = 30, **more: Any) -> Iterator[Running]:
    """Serve until the context ends; `more` are fields of Options and of Limits."""
    limits = {key: more.pop(key) for key in list(more) if key in Limits.__slots__}
    events: list[tuple[str, dict[str, object]]] = []
    options = Options(
        **{
            "limits": replace(Limits(), **limits),
            "log": lambda event, /, **fields: events.append((event, fields)),
            **more,
        }
    )
    with tempfile.TemporaryDirectory(prefix="nbd") as folder:
        listener = listen_unix(f"{folder}/s")
        with closing_all([listener]):
            server = Server(exports, [listener.socket], options)
            server.start()
            try:
                yield Running(server, listener.uri.path, events)
            finally:
                server.stop(grace_s)
                server.wait()


class Fed:
    """A handshake that gets `data` and nothing more: what it sent, its session or error, and what is left."""

    def __init__(self, offers: Any, data: bytes, *, identity: Identity | None = None, **more: Any) -> None:
        self.sent = bytearray()
        self.result: Any = None
        self.error: Exception | None = None
        self.tls_at: int | None = None
        steps, answer = handshake(offers, **more), None
        try:
            while True:
                step = steps.send(answer)
                answer = None
                if isinstance(step, Receive):
                    if len(data) < step.length:
                        raise RemoteProtocolError("the data ends")
                    answer, data = data[: step.length], data[step.length :]
                elif isinstance(step, Send):
                    self.sent += step.data
                elif isinstance(step, Skip):
                    if len(data) < step.length:
                        raise RemoteProtocolError("the data ends")
                    data = data[step.length :]
                else:
                    assert isinstance(step, StartTls)
                    self.tls_at = len(self.sent)
                    answer = identity or Identity()
        except StopIteration as finished:
            self.result = finished.value
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        finally:
            steps.close()
        self.rest = data
