"""The server's log as lines: for people, or JSON objects for machines.

Knows: how an event is written. Refuses to know: which events there are.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, TextIO

from blockwright.nbd.server.log import Log

MAX_TEXT: Final = 400
"""Characters of one value: a client's words must not fill a disk line by line."""

MAX_EVENTS: Final = 1000
"""Events of one second that are written: a client that breaks rules fast must not fill a disk either."""

ROUTINE: Final = frozenset({"connected", "session", "stopping"})
"""Events of a healthy server, beside sessions that end as they should."""

Clock = Callable[[], float]


def text_log(stream: TextIO, clock: Clock = time.time) -> Log:
    """Return a log of lines ``TIME EVENT key=value …``; a value with blanks or control characters is quoted."""

    def line(event: str, fields: dict[str, object]) -> str:
        values = "".join(f" {key}={_shown(value)}" for key, value in fields.items() if value is not None)
        return f"{_time(clock)} {event}{values}"

    return _log(stream, line, clock)


def json_log(stream: TextIO, clock: Clock = time.time) -> Log:
    """Return a log of one JSON object a line: ``time``, ``event``, and the event's fields."""

    def line(event: str, fields: dict[str, object]) -> str:
        plain = {key: _plain(value) for key, value in fields.items()}
        return json.dumps({"time": _time(clock), "event": event, **plain})

    return _log(stream, line, clock)


def troubles_only(log: Log) -> Log:
    """Return a log without what every healthy client causes."""

    def note(event: str, /, **fields: object) -> None:
        if event not in ROUTINE and not (event == "disconnected" and fields.get("how") in ("done", "stopped")):
            log(event, **fields)

    return note


def _log(stream: TextIO, line: Callable[[str, dict[str, object]], str], clock: Clock) -> Log:
    lock = threading.Lock()
    second, written, left_out = 0, 0, 0

    def note(event: str, /, **fields: object) -> None:
        nonlocal second, written, left_out
        with lock:
            now = int(clock())
            lines = []
            if now != second:
                if left_out:
                    lines.append(line("events left out", {"count": left_out}))
                second, written, left_out = now, 0, 0
            if written == MAX_EVENTS:
                left_out += 1
                return
            written += 1
            lines.append(line(event, fields))
            with suppress(OSError, ValueError):  # whoever read it has gone: no reason to stop serving
                stream.write("".join(f"{each}\n" for each in lines))
                stream.flush()

    return note


def _time(clock: Clock) -> str:
    return datetime.fromtimestamp(clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: object) -> object:
    return value if isinstance(value, (bool, int, float, type(None))) else str(value)[:MAX_TEXT]


def _shown(value: object) -> str:
    text = str(value)[:MAX_TEXT]
    if text and text.isprintable() and not set(text) & set(' "\\='):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
