"""The live page: what it is made of, and who may look at it.

No request changes anything. The page is files of the package, and its policy lets it load nothing else. A request
must name the server as its owner does (``Host``), so that no other site's page can read it by having its name lead
here (DNS rebinding).

Knows: paths, headers and files. Refuses to know: what the numbers are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qs

from blockwright.draw.palette import css
from blockwright.serve.web import Reply, Request

AT_ONCE: Final = 16
"""Requests that are answered at once."""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
_KINDS: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}


class Page:
    """Answers requests: the page, its style and script, and ``/live.json`` with what ``live`` returns.

    ``live`` gets the name of an export, or None. ``hosts`` are names that requests may use beside numeric addresses
    and localhost.
    """

    def __init__(self, live: Callable[[str | None], bytes], hosts: Iterable[str] = ()) -> None:
        self._live = live
        self._hosts = {"localhost", *(each.lower() for each in hosts)}
        here = files(__package__ or __name__)
        self._files = {path: (here.joinpath(name).read_bytes(), kind) for path, (name, kind) in _KINDS.items()}
        body, kind = self._files["/page.css"]
        self._files["/page.css"] = css().encode() + body, kind

    def answer(self, request: Request) -> Reply:
        """Return the reply to a request."""
        if not self._is_for_us(request.headers.get("host", "")):
            return Reply("421 Misdirected Request", "text/plain", b"this is not the host you look for\n", _HEADERS)
        if request.path == "/live.json":
            if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return Reply("403 Forbidden", headers=_HEADERS)
            return Reply("200 OK", "application/json", self._live(_chosen(request.query)), _HEADERS)
        found = self._files.get(request.path)
        if found is None:
            return Reply("404 Not Found", "text/plain", b"not here\n", _HEADERS)
        return Reply("200 OK", found[1], found[0], _HEADERS)

    def _is_for_us(self, host: str) -> bool:
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if name.lower() in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _chosen(query: str) -> str | None:
    """Return the export that a query names."""
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=8).get("export", [None])[0]
    except ValueError:
        return None
