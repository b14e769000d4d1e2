"""What a server says of its clients: an event, and what is known about it by name.

Knows: how events reach ``logging``. Refuses to know: who reads them.
"""

from __future__ import annotations

import logging
from traceback import walk_tb
from typing import Final, Protocol

from blockwright.errors import BlockwrightError

LOGGER: Final = logging.getLogger("blockwright.nbd.server")
_MAX_BUGS: Final = 64
_bugs: set[tuple[type[Exception], str, int]] = set()


class Log(Protocol):
    """Takes note of an event: a connection, a refusal, a disconnect, a failed request."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Take note; never raises."""


def log_event(event: str, /, **fields: object) -> None:
    """Log the event at level INFO; the fields are the record's ``fields`` and follow in its text."""
    if LOGGER.isEnabledFor(logging.INFO):
        LOGGER.info(
            "%s%s", event, "".join(f" {key}={value}" for key, value in fields.items()), extra={"fields": fields}
        )


def log_bug(error: Exception) -> None:
    """Log at level ERROR, with its traceback, what no device is to raise: once for each place that raises it.

    Clients are told of an I/O error only, so whoever wrote the device would learn nothing of its bug.
    """
    if isinstance(error, BlockwrightError | OSError | MemoryError) or len(_bugs) >= _MAX_BUGS:
        return
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    if not frames:  # it was logged before they were taken away
        return
    place = (type(error), *frames[-1])
    if place not in _bugs:
        _bugs.add(place)
        LOGGER.error("a device raised %s, clients get EIO", type(error).__name__, exc_info=error)


def with_fields(log: Log, **fields: object) -> Log:
    """Return a log that adds the fields to each event."""

    def note(event: str, /, **more: object) -> None:
        log(event, **fields, **more)

    return note
