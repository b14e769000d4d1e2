"""The accept loop: a thread for each client, within limits, until told to stop.

Knows: listening sockets, threads, and ending them. Refuses to know: where sockets and exports come from.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Self

from blockwright.nbd.server.catalogue import Catalogue
from blockwright.nbd.server.connection import NO_THREAD, TICK_S, Connection, Options
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.limits import ByteBudget
from blockwright.nbd.server.peer import Peer, peer_of
from blockwright.nbd.server.processes import Processes
from blockwright.nbd.server.unaccepted import Unaccepted
from blockwright.nbd.transport import SocketStream, Stream

GRACE_S: Final = 10.0
"""Seconds that ``stop`` gives requests under way."""


class Server:
    """Serves exports on listening sockets, which it owns.

    ``serve`` blocks until ``stop`` is called by another thread or a signal handler; ``start`` does the same in a
    thread of its own. As a context manager it starts, and stops at the end. ``connections`` are those under way.
    ``once`` stops it when the last client has gone, which may be one that came by ``adopt``.
    """

    def __init__(
        self,
        exports: Iterable[Export],
        listeners: Iterable[socket.socket],
        options: Options | None = None,
        *,
        once: bool = False,
    ) -> None:
        self._once = once
        self.options = options or Options()
        self.catalogue = Catalogue(exports, self.options.default)
        self.listeners = list(listeners)
        self._budget = ByteBudget(self.options.limits.bytes_in_flight)
        self._processes = Processes(self.options.workers, self._budget)
        self._unaccepted = Unaccepted(self.options.log, self.options.metrics)
        self._stopping = threading.Event()
        self._connections: dict[Connection, threading.Thread] = {}
        self._lock = threading.Lock()
        self._wake, self._woken = socket.socketpair()
        self._thread: threading.Thread | None = None
        self._grace_s = GRACE_S

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self.wait()

    @property
    def connections(self) -> list[Connection]:
        """The connections under way."""
        with self._lock:
            return [each for each in self._connections if not each.over]

    @property
    def bytes_in_flight(self) -> int:
        """The bytes that requests under way hold."""
        return self._budget.used + self._processes.bytes_in_flight

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._thread = threading.Thread(target=self.serve, name="nbd: accept", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when a server that was started has stopped."""
        if self._thread is not None:
            self._thread.join()

    def reload(self, exports: Iterable[Export], default: str | None = None) -> None:
        """Offer other exports from now on; sessions under way go on. Raises UsageError, and changes nothing then."""
        self.catalogue.replace(exports, default)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Return at once; take no more connections, answer ESHUTDOWN, give what is under way ``grace_s`` seconds."""
        self._grace_s = grace_s
        self._stopping.set()
        with suppress(OSError):
            self._wake.send(b"x")

    def serve(self) -> None:
        """Serve until ``stop`` is called; then end every session, and close listeners and exports."""
        try:
            with selectors.DefaultSelector() as selector:
                for listener in self.listeners:
                    listener.setblocking(False)
                    selector.register(listener, selectors.EVENT_READ)
                selector.register(self._woken, selectors.EVENT_READ)
                self._serve(selector)
        finally:
            self._stopping.set()
            self._end()

    def _serve(self, selector: selectors.BaseSelector) -> None:
        while not self._stopping.is_set():
            for key, _ in selector.select(TICK_S):
                if key.fileobj is not self._woken:
                    assert isinstance(key.fileobj, socket.socket)
                    self._accept(key.fileobj)
            self._cut_off_stuck()
            self._unaccepted.look()

    # -- connections -----------------------------------------------------------------------------------------

    def adopt(self, stream: Stream, peer: Peer) -> None:
        """Serve a client that is connected already, within the limits; the stream is the server's from now on."""
        connection = Connection(
            stream, peer, self.catalogue, self.options, self._budget, self._stopping, self._processes
        )
        reason = self._over_limit(connection)
        if reason:
            self._refuse(stream, peer, reason)
            return
        thread = threading.Thread(target=self._run, args=(connection,), name=f"nbd: {peer}", daemon=True)
        with self._lock:
            self._connections[connection] = thread
        try:
            thread.start()
        except RuntimeError:  # the host has no thread for it now: whoever is served already goes on
            with self._lock:
                del self._connections[connection]
            self._refuse(stream, peer, NO_THREAD)

    def _refuse(self, stream: Stream, peer: Peer, reason: str) -> None:
        self.options.metrics.count("refused", reason)
        self.options.log("refused", peer=str(peer), reason=reason)
        stream.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as error:
            if not isinstance(error, (BlockingIOError, ConnectionAbortedError, InterruptedError)):
                # Out of descriptors or memory: what is open may end, and the listener stays.
                self._unaccepted.failed(listener, error)
                time.sleep(0.05)
            return
        self._unaccepted.accepted(listener)
        try:
            peer = peer_of(sock)
            stream = SocketStream(sock)
        except OSError:
            sock.close()  # gone already
            return
        self.adopt(stream, peer)

    def _over_limit(self, connection: Connection) -> str:
        limits = self.options.limits
        connections = self.connections
        if len(connections) >= limits.connections:
            return "too many connections"
        by_peer = Counter(each.peer.key for each in connections)
        if by_peer[connection.peer.key] >= limits.connections_by_address:
            return "too many connections of one address"
        return ""

    def _run(self, connection: Connection) -> None:
        self.options.metrics.count("accepted")  # before the client can know
        self.options.log("connected", peer=str(connection.peer))
        try:
            connection.serve()
        finally:
            with self._lock:
                del self._connections[connection]
                last = not self._connections
            if last and self._once:
                self.stop()

    def _cut_off_stuck(self) -> None:
        for connection in self.connections:
            connection.cut_off_if_stuck()

    def _end(self) -> None:
        """End every session, and then what they used."""
        for listener in self.listeners:
            listener.close()
        self._processes.stop()
        end = time.monotonic() + self._grace_s
        with self._lock:
            threads = list(self._connections.items())
        for connection, _ in threads:
            connection.drain(max(0.0, end - time.monotonic()))
        for _, thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        for connection, thread in threads:
            if thread.is_alive():
                connection.cut_off()
                thread.join(TICK_S)
        self._processes.close()
        self._wake.close()
        self._woken.close()
        self.catalogue.close()  # but what a session has that is stuck in its device
