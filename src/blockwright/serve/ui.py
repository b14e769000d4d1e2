"""The live page over a running server: where it listens, and to whom.

Knows: addresses. Refuses to know: the page.
"""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from functools import partial

from blockwright.errors import UsageError
from blockwright.nbd.server.listeners import Listener, closing_all, listen_tcp
from blockwright.nbd.server.server import Server
from blockwright.serve.web import WebServer


@dataclass(frozen=True, slots=True)
class Ui:
    """Where the page is to be: a host and a port, 0 for one that is free. ``remote`` lets other hosts see it."""

    host: str
    port: int
    remote: bool = False


def open_page(ui: Ui, server: Server) -> tuple[WebServer, str]:
    """Return the page's server, which listens and is not yet started, and the page's URL.

    Raises UsageError for an address that other hosts reach, unless ``remote``, and what ``listen_tcp`` raises.
    """
    # Most servers show no page, and should not wait for what only pages need.
    from blockwright.serve.live import document
    from blockwright.serve.page import AT_ONCE, Page

    listeners = listen_tcp(ui.host, ui.port)
    try:
        for each in listeners:
            _require_loopback(each, ui)
        port = int(listeners[0].socket.getsockname()[1])
        name = ui.host or "localhost"
        started = time.monotonic_ns()
        page = Page(partial(document, server, lambda: time.monotonic_ns() - started), [name])
    except BaseException:
        with closing_all(listeners):
            raise
    answering = WebServer([each.socket for each in listeners], page.answer, name="page", at_once=AT_ONCE)
    return answering, f"http://{f'[{name}]' if ':' in name else name}:{port}/"


def _require_loopback(listener: Listener, ui: Ui) -> None:
    address = str(listener.socket.getsockname()[0]).partition("%")[0]
    if not ui.remote and not ipaddress.ip_address(address).is_loopback:
        raise UsageError(
            f"--ui {ui.host or '*'}:{ui.port}: expected an address of this host alone, such as localhost, found "
            f"{address}: --ui-remote lets others see exports, clients and what is used"
        )
