"""How a client treats a server: limits and times, each with its default.

Knows: numbers. Refuses to know: what they limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from blockwright.units import MiB

CONNECTIONS: Final = 4
"""Connections to a server that allows several, by default."""
MAX_CONNECTIONS: Final = 64
TIMEOUT_S: Final = 60.0
"""How long a call may take, by default."""
CONNECT_TIMEOUT_S: Final = 10.0
"""How long connecting and the handshake may take, by default."""
RECONNECT_S: Final = 30.0
"""How long a lost connection is tried for again, by default."""
UNFLUSHED_BUDGET: Final = 64 * MiB
"""Bytes of memory that acknowledged, unflushed writes may take, by default."""


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a device treats its server. Seconds; None for no limit.

    ``connections`` is the most that are made where the server allows several. ``contexts`` are meta contexts to
    select beside base:allocation. ``unflushed_budget`` is the memory in bytes for writes that would have to be made
    again behind a reconnect; 0 keeps none. ``reconnect_s`` of 0 makes no connection again.
    """

    connections: int = CONNECTIONS
    timeout_s: float | None = TIMEOUT_S
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    reconnect_s: float = RECONNECT_S
    unflushed_budget: int = UNFLUSHED_BUDGET
    contexts: tuple[str, ...] = ()


DEFAULT: Final = ClientOptions()
"""What holds where nothing is said."""
