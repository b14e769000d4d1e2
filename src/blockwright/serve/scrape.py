"""One text over HTTP, for whoever scrapes metrics: ``GET /metrics`` and nothing else.

Knows: where the text is. Refuses to know: what it says.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Final

from blockwright.serve.web import Reply, Request, WebServer

_PATHS: Final = ("/metrics", "/")


class ScrapeServer(WebServer):
    """Answers on listening sockets, which it owns, with what ``render`` returns at that moment."""

    def __init__(self, sockets: Iterable[socket.socket], render: Callable[[], str], content_type: str) -> None:
        def answer(request: Request) -> Reply:
            if request.path not in _PATHS:
                return Reply("404 Not Found")
            return Reply(content_type=content_type, body=render().encode())

        super().__init__(sockets, answer, name="metrics")
