"""Connections for the kernel: at the end of a handshake, with simple replies, which is all that it understands.

Knows: the handshake, and which sockets the kernel can use. Refuses to know: devices.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass

from blockwright.attach.nbd_proxy import carried
from blockwright.errors import NotSupported
from blockwright.nbd.client.connect import describe, shake
from blockwright.nbd.dial import dial
from blockwright.nbd.protocol.client import Wanted, enter
from blockwright.nbd.protocol.session import ExportInfo
from blockwright.nbd.transport import Deadline, SocketStream, Stream, TlsStarter
from blockwright.nbd.uri import NbdUri, parse_uri


@dataclass(frozen=True, slots=True)
class Link:
    """A connection in transmission: a socket for the kernel, and the export as the server told it."""

    sock: socket.socket
    export: ExportInfo


class Source:
    """Where connections come from: an address, which can be dialled again, or one connected socket.

    ``text`` names it; ``again`` says whether there can be more than one connection.
    """

    def __init__(
        self,
        where: socket.socket | NbdUri | str,
        *,
        export: str = "",
        start_tls: TlsStarter | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._socket = where if isinstance(where, socket.socket) else None
        self._start_tls = start_tls
        self._timeout_s = timeout_s
        if isinstance(where, socket.socket):
            self._wanted = Wanted(export, contexts=(), framing="simple")
            self.text = f"export {export!r}"
            return
        self.uri = parse_uri(where) if isinstance(where, str) else where
        self.text = where if isinstance(where, str) else str(where)
        self._wanted = Wanted(self.uri.export, self.uri.tls, self.uri.expected_host, (), "simple")

    @property
    def again(self) -> bool:
        """Whether there can be more than one connection."""
        return self._socket is None

    def link(self) -> Link:
        """Return a connection in transmission.

        Raises NotFound, Refused, NotTrusted, RemoteProtocolError, TimeoutError, OSError.
        """
        deadline = Deadline(self._timeout_s)
        start_tls = self._tls()
        session, stream = shake(
            self._stream(),
            enter(self._wanted),
            self.text,
            deadline=deadline,
            timeout_s=self._timeout_s,
            start_tls=start_tls,
        )
        try:
            return Link(_for_kernel(stream), session.export)
        except BaseException:
            stream.close()
            raise

    def _stream(self) -> Stream:
        if self._socket is None:
            return dial(self.uri, timeout_s=self._timeout_s)
        return SocketStream(self._socket)

    def _tls(self) -> TlsStarter | None:
        if self._start_tls is None and self._wanted.tls:
            from blockwright.nbd.tls import client_start_tls

            return client_start_tls(self.uri)
        return self._start_tls

    def size(self) -> int:
        """Return the size in bytes that the server tells now. Raises NotSupported for a socket; else as ``link``."""
        if not self.again:
            raise NotSupported(f"{self.text}: a socket cannot be asked again")
        return describe(self.uri, timeout_s=self._timeout_s, start_tls=self._start_tls).session.export.size


def _for_kernel(stream: Stream) -> socket.socket:
    """Return a socket that the kernel takes: TCP and Unix ones as they are, others behind a pair."""
    if sys.platform != "win32" and isinstance(stream, SocketStream):
        family = stream.socket.family
        if family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
            stream.set_timeout(None, None)  # the kernel would take a time that is over for the end
            if family != socket.AF_UNIX:
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return stream.socket
    return carried(stream)
