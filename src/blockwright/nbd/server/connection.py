"""One client, from its first byte to its last.

Knows: handshake, then session, and why either ended. Refuses to know: who accepts connections.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from blockwright.nbd.protocol.server import Tls, handshake
from blockwright.nbd.protocol.session import Session
from blockwright.nbd.server.catalogue import Catalogue, ClientView
from blockwright.nbd.server.ending import ENDED_HANDSHAKE, HUNG_UP, STOPPED, Ending, ended_by
from blockwright.nbd.server.export import Export, Served
from blockwright.nbd.server.limits import ByteBudget, Limits
from blockwright.nbd.server.log import Log, log_event, with_fields
from blockwright.nbd.server.metrics import ServerMetrics
from blockwright.nbd.server.peer import Peer, peer_of
from blockwright.nbd.server.processes import Leaving, Processes
from blockwright.nbd.server.session import SessionRun
from blockwright.nbd.transport import Deadline, SocketStream, Stream, TlsStarter, run

TICK_S: Final = 1.0
"""Seconds between two looks at requests that take too long."""
NO_THREAD: Final = "no thread to be had"
"""Why a connection is refused for which the host has none."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a server treats every client. ``start_tls`` (``nbd.tls``) is needed unless ``tls`` is OFF.

    ``workers`` is how many processes beside this one may serve sessions over plain files; started when needed.
    """

    limits: Limits = field(default_factory=Limits)
    tls: Tls = Tls.OFF
    start_tls: TlsStarter | None = None
    log: Log = log_event
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    default: str | None = None
    workers: int = 0


class Connection:
    """A connected client. ``serve`` is called once, and owns the stream; the rest may be called by any thread."""

    def __init__(
        self,
        stream: Stream,
        peer: Peer,
        catalogue: Catalogue,
        options: Options,
        budget: ByteBudget,
        stopping: threading.Event,
        processes: Processes,
    ) -> None:
        self._stream = stream
        self._catalogue = catalogue
        self._options = options
        self._log = with_fields(options.log, peer=str(peer))
        self._stopping = stopping
        self._budget = budget
        self._processes = processes
        self._run: SessionRun | None = None
        self._cut_off: Ending | None = None
        self.peer = peer
        self._view: ClientView | None = None
        self._export: str | None = None
        self.over = False
        """Whether the client is gone: it counts no more, though its thread may still have to say why."""

    @property
    def export(self) -> str | None:
        """The export that the client's session is of, from before it hears of that; None where it has had none."""
        joined = None if self._view is None else self._view.joined
        return self._export if joined is None else joined.export.name

    def serve(self) -> Ending:
        """Serve the client until its session ends, close the stream, and return why it ended. Never raises."""
        try:
            ending = self._handshake()
        except ConnectionError:  # some do not wait for the answer to ABORT
            ending = HUNG_UP
        except Exception as error:  # noqa: BLE001 - also a bug of ours, or of a device: one client must not end others
            ending = ended_by(error)
        finally:
            self.over = True
            self._stream.close()
        ending = self._cut_off or ending
        self._options.metrics.count("ended", ending.how)
        self._log("disconnected", export=self.export, how=ending.how, reason=ending.reason)
        return ending

    def cut_off(self) -> None:
        """End the connection from another thread, because the server stops."""
        self._cut_off = STOPPED
        self._stream.shut_down()

    def drain(self, timeout_s: float) -> None:
        """Let what is under way be answered, and end the connection."""
        if self._run is not None:
            self._run.wait_until_idle(timeout_s)
        self._cut_off = STOPPED
        self._stream.shut_down(reading_only=True)

    def cut_off_if_stuck(self) -> None:
        """End the session if one of its requests has been under way for longer than the limit."""
        if self._run is not None:
            self._run.cut_off_if_stuck()

    def _handshake(self) -> Ending:
        options = self._options
        view = ClientView(
            self._catalogue, self.peer, options.limits, self._log, self._stopping, metrics=options.metrics
        )
        self._view = view
        with view:
            return self._negotiate(view)

    def _negotiate(self, view: ClientView) -> Ending:
        options = self._options
        deadline = Deadline(options.limits.handshake_s)
        try:
            session, self._stream = run(
                handshake(view, tls=options.tls, limits=options.limits.handshake),
                self._stream,
                deadline=deadline,
                start_tls=options.start_tls,
            )
        finally:
            self.peer = view.peer
        if session is None:
            return ENDED_HANDSHAKE
        assert view.joined is not None, "a session begins only where it was counted"
        self._export = session.export.name
        self._log("session", export=self._export, tls=session.tls, **_framing_fields(session))
        return self._session(session, view.joined)

    def _session(self, session: Session, served: Served) -> Ending:
        options = self._options
        metrics = options.metrics.export(session.export.name)

        def here() -> Ending:
            self._run = SessionRun(
                self._stream,
                session,
                served,
                options.limits,
                self._budget,
                metrics,
                self._log,
                self._stopping,
                self._processes.has_spare_core,
            )
            return self._run.serve()

        leaving = Leaving(
            self._stream, str(self.peer), session, served.export, served.device, options.limits, metrics, self._log
        )
        return self._processes.serve(leaving, here)


def _framing_fields(session: Session) -> dict[str, object]:
    kind = "extended" if session.extended else "structured" if session.structured else "simple"
    return {"replies": kind, "contexts": ",".join(session.contexts.values()) or "none"}


def serve_connection(sock: socket.socket, exports: Sequence[Export], options: Options | None = None) -> Ending:
    """Serve one connected socket until its session ends, close it, and return why it ended.

    For callers who accept connections themselves; each call has limits of its own, and a thread that ends the session
    when a request takes longer than ``Limits.request_s``: its client is cut off then, and the call returns when the
    device does. Devices that exports opened themselves are closed at the end.
    """
    options = options or Options()
    catalogue = Catalogue(exports, options.default)
    with contextlib.closing(catalogue):
        budget = ByteBudget(options.limits.bytes_in_flight)
        stream, peer = SocketStream(sock), peer_of(sock)
        connection = Connection(stream, peer, catalogue, options, budget, threading.Event(), Processes(0, budget))
        try:
            with _watched(connection, options.limits):
                return connection.serve()
        except _NoThreadError:
            stream.close()
            options.metrics.count("refused", NO_THREAD)
            options.log("refused", peer=str(peer), reason=NO_THREAD)
            return Ending("refused", NO_THREAD)


class _NoThreadError(Exception):
    """The host has no thread for it now."""


@contextlib.contextmanager
def _watched(connection: Connection, limits: Limits) -> Iterator[None]:
    """Have a thread cut off the connection if a request is stuck, as a server does for all of its own."""
    if limits.request_s is None:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(TICK_S):
            connection.cut_off_if_stuck()

    thread = threading.Thread(target=watch, name=f"nbd: watch {connection.peer}", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        raise _NoThreadError from None
    try:
        yield
    finally:
        ended.set()
        thread.join()
