"""Connects to where an address points.

Knows: which kind of socket each address needs. Refuses to know: NBD, and TLS.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import sys
import time
from typing import Final

from blockwright.errors import NotFound, NotSupported, UsageError
from blockwright.nbd.transport import SocketStream
from blockwright.nbd.uri import NbdUri

PAUSE_S: Final = 0.02
"""Seconds between two attempts to be among those who wait at a socket file."""


def dial(uri: NbdUri, *, timeout_s: float | None = 10.0) -> SocketStream:
    """Return a stream connected to the server of ``uri``, on which nothing was said yet.

    Raises NotFound where nobody listens there, UsageError for a path that no socket can have, TimeoutError, OSError
    of the host, NotSupported for a kind of socket that this system does not have.
    """
    try:
        return SocketStream(_connect(uri, timeout_s))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotFound(f"{uri}: nobody listens there ({(error.strerror or str(error)).lower()})") from None
    except socket.gaierror as error:
        raise NotFound(f"{uri}: no such host ({error.strerror})") from None
    except TimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), str(uri)) from None
    except OSError as error:
        if error.errno is None:  # Python's own: the path is too long for a socket's address
            raise UsageError(f"{uri}: expected the path of a socket: {str(error).lower()}") from None
        raise OSError(error.errno, error.strerror, str(uri)) from None


def _connect(uri: NbdUri, timeout_s: float | None) -> socket.socket:
    if uri.transport == "tcp":
        return socket.create_connection((uri.host, uri.port), timeout=timeout_s)
    if uri.transport == "unix":
        if sys.platform == "win32":
            raise NotSupported(f"{uri}: this system has no Unix sockets")
        return _dialled(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), uri.path, timeout_s)
    if sys.platform != "linux":
        raise NotSupported(f"{uri}: this system has no vsock")
    return _dialled(socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM), (int(uri.host), uri.port), timeout_s)


def _dialled(sock: socket.socket, address: str | tuple[int, int], timeout_s: float | None) -> socket.socket:
    ends = math.inf if timeout_s is None else time.monotonic() + timeout_s
    try:
        sock.settimeout(timeout_s)
        while True:
            try:
                sock.connect(address)
                return sock
            except BlockingIOError:  # as many wait as the server of a socket file takes; nothing tells of room there
                if time.monotonic() + PAUSE_S > ends:
                    raise TimeoutError from None
                time.sleep(PAUSE_S)
    except BaseException:
        sock.close()
        raise
