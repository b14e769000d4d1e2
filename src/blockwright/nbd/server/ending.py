"""Why a connection ended: a kind to count, and a reason for people.

Knows: how errors are told. Refuses to know: connections.
"""

from __future__ import annotations

from typing import NamedTuple

from blockwright.errors import BlockwrightError
from blockwright.nbd.protocol.server import OptionRefused


class Ending(NamedTuple):
    """An ending, and why.

    ``how`` is ``done``, ``stopped`` by the server, ``cut off`` for being stuck, ``refused``, ``timeout``,
    ``protocol`` where the client broke it, ``broken`` where the connection did, or ``internal``.
    """

    how: str
    reason: str


HUNG_UP = Ending("done", "the client hung up")
DISCONNECTED = Ending("done", "the client disconnected")
ENDED_HANDSHAKE = Ending("done", "the client ended the handshake")
STOPPED = Ending("stopped", "the server stopped")
HALF_A_REQUEST = "the client hung up within a request"


def ended_by(error: Exception) -> Ending:
    """Return the ending that an exception is."""
    if isinstance(error, TimeoutError):
        return Ending("timeout", str(error))
    if isinstance(error, OptionRefused):
        return Ending("refused", str(error))
    if isinstance(error, BlockwrightError):
        return Ending("protocol", str(error))
    if isinstance(error, OSError):
        return Ending("broken", f"the connection broke: {(error.strerror or str(error)).lower()}")
    return Ending("internal", f"internal error: {type(error).__name__}: {error}")
