"""Where runs are done: a server of Temporal, and a host whose worker does them.

Knows: their shape. Refuses to know: clients of Temporal, so whoever reads options imports none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from blockwright.errors import UsageError
from blockwright.pipeline.temporal.server import Server
from blockwright.pipeline.temporal.words import HEARTBEAT_S

_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}").fullmatch


@dataclass(frozen=True, slots=True)
class Place:
    """A server of Temporal, and the host whose worker is to do a run."""

    server: Server
    host: str
    heartbeat_s: float = HEARTBEAT_S


def check_host(host: str) -> str:
    """Return a host's name. Raises UsageError."""
    if not _HOST(host):
        raise UsageError(f"host: expected letters, digits, '.', '_' and '-', found {host[:64]!r}")
    return host
