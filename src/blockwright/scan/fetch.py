"""A scanner's data, by HTTP or from a file: all of it, of a bounded size, and from when it is.

Knows: addresses. Refuses to know: what is fetched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from blockwright.errors import ScanFailed
from blockwright.units import MiB, format_size

TIMEOUT_S: Final = 60.0
"""How long a server may say nothing."""

TOTAL_S: Final = 600.0
"""How long a document may take."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched, and from when it is; None where nobody says."""

    data: bytes
    date: datetime | None


def is_address(text: str) -> bool:
    """Whether it is to be fetched by HTTP."""
    return text.startswith(("http://", "https://"))


def fetch(text: str, limit: int, *, headers: Mapping[str, str] | None = None) -> Fetched:
    """Return what is at an address, or in the file of this name. Raises ScanFailed.

    A document is from its Last-Modified, or from the Date of the answer: what a server makes on asking is of that
    moment. A file is from when it was changed last.
    """
    return _fetched(text, limit, headers or {}) if is_address(text) else _read(text, limit)


def _read(path: str, limit: int) -> Fetched:
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
            changed = os.fstat(file.fileno()).st_mtime
    except OSError as error:
        raise ScanFailed(f"{path}: {str(error.strerror).lower()}") from error
    return Fetched(_bounded(data, path, limit), datetime.fromtimestamp(changed, UTC))


def _fetched(address: str, limit: int, headers: Mapping[str, str]) -> Fetched:
    import email.utils
    import http.client
    import urllib.error
    import urllib.request

    class Stay(urllib.request.HTTPRedirectHandler):
        """Follows nobody elsewhere with what was meant for one server."""

        def redirect_request(self, *_arguments: object) -> None:
            """Return nothing, so that the answer is taken as it is."""

    request = urllib.request.Request(address, headers={"User-Agent": "blockwright", **headers})  # noqa: S310 - HTTP
    opener = urllib.request.build_opener(*([Stay] if headers else []))
    deadline = time.monotonic() + TOTAL_S
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            data = bytearray()
            while piece := answer.read(min(MiB, limit + 1 - len(data))):
                data += piece
                if time.monotonic() > deadline:
                    raise ScanFailed(f"{address}: expected it within {TOTAL_S:g} s, found {len(data)} bytes of it")
            told = answer.headers.get("Last-Modified") or answer.headers.get("Date")
            length = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        error.close()
        raise ScanFailed(f"{address}: expected an answer of 200, found {error.code}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ScanFailed(f"{address}: cannot be fetched: {str(reason).lower()[:200]}") from error
    whole = _bounded(bytes(data), address, limit)
    if length is not None and length.isdecimal() and int(length) != len(data):
        raise ScanFailed(f"{address}: expected {length} bytes, found {len(data)}")
    try:
        date = None if told is None else email.utils.parsedate_to_datetime(told).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        date = None
    return Fetched(whole, date)


def _bounded(data: bytes, name: str, limit: int) -> bytes:
    if len(data) > limit:
        raise ScanFailed(f"{name}: expected at most {format_size(limit)}, found more")
    return data
