"""What clients may cost a server: every number has a default, and none of them is endless.

Knows: the limits, and how bytes in flight are counted. Refuses to know: connections.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from blockwright.errors import UsageError
from blockwright.nbd.protocol.server import HandshakeLimits
from blockwright.units import KiB, MiB


@dataclass(frozen=True, slots=True)
class Limits:
    """A server's limits; times in seconds, None for no limit.

    ``bytes_in_flight`` bounds what all connections' requests hold in memory together, and
    ``connection_bytes_in_flight`` and ``connection_requests`` what one of them does; one request of at most
    ``PIECE`` bytes is always let in, so nobody is locked out by others. ``request_s`` is how long a client may take
    to send a whole request or to take its replies, and a device to answer. Raises UsageError for ``request_bytes``
    below ``MIN_REQUEST``.
    """

    connections: int = 100
    connections_by_address: int = 64
    handshake_s: float | None = 10.0
    handshake: HandshakeLimits = field(default_factory=HandshakeLimits)
    bytes_in_flight: int = 64 * MiB
    connection_bytes_in_flight: int = 16 * MiB
    connection_requests: int = 256
    request_bytes: int = 32 * MiB
    request_s: float | None = 60.0
    idle_s: float | None = None

    def __post_init__(self) -> None:
        if self.request_bytes < MIN_REQUEST:
            raise UsageError(
                f"limits: expected requests of at least {MIN_REQUEST} bytes to be let in, found {self.request_bytes}"
            )


MIN_REQUEST: Final = 64 * KiB
"""Bytes of a read that every server takes, even with DF ("Structured reply message")."""

PIECE: Final = 1 * MiB
"""Bytes that one read or write of a device moves; longer requests are served in pieces."""

SMALL: Final = 64 * KiB
"""Bytes up to which a request is answered from the connection's own buffer."""


class ByteBudget:
    """Bytes in flight, of at most ``limit``, shared by threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """The bytes that are taken."""
        return self._used

    def take(self, amount: int, *, at_once: Callable[[], bool] | None = None, timeout_s: float | None = None) -> bool:
        """Take ``amount`` bytes when there is room for them; False where ``timeout_s`` passes first.

        They are taken in any case once ``at_once`` says so, which is asked again when something is given back. An
        amount over the limit is taken when nothing else is.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._fits(amount) or (at_once and at_once()), timeout_s):
                return False
            self._used += amount
        return True

    def give_back(self, amount: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._used -= amount
            self._changed.notify_all()

    def _fits(self, amount: int) -> bool:
        return self._used + amount <= self.limit or not self._used
