"""What a handshake asks of whoever runs it: a handshake is a generator that yields steps and is sent their results.

``run`` of ``nbd.transport`` drives one over a socket; a test drives two against each other, or one with any bytes.
A handshake asks for exactly the bytes it needs, so nothing that a peer sent early is ever held where a later step
(TLS) could take it for its own.

Knows: the steps. Refuses to know: either side of the protocol, and sockets.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar


class Receive(NamedTuple):
    """Wants exactly ``length`` bytes, sent back as bytes; fewer end the handshake by RemoteProtocolError."""

    length: int


class Skip(NamedTuple):
    """Wants ``length`` bytes taken from the peer and forgotten."""

    length: int


class Send(NamedTuple):
    """Wants the bytes sent, all of them."""

    data: bytes


class StartTls(NamedTuple):
    """Wants TLS begun: everything from here on is inside it. Sent back: the peer's ``Identity``.

    ``host`` is the name that a client expects in the server's certificate.
    """

    host: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the peer proved to be: names of its certificate (CN and subject alternatives), or its PSK's identity."""

    names: tuple[str, ...] = ()
    psk: str | None = None


Step = Receive | Skip | Send | StartTls
_Result = TypeVar("_Result")
Handshake = Generator[Step, "bytes | Identity | None", _Result]


def receive(length: int) -> Generator[Step, bytes | Identity | None, bytes]:
    """Yield one Receive and return its bytes."""
    data = yield Receive(length)
    assert isinstance(data, bytes), "the driver answers Receive with bytes"
    return data
