"""A server from its first socket to its last reply: opens, listens, tells, obeys signals, ends.

Knows: the order in which a server starts and ends. Refuses to know: how a user says what he wants.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Final

from blockwright.nbd.protocol.server import Tls
from blockwright.nbd.server.connection import Options
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.exposition import CONTENT_TYPE, Gauges, render
from blockwright.nbd.server.listeners import Listener, listen_tcp
from blockwright.nbd.server.metrics import ServerMetrics
from blockwright.nbd.server.peer import Peer
from blockwright.nbd.server.server import GRACE_S, Server
from blockwright.nbd.transport import Stream
from blockwright.serve.definition import ExportsFile
from blockwright.serve.notify import notify_ready, notify_reloading, notify_stopping
from blockwright.serve.process import ENDED, Signals, become, end_with_parent, pid_file
from blockwright.serve.scrape import ScrapeServer
from blockwright.serve.ui import Ui, open_page

INTERRUPTED: Final = 130
"""What ``run`` returns when a second signal ended it without waiting for clients."""
_HANGUP: Final = getattr(signal, "SIGHUP", -1)


@dataclass(frozen=True, slots=True)
class Service:
    """What a server process is to be.

    ``load`` returns the exports; it is called at the start and, where ``reloadable``, at each SIGHUP. ``listeners``
    and ``clients``, who are connected already, are the service's from now on. With ``once`` it ends with its last
    client. ``tell`` gets the addresses when clients may come. ``metrics`` is the host and port to be scraped at.
    ``ui`` is where the live page is, of which ``tell_page`` gets the URL; blocks are counted then too.
    """

    load: Callable[[], ExportsFile]
    listeners: Sequence[Listener] = ()
    clients: Sequence[tuple[Stream, Peer]] = ()
    options: Options = field(default_factory=Options)
    reloadable: bool = False
    once: bool = False
    grace_s: float = GRACE_S
    metrics: tuple[str, int] | None = None
    ui: Ui | None = None
    pid_file: str | None = None
    user: str | None = None
    with_parent: bool = False
    tell: Callable[[Sequence[str]], None] = lambda _addresses: None
    tell_page: Callable[[str], None] = lambda _url: None


def run(service: Service) -> int:
    """Serve until a signal, or the last client, ends it, and return the exit code. Called by the main thread.

    SIGTERM and SIGINT stop it: no new clients, ESHUTDOWN for new requests, ``grace_s`` for those under way; a second
    one ends it at once. SIGHUP loads the exports again; if they cannot be read, nothing changes. Raises what opening
    exports and sockets raises; then nothing was served, and nothing is left.
    """
    with ExitStack() as stack:
        for listener in service.listeners:
            stack.callback(listener.close)
        for stream, _ in service.clients:
            stack.callback(stream.close)
        signals = stack.enter_context(Signals())
        parent = os.getppid()
        server = _server(service)
        unstarted = stack.enter_context(ExitStack())
        unstarted.callback(_end_unstarted, server)
        for served in server.catalogue.all():
            served.info(service.options.limits)  # opens it: what cannot be served is told before anybody comes
        if service.metrics is not None:
            listening = listen_tcp(*service.metrics)
            stack.enter_context(
                ScrapeServer([each.socket for each in listening], lambda: _text(server), CONTENT_TYPE)
            )
        if service.ui is not None:
            page, url = open_page(service.ui, server)
            stack.enter_context(page)
            service.tell_page(url)
        stack.enter_context(pid_file(service.pid_file))
        if service.user is not None:
            become(service.user)
        if service.with_parent:
            end_with_parent(parent)
        unstarted.pop_all()
        return _serve(service, server, signals)


def _server(service: Service) -> Server:
    wanted = service.load()
    options = replace(service.options, default=wanted.default)
    if service.ui is not None:
        options = replace(options, metrics=ServerMetrics(heat=True))
    return Server(_exports(wanted), [each.socket for each in service.listeners], options, once=service.once)


def _end_unstarted(server: Server) -> None:
    """Close what a server has that was never started: told to stop before, it ends at once."""
    server.stop(0.0)
    server.serve()


def _exports(wanted: ExportsFile) -> list[Export]:
    return [each.export() for each in wanted.exports]


def _serve(service: Service, server: Server, signals: Signals) -> int:
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            server.serve()
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            failed.append(error)
        finally:
            signals.end()

    threading.Thread(target=serve, name="nbd: accept", daemon=True).start()
    for stream, peer in service.clients:
        server.adopt(stream, peer)
    names = [each.export.name for each in server.catalogue.all()]
    service.tell(addresses(service.listeners, names, tls=service.options.tls is Tls.REQUIRE))
    notify_ready(_status(names))
    code = _obey(service, server, signals)
    if failed:
        raise failed[0]
    return code


def addresses(listeners: Sequence[Listener], names: Sequence[str], *, tls: bool = False) -> list[str]:
    """Return an address for each listener, with the export's name in it where there is but one."""
    export = names[0] if len(names) == 1 else ""
    return [str(replace(each.uri, export=export, tls=tls)) for each in listeners]


def _status(names: Sequence[str]) -> str:
    return f"serving {len(names)} export{'s' if len(names) != 1 else ''}"


def _obey(service: Service, server: Server, signals: Signals) -> int:
    """Do what signals ask until the server has ended; return the exit code."""
    stopping = False
    while (number := signals.wait()) != ENDED:
        if number == _HANGUP:
            _reload(service, server)
        elif stopping:
            return INTERRUPTED
        else:
            stopping = True
            notify_stopping()
            service.options.log("stopping", signal=signal.Signals(number).name, grace_s=service.grace_s)
            server.stop(service.grace_s)
    return 0


def _reload(service: Service, server: Server) -> None:
    log = service.options.log
    if not service.reloadable:
        log("not reloaded", reason="the exports were named on the command line")
        return
    notify_reloading()
    try:
        wanted = service.load()
        server.reload(_exports(wanted), wanted.default)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the file, the server goes on as it was
        log("not reloaded", reason=str(error) or type(error).__name__)
    else:
        log("reloaded", exports=len(wanted.exports))
    notify_ready(_status([each.export.name for each in server.catalogue.all()]))


def _text(server: Server) -> str:
    by_export = {each.export.name: each.connections for each in server.catalogue.all()}
    limit = server.options.limits.bytes_in_flight
    return render(server.options.metrics, Gauges(len(server.connections), server.bytes_in_flight, limit, by_export))
