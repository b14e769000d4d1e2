"""Who is on the other end of a connection.

Knows: what the socket and TLS tell. Refuses to know: what anybody may do.
"""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv6Network

from blockwright.nbd.protocol.steps import Identity


@dataclass(frozen=True, slots=True)
class Peer:
    """A client: ``kind`` is ``tcp``, ``unix``, ``vsock`` or ``pipe``.

    ``address`` is an IP address or a context id; ``uid``, ``gid`` and ``pid`` are those of a Unix socket's peer.
    ``identity`` is what it proved inside TLS.
    """

    kind: str
    address: str = ""
    port: int = 0
    uid: int | None = None
    gid: int | None = None
    pid: int | None = None
    identity: Identity | None = None

    def __str__(self) -> str:
        if self.kind == "tcp":
            return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"
        if self.kind == "unix" and self.uid is not None:
            return f"unix:uid={self.uid},pid={self.pid}"
        return f"{self.kind}:{self.address}" if self.address else self.kind

    @property
    def key(self) -> str:
        """What counts as one origin for limits: an IPv4 address, an IPv6 network of one site, a user."""
        if self.uid is not None:
            return f"{self.kind}:{self.uid}"
        if ":" in self.address:
            # Whoever has one address of a network of 64 bits has all of them (RFC 6177).
            return f"{self.kind}:{IPv6Network((self.address.partition('%')[0], 64), strict=False)}"
        return f"{self.kind}:{self.address}"


def peer_of(sock: socket.socket) -> Peer:
    """Return who is connected to ``sock``."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        name = sock.getpeername()
        return Peer("tcp", str(name[0]).removeprefix("::ffff:"), int(name[1]))
    if sys.platform == "linux" and sock.family == socket.AF_UNIX:
        pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Peer("unix", uid=uid, gid=gid, pid=pid)
    if sys.platform == "linux" and sock.family == socket.AF_VSOCK:
        name = sock.getpeername()
        return Peer("vsock", str(name[0]), int(name[1]))
    return Peer("unix")
