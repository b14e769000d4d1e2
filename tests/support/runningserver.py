"""A server in this process on a Unix socket, for tests that look inside, and handshakes fed with bytes."""

import tempfile
import threading
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

    def __init__(
        self,
        server: Server,
        path: str,
        events: list[tuple[str, dict[str, object]]],
        changed: threading.Condition,
    ) -> None:
        self._changed = changed
        self.server = server
        self.path = path
        self.uri = f"nbd+unix:///?socket={path}"
        self.events = events

    def client(self, **more: Any) -> RawClient:
        return RawClient.at(self.path, **more)

    def said(self, event: str, reason: str = "") -> dict[str, object]:
        """Wait for an event with `reason` in its reason, and return its fields."""

        def find() -> dict[str, object] | None:
            return next((more for name, more in self.events if name == event and reason in str(more)), None)

        with self._changed:
            found = self._changed.wait_for(find, 60)
        assert found is not None, self.events
        return found

    def reasons(self) -> list[str]:
        """Why sessions have ended so far."""
        return [str(fields["reason"]) for event, fields in self.events if event == "disconnected"]


@contextmanager
def running(exports: Iterable[Export], *, grace_s: float = 30, **more: Any) -> Iterator[Running]:
    """Serve until the context ends; `more` are fields of Options and of Limits."""
    limits = {key: more.pop(key) for key in list(more) if key in Limits.__slots__}
    events: list[tuple[str, dict[str, object]]] = []
    changed = threading.Condition()

    def log(event: str, /, **fields: object) -> None:
        with changed:
            events.append((event, fields))
            changed.notify_all()

    options = Options(
        **{
            "limits": replace(Limits(), **limits),
            "log": log,
            **more,
        }
    )
    with tempfile.TemporaryDirectory(prefix="nbd") as folder:
        listener = listen_unix(f"{folder}/s")
        with closing_all([listener]):
            server = Server(exports, [listener.socket], options)
            server.start()
            try:
                yield Running(server, listener.uri.path, events, changed)
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
