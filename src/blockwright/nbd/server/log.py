"""What a server says of its clients: an event, and what is known about it by name.

Knows: how events reach ``logging``. Refuses to know: who reads them.
"""

from __future__ import annotations

import logging
from typing import Protocol

_logger = logging.getLogger("blockwright.nbd.server")


class Log(Protocol):
    """Takes note of an event: a connection, a refusal, a disconnect, a failed request."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Take note; never raises."""


def log_event(event: str, /, **fields: object) -> None:
    """Log the event at level INFO; the fields are the record's ``fields`` and follow in its text."""
    if _logger.isEnabledFor(logging.INFO):
        _logger.info(
            "%s%s", event, "".join(f" {key}={value}" for key, value in fields.items()), extra={"fields": fields}
        )


def with_fields(log: Log, **fields: object) -> Log:
    """Return a log that adds the fields to each event."""

    def note(event: str, /, **more: object) -> None:
        log(event, **fields, **more)

    return note
