"""Sockets that a server listens on: made here, or inherited from whoever started it.

Knows: addresses, socket files, and how systemd hands sockets over. Refuses to know: what is served on them.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from blockwright.errors import InUse, NotSupported, UsageError
from blockwright.nbd.uri import NbdUri
from blockwright.nbd.wire import PORT

BACKLOG: Final = 128
"""Connections that may wait to be accepted."""
FIRST_INHERITED: Final = 3
"""The first descriptor that systemd hands over (sd_listen_fds(3))."""
MAX_INHERITED: Final = 64
"""Sockets taken from whoever started us."""

_HOST_PORT: Final = re.compile(r"(?:\[(?P<six>[^]]*)\]|(?P<host>[^:]*)):(?P<port>[0-9]{1,5})")
_PORT_ONLY: Final = re.compile(r"[0-9]{1,5}")
_MAX_PORT: Final = 65535
_ATTEMPTS: Final = 16
"""Ports that are tried for one that is free on each address of a host."""
_MAX_VSOCK: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and the address that clients use, without an export.

    ``file`` is the device and inode of the socket file that ``close`` removes, where it was made here. ``inherited``
    says that whoever started us has made the socket, and perhaps given it a ``name``.
    """

    socket: socket.socket
    uri: NbdUri
    name: str = ""
    inherited: bool = False
    file: tuple[int, int] | None = field(default=None, compare=False)

    def close(self) -> None:
        """Stop listening, and remove the socket file unless another one has taken its place. Idempotent."""
        self.socket.close()
        if self.file is not None:
            with suppress(OSError):  # gone already, or the directory is not ours to change any more
                status = os.lstat(self.uri.path)
                if (status.st_dev, status.st_ino) == self.file:
                    os.unlink(self.uri.path)


@contextmanager
def closing_all(listeners: Iterable[Listener]) -> Iterator[None]:
    """Close the listeners at the end."""
    try:
        yield
    finally:
        for each in listeners:
            each.close()


# -- TCP ---------------------------------------------------------------------------------------------------------


def parse_host_port(text: str, *, default: int | None = PORT) -> tuple[str, int]:
    """Return the host, empty for all addresses, and the port of ``HOST:PORT``, ``[IPv6]:PORT``, ``:PORT``, ``PORT``.

    A host alone gets the port ``default``. Raises UsageError.
    """
    match = _HOST_PORT.fullmatch(text)
    if match is not None:
        host, port = match["six"] if match["six"] is not None else match["host"], int(match["port"])
    elif _PORT_ONLY.fullmatch(text):
        host, port = "", int(text)
    elif default is not None and text and ":" not in text:
        host, port = text, default
    else:
        raise UsageError(f"{text[:200]!r}: expected HOST:PORT, [IPv6]:PORT, :PORT or PORT")
    if port > _MAX_PORT:
        raise UsageError(f"{text[:200]!r}: expected a port up to {_MAX_PORT}, found {port}")
    return ("" if host == "*" else host), port


def listen_tcp(host: str, port: int = PORT) -> list[Listener]:
    """Return a listener for each address of ``host``; one for IPv6 and IPv4 together where it is empty.

    Port 0 is one that is free, the same for all. Raises UsageError for a host that has no address, InUse where the
    port is taken, OSError.
    """
    if not host:
        return [_listen_everywhere(port)]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{host[:200]}: has no address to listen on: {(reason or 'unknown').lower()}") from None
    addresses = [(family, address) for family, _, _, _, address in dict.fromkeys(found)]
    for _ in range(0 if port else _ATTEMPTS - 1):
        with suppress(InUse):  # free on the first address, and somebody else's on another one
            return _listen_on_all(addresses, host, port)
    return _listen_on_all(addresses, host, port)


def _listen_on_all(
    addresses: Iterable[tuple[int, tuple[int | str, ...] | tuple[int, bytes]]], host: str, port: int
) -> list[Listener]:
    """Return a listener for each of the addresses that this machine has."""
    made: list[Listener] = []
    missing: OSError | None = None
    try:
        for family, address in addresses:
            if made and not port:
                address = (address[0], made[0].uri.port, *address[2:])  # noqa: PLW2901 - the port that was free
            try:
                made.append(_bind_tcp(family, address, host))
            except OSError as error:
                # A name such as localhost may have an address that this machine does not.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
        if not made:
            assert missing is not None, "getaddrinfo finds an address or raises"
            raise missing
    except BaseException:
        for each in made:
            each.close()
        raise
    return made


def _listen_everywhere(port: int) -> Listener:
    if socket.has_dualstack_ipv6():
        try:
            return _bind_tcp(socket.AF_INET6, ("::", port), "localhost")
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return _bind_tcp(socket.AF_INET, ("0.0.0.0", port), "localhost")  # noqa: S104 - that is what was asked for


def _bind_tcp(family: int, address: tuple[object, ...], host: str) -> Listener:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there it would let two programs share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        _bind(sock, address, f"{host}:{address[1]}")
        return Listener(sock, NbdUri("tcp", host=host, port=int(sock.getsockname()[1])))
    except BaseException:
        sock.close()
        raise


def _bind(sock: socket.socket, address: object, name: str) -> None:
    try:
        sock.bind(address)  # type: ignore[arg-type]  # every family has its own shape of address
        sock.listen(BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InUse(f"{name}: is in use: another server listens there") from None
        raise OSError(error.errno, os.strerror(error.errno or 0), name) from None


# -- Unix --------------------------------------------------------------------------------------------------------


def listen_unix(path: str, *, mode: int | None = None) -> Listener:
    """Return a listener on the socket file ``path``, which has ``mode`` where given before anybody can connect.

    The file of a server that has died is replaced. Raises InUse where one listens there, UsageError where the path
    is something else or too long, NotSupported, OSError.
    """
    if sys.platform == "win32":
        raise NotSupported("unix sockets: this system's Python has none")
    if not path or "\0" in path:  # what Linux takes for a name outside the file system
        raise UsageError(f"{path[:200]!r}: expected the path of a socket")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _directory_locked(path):
            _remove_stale(path)
            try:
                sock.bind(path)
            except OSError as error:
                if error.errno is None:  # Python's own: too long, or a NUL
                    raise UsageError(f"{path[:200]}: expected the path of a socket: {str(error).lower()}") from None
                raise OSError(error.errno, os.strerror(error.errno), path) from None
            try:
                if mode is not None:
                    os.chmod(path, mode)  # before anybody can connect, which takes a listen
                sock.listen(BACKLOG)
                status = os.lstat(path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(path)
                raise
        return Listener(sock, NbdUri("unix", path=path), file=(status.st_dev, status.st_ino))
    except BaseException:
        sock.close()
        raise


@contextmanager
def _directory_locked(path: str) -> Iterator[None]:
    """Keep two servers that start at once from taking each other's new socket for a dead one's."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # to be told by bind, or a directory that may be entered and not read
        yield
        return
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _remove_stale(path: str) -> None:
    """Remove a socket file on which nobody listens. Raises InUse, UsageError for anything that is no socket."""
    if sys.platform == "win32":
        return
    try:
        status = os.lstat(path)
    except OSError:
        return  # what is wrong with the path, bind tells
    if not stat.S_ISSOCK(status.st_mode):
        raise UsageError(f"{path}: expected a new socket, found something else of that name: choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            pass  # full, or not ours to connect to: somebody is there
    raise InUse(f"{path}: is in use: another server listens there")


# -- vsock -------------------------------------------------------------------------------------------------------


def listen_vsock(port: int = PORT) -> Listener:
    """Return a listener for virtual machines and their host. Raises NotSupported, InUse, UsageError, OSError."""
    if not 0 <= port <= _MAX_VSOCK:
        raise UsageError(f"vsock: expected a port up to {_MAX_VSOCK}, found {port}")
    if sys.platform != "linux":
        raise NotSupported("vsock: only Linux has such sockets")
    try:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError as error:
        raise NotSupported(
            f"vsock: this kernel has no such sockets: {(error.strerror or str(error)).lower()}"
        ) from None
    try:
        _bind(sock, (socket.VMADDR_CID_ANY, port), f"vsock:{port}")
        return Listener(sock, NbdUri("vsock", host=str(_own_cid()), port=int(sock.getsockname()[1])))
    except BaseException:
        sock.close()
        raise


def _own_cid() -> int:
    """Return the context id by which this machine is dialled; the local one where it has none."""
    if sys.platform != "linux":
        return 1
    import fcntl
    import struct

    try:
        with open("/dev/vsock", "rb") as device:
            data = fcntl.ioctl(device, socket.IOCTL_VM_SOCKETS_GET_LOCAL_CID, bytes(4))
    except OSError:
        return 1  # VMADDR_CID_LOCAL
    (cid,) = struct.unpack("I", data)
    return int(cid)


# -- inherited ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inherited:
    """Sockets that whoever started us has opened: some listen, others are connected to a client already."""

    listeners: tuple[Listener, ...]
    connected: tuple[socket.socket, ...]


def inherited(environment: MutableMapping[str, str] | None = None) -> Inherited | None:
    """Return the sockets of LISTEN_FDS, None where there are none for this process (sd_listen_fds(3)).

    The variables are taken away, so that no child mistakes them for its own. Raises UsageError for what is no
    stream socket.
    """
    environment = os.environ if environment is None else environment
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return None
    count, names = _described(environment)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environment.pop(name, None)
    if not count:
        return None
    listeners, connected = [], []
    for number in range(count):
        sock = _adopted(FIRST_INHERITED + number)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listeners.append(
                Listener(sock, uri_of(sock), names[number] if number < len(names) else "", inherited=True)
            )
        else:
            connected.append(sock)
    return Inherited(tuple(listeners), tuple(connected))


def _described(environment: Mapping[str, str]) -> tuple[int, list[str]]:
    text = environment.get("LISTEN_FDS", "")
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > MAX_INHERITED:
        raise UsageError(f"LISTEN_FDS: expected a number up to {MAX_INHERITED}, found {text[:64]!r}")
    return int(text), environment.get("LISTEN_FDNAMES", "").split(":")


def _adopted(fd: int) -> socket.socket:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise UsageError(f"LISTEN_FDS: descriptor {fd}: expected a socket, found something else")
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise UsageError(f"LISTEN_FDS: descriptor {fd}: {(error.strerror or str(error)).lower()}") from None
    if sock.type != socket.SOCK_STREAM:
        sock.detach()
        raise UsageError(f"LISTEN_FDS: descriptor {fd}: expected a stream socket, found another kind")
    return sock


def uri_of(sock: socket.socket) -> NbdUri:
    """Return the address by which a listening socket is dialled."""
    name = sock.getsockname()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        host = "localhost" if name[0] in ("::", "0.0.0.0") else str(name[0])  # noqa: S104 - compared, not bound
        return NbdUri("tcp", host=host, port=int(name[1]))
    if sys.platform == "linux" and sock.family == socket.AF_VSOCK:
        return NbdUri("vsock", host=str(_own_cid()), port=int(name[1]))
    return NbdUri("unix", path=os.fsdecode(name))
