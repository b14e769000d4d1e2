"""A session as a message from the process that accepted it to the one that serves it, and the answers.

Sent on a SOCK_SEQPACKET pair: JSON, with the client's socket, the export's file and a socket for the answers beside
it. Both ends are this version of this program, so the message has no version of its own.

Knows: what a worker process must know. Refuses to know: processes.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from blockwright.errors import NotSupported
from blockwright.nbd.protocol.server import HandshakeLimits
from blockwright.nbd.protocol.session import BlockSizes, ExportInfo, Session
from blockwright.nbd.server.limits import Limits
from blockwright.nbd.server.metrics import CommandMetrics
from blockwright.nbd.wire import TransmissionFlag

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of one message: a name and a description of 4 KiB each, unless most of them have to be escaped."""
DESCRIPTORS: Final = 3
READY: Final = b"ready"
"""Sent by the worker when it has started."""
STOP: Final = b"stop"
"""Sent in place of a session: answer ESHUTDOWN from now on."""


@dataclass(frozen=True, slots=True)
class Handoff:
    """A session, the limits it is held to, and where in the file its device lies, in bytes.

    ``heat`` says that it is wanted which blocks are used.
    """

    session: Session
    limits: Limits
    peer: str
    name: str
    start: int
    writable: bool
    heat: bool = False

    def encode(self) -> bytes:
        """Return the message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Handoff:
        """Return what ``encode`` gave."""
        found = json.loads(data)
        session, limits = found["session"], found["limits"]
        export = session["export"]
        return cls(
            session=Session(
                ExportInfo(
                    export["name"],
                    export["size"],
                    TransmissionFlag(export["flags"]),
                    BlockSizes(**export["blocks"]),
                    export["description"],
                ),
                session["structured"],
                session["extended"],
                {int(number): name for number, name in session["contexts"].items()},
                session["tls"],
            ),
            limits=Limits(**{**limits, "handshake": HandshakeLimits(**limits["handshake"])}),
            peer=found["peer"],
            name=found["name"],
            start=found["start"],
            writable=found["writable"],
            heat=found["heat"],
        )


if sys.platform == "win32":

    def pair() -> tuple[socket.socket, socket.socket]:
        """Raise NotSupported."""
        raise NotSupported("worker processes: this system cannot pass sockets to them")

    def send(channel: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
        """Raise NotSupported."""
        raise NotSupported(f"{channel}: this system cannot send {data!r} with {descriptors}")

    def receive(channel: socket.socket) -> tuple[bytes, list[int]]:
        """Raise NotSupported."""
        raise NotSupported(f"{channel}: this system cannot receive descriptors")

else:

    def pair() -> tuple[socket.socket, socket.socket]:
        """Return two connected sockets that keep messages apart, and tell when the other end is closed."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def send(channel: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
        """Send a message and descriptors, which stay ours. Raises OSError for one that nobody could receive whole."""
        if len(data) > MAX_MESSAGE:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        socket.send_fds(channel, [data], descriptors)

    def receive(channel: socket.socket) -> tuple[bytes, list[int]]:
        """Return the next message with its descriptors, which are ours then; no bytes from a closed other end."""
        data, descriptors, _, _ = socket.recv_fds(channel, MAX_MESSAGE, DESCRIPTORS)
        return data, descriptors


def tell(channel: socket.socket, kind: str, **fields: Any) -> None:
    """Send an answer, ``kind`` being ``log``, ``metrics`` or ``ended``; the process that asked may be gone."""
    with suppress(OSError):
        channel.send(json.dumps({"kind": kind, **fields}, default=str).encode()[:MAX_MESSAGE])


def told(channel: socket.socket) -> dict[str, Any] | None:
    """Return the next answer; None when the worker has gone."""
    data = channel.recv(MAX_MESSAGE)
    if not data:
        return None
    found: dict[str, Any] = json.loads(data)
    return found


def metrics_fields(commands: dict[int, CommandMetrics]) -> list[list[Any]]:
    """Return totals as JSON has them."""
    return [[number, *asdict(each).values()] for number, each in commands.items()]


def metrics_of(fields: list[list[Any]]) -> dict[int, CommandMetrics]:
    """Return what ``metrics_fields`` gave."""
    return {number: CommandMetrics(*values) for number, *values in fields}
