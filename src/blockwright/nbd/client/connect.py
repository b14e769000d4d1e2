"""Opens exports: from an address to a device, to a description, to a list.

Knows: the order of dialling, shaking hands and taking leave. Refuses to know: what either does.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from blockwright.errors import BlockwrightError, ConnectionLost, NotFound, Refused, RemoteProtocolError
from blockwright.nbd.client.connection import Connection, PendingCall
from blockwright.nbd.client.device import NbdDevice, ResizableNbdDevice
from blockwright.nbd.client.options import CONNECT_TIMEOUT_S, DEFAULT, ClientOptions
from blockwright.nbd.dial import dial
from blockwright.nbd.protocol import client
from blockwright.nbd.protocol.call import encode
from blockwright.nbd.protocol.client import Description, Listed, Wanted
from blockwright.nbd.protocol.steps import Handshake
from blockwright.nbd.transport import Deadline, SocketStream, Stream, TlsStarter, run
from blockwright.nbd.uri import NbdUri, parse_uri
from blockwright.nbd.wire import BASE_ALLOCATION, Command, TransmissionFlag

_Result = TypeVar("_Result")


def connect(
    uri: NbdUri | str,
    *,
    writable: bool = False,
    options: ClientOptions = DEFAULT,
    start_tls: TlsStarter | None = None,
) -> NbdDevice:
    """Return the export that ``uri`` names, open; a ResizableDevice where the server offers RESIZE.

    ``start_tls`` begins TLS where the address asks for it; by default ``nbd.tls.client_start_tls`` does. Raises
    UsageError for what is no address, NotFound where nobody listens or there is no such export, Refused with the
    server's reason, ReadOnly where ``writable`` is not to be had, NotTrusted, RemoteProtocolError, TimeoutError,
    OSError.
    """
    address = parse_uri(uri) if isinstance(uri, str) else uri
    wanted = _wanted(address, options.contexts)

    def redial(timeout_s: float | None) -> Connection:
        limit = options.connect_timeout_s if timeout_s is None else min(timeout_s, options.connect_timeout_s)
        session, stream = _shake(address, client.enter(wanted), limit, start_tls)
        return Connection(stream, session, timeout_s=options.timeout_s)

    return _device(redial(None), str(address), redial, writable, options)


def from_socket(
    sock: socket.socket,
    export: str = "",
    *,
    writable: bool = False,
    options: ClientOptions = DEFAULT,
) -> NbdDevice:
    """Return an export of the server at the other end of ``sock``, which the device owns from now on.

    Nobody can connect again from a socket, so one connection is all there is. Raises as ``connect`` does.
    """
    stream = SocketStream(sock)
    wanted = Wanted(export, contexts=(BASE_ALLOCATION, *options.contexts))
    try:
        session, _ = run(client.enter(wanted), stream, deadline=Deadline(options.connect_timeout_s))
    except BaseException:
        stream.close()
        raise
    connection = Connection(stream, session, timeout_s=options.timeout_s)
    return _device(connection, f"export {export!r}", None, writable, options)


def describe(
    uri: NbdUri | str, *, timeout_s: float = CONNECT_TIMEOUT_S, start_tls: TlsStarter | None = None
) -> Description:
    """Return what the server tells of the export, without using it. Raises as ``connect`` does."""
    address = parse_uri(uri) if isinstance(uri, str) else uri
    found, stream = _shake(address, client.describe(_wanted(address, ())), timeout_s, start_tls)
    _leave(stream, encode(PendingCall(Command.DISC, 0, 0), found.session) if found.entered else client.ABORT)
    return found


def list_exports(
    uri: NbdUri | str, *, timeout_s: float = CONNECT_TIMEOUT_S, start_tls: TlsStarter | None = None
) -> tuple[Listed, ...]:
    """Return the exports that the server lists, each with what it tells of it. Raises as ``connect`` does."""
    address = parse_uri(uri) if isinstance(uri, str) else uri
    found, stream = _shake(address, client.listing(_wanted(address, ())), timeout_s, start_tls)
    _leave(stream, client.ABORT)
    return found


def _wanted(address: NbdUri, contexts: Sequence[str]) -> Wanted:
    named = (BASE_ALLOCATION, *(each for each in contexts if each != BASE_ALLOCATION))
    return Wanted(address.export, address.tls, address.expected_host, named)


def _shake(
    address: NbdUri, handshake: Handshake[_Result], timeout_s: float, start_tls: TlsStarter | None
) -> tuple[_Result, Stream]:
    """Connect and run the handshake; the errors of either name the address."""
    deadline = Deadline(timeout_s)
    if address.tls and start_tls is None:
        from blockwright.nbd.tls import client_start_tls

        start_tls = client_start_tls(address)
    stream: Stream = dial(address, timeout_s=timeout_s)
    return shake(stream, handshake, str(address), deadline=deadline, timeout_s=timeout_s, start_tls=start_tls)


def shake(
    stream: Stream,
    handshake: Handshake[_Result],
    name: str,
    *,
    deadline: Deadline,
    timeout_s: float,
    start_tls: TlsStarter | None,
) -> tuple[_Result, Stream]:
    """Run a handshake until ``deadline``, and return its result and the stream to go on with, as ``run`` does.

    Where it fails the stream is closed, and the error has the server's ``name`` in front: NotFound, Refused,
    NotTrusted, RemoteProtocolError; TimeoutError, which tells ``timeout_s``; ConnectionLost for a stream that broke.
    """
    try:
        return run(handshake, stream, deadline=deadline, start_tls=start_tls)
    except (NotFound, Refused, RemoteProtocolError) as error:
        stream.close()
        raise type(error)(f"{name}: {error}") from None
    except TimeoutError:
        stream.close()
        text = f"the handshake took more than {timeout_s:g} s"
        raise TimeoutError(errno.ETIMEDOUT, text, name) from None
    except OSError as error:
        stream.close()
        if isinstance(error, BlockwrightError):
            raise
        text = (error.strerror or str(error)).lower()
        raise ConnectionLost(f"{name}: the connection broke in the handshake: {text}") from None
    except BaseException:
        stream.close()
        raise


def _device(
    connection: Connection,
    name: str,
    redial: Callable[[float | None], Connection] | None,
    writable: bool,  # noqa: FBT001 - private
    options: ClientOptions,
) -> NbdDevice:
    resizable = writable and connection.session.export.flags & TransmissionFlag.SEND_RESIZE
    try:
        return (ResizableNbdDevice if resizable else NbdDevice)(
            connection,
            name,
            options,
            dial=redial,
            writable=writable,
        )
    except BaseException:
        connection.close()
        raise


def _leave(stream: Stream, goodbye: bytes) -> None:
    with suppress(OSError):
        stream.send(goodbye)
    stream.close()
