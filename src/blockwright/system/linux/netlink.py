"""Generic netlink: requests to a kernel subsystem by its name, and what it tells by itself.

What arrives is walked within its own length, whatever it says of itself, and counts only where the kernel sent it.

Knows: messages, attributes, families (linux/netlink.h, linux/genetlink.h). Refuses to know: any one family.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

from blockwright.errors import Corrupt, KernelError, Unavailable
from blockwright.system.linux.ioctl import kernel_error

MAX_REPLY: Final = 1 << 20
"""Bytes that are taken at once; longer ones are an error."""
MAX_REPLIES: Final = 4096
"""Messages that are read in answer to one request."""
TIMEOUT_S: Final = 30.0
"""How long an answer is waited for. The kernel has it ready when it returns from the request."""
MAX_PAYLOAD: Final = 0xFFFF - 4
"""Bytes of one attribute."""

_MESSAGE: Final = struct.Struct("=IHHII")
"""struct nlmsghdr: length with this header, type, flags, sequence, port."""
_GENERIC: Final = struct.Struct("=BBxx")
"""struct genlmsghdr: command, version."""
_ATTRIBUTE: Final = struct.Struct("=HH")
"""struct nlattr: length with this header, type."""
_TYPE_MASK: Final = 0x3FFF
_ERROR: Final = 2
_DONE: Final = 3
_REQUEST: Final = 1
_ACK: Final = 4
_CAPPED: Final = 0x100
_HAS_ATTRIBUTES: Final = 0x200
_ERROR_TEXT: Final = 1

_NETLINK_GENERIC: Final = 16
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_CAP_ACK: Final = 10
_EXT_ACK: Final = 11

_CONTROLLER: Final = 0x10
_GET_FAMILY: Final = 3
_FAMILY_ID: Final = 1
_FAMILY_NAME: Final = 2
_FAMILY_GROUPS: Final = 7
_GROUP_NAME: Final = 1
_GROUP_ID: Final = 2


class Message(NamedTuple):
    """One message: ``kind`` is a family's number or one of netlink's own, ``body`` what follows its header."""

    kind: int
    flags: int
    sequence: int
    body: bytes


class Reply(NamedTuple):
    """What a family says: a command of its own, and attributes as bytes."""

    command: int
    attributes: bytes


# -- bytes and values ------------------------------------------------------------------------------------------


def attribute(kind: int, payload: bytes) -> bytes:
    """Return an attribute, padded to where the next one may begin."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def u32(kind: int, value: int) -> bytes:
    """Return an attribute that holds an unsigned 32-bit integer."""
    return attribute(kind, value.to_bytes(4, sys.byteorder))


def u64(kind: int, value: int) -> bytes:
    """Return an attribute that holds an unsigned 64-bit integer."""
    return attribute(kind, value.to_bytes(8, sys.byteorder))


def text(kind: int, value: str) -> bytes:
    """Return an attribute that holds text with a NUL behind it."""
    return attribute(kind, value.encode("utf-8", "surrogateescape") + b"\0")


def attributes(data: bytes) -> list[tuple[int, bytes]]:
    """Return the attributes in ``data`` as pairs of type and payload. Raises Corrupt."""
    found = []
    position = 0
    while position < len(data):
        left = len(data) - position
        if left < _ATTRIBUTE.size:
            if any(data[position:]):
                raise Corrupt(f"attribute: expected {_ATTRIBUTE.size} bytes, found {left}", spec="linux/netlink.h")
            break
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if not _ATTRIBUTE.size <= length <= left:
            raise Corrupt(
                f"attribute: expected a length from {_ATTRIBUTE.size} to {left}, found {length}",
                offset=position,
                spec="linux/netlink.h",
            )
        found.append((kind & _TYPE_MASK, data[position + _ATTRIBUTE.size : position + length]))
        position += length + -length % 4
    return found


def number(payload: bytes, width: int) -> int:
    """Return the unsigned integer of ``width`` bytes that an attribute holds. Raises Corrupt."""
    if len(payload) != width:
        raise Corrupt(f"attribute: expected {width} bytes, found {len(payload)}", spec="linux/netlink.h")
    return int.from_bytes(payload, sys.byteorder)


def message(kind: int, sequence: int, command: int, version: int, content: bytes) -> bytes:
    """Return a request of a family, which is to be acknowledged."""
    length = _MESSAGE.size + _GENERIC.size + len(content)
    return _MESSAGE.pack(length, kind, _REQUEST | _ACK, sequence, 0) + _GENERIC.pack(command, version) + content


def messages(data: bytes) -> list[Message]:
    """Return the messages of a datagram. Raises Corrupt."""
    found = []
    position = 0
    while position < len(data):
        left = len(data) - position
        length = _MESSAGE.unpack_from(data, position)[0] if left >= _MESSAGE.size else left
        if left < _MESSAGE.size or not _MESSAGE.size <= length <= left:
            raise Corrupt(
                f"message: expected a length from {_MESSAGE.size} to {left}, found {length}",
                offset=position,
                spec="linux/netlink.h",
            )
        _, kind, flags, sequence, _ = _MESSAGE.unpack_from(data, position)
        found.append(Message(kind, flags, sequence, data[position + _MESSAGE.size : position + length]))
        position += length + -length % 4
    return found


def reply(found: Message) -> Reply:
    """Return what a family's message says. Raises Corrupt."""
    if len(found.body) < _GENERIC.size:
        raise Corrupt(f"message: expected {_GENERIC.size} bytes, found {len(found.body)}", spec="linux/genetlink.h")
    return Reply(found.body[0], found.body[_GENERIC.size :])


def outcome(found: Message) -> tuple[int, str]:
    """Return the errno that an acknowledgement tells, 0 for success, and the kernel's own words. Raises Corrupt."""
    if len(found.body) < 4:
        raise Corrupt(f"acknowledgement: expected 4 bytes, found {len(found.body)}", spec="linux/netlink.h")
    code = -int.from_bytes(found.body[:4], sys.byteorder, signed=True)
    if not 0 <= code < 4096:
        raise Corrupt(f"acknowledgement: expected an errno, found {code}", spec="linux/netlink.h")
    start = 4 + _MESSAGE.size
    if not found.flags & _HAS_ATTRIBUTES or len(found.body) < start:
        return code, ""
    if not found.flags & _CAPPED:
        length = _MESSAGE.unpack_from(found.body, 4)[0]
        start = 4 + length + -length % 4
    for kind, payload in attributes(found.body[start:]):
        if kind == _ERROR_TEXT:
            return code, payload.partition(b"\0")[0].decode("utf-8", "replace")
    return code, ""


# -- sockets ---------------------------------------------------------------------------------------------------


class Family:
    """A subsystem of the kernel that answers to ``name``: requests, and groups that it tells things to.

    ``module`` is what brings it. Raises Unavailable where the kernel has no such family, or is not Linux. One thread
    at a time.
    """

    def __init__(self, name: str, *, module: str, version: int = 1) -> None:
        self.name = name
        self._version = version
        self._sequence = 0
        self._socket = _open(name)
        try:
            self._kind, self._groups = self._resolve(module)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()

    def _resolve(self, module: str) -> tuple[int, dict[str, int]]:
        try:
            answers = self._ask(_CONTROLLER, _GET_FAMILY, text(_FAMILY_NAME, self.name), "CTRL_CMD_GETFAMILY", "")
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            raise Unavailable(
                error.operation, self.name, errno.ENOENT, "the kernel lacks the driver", remedy=f"modprobe {module}"
            ) from None
        for each in answers:
            fields = dict(attributes(each.attributes))
            if _FAMILY_ID in fields:
                return number(fields[_FAMILY_ID], 2), dict(_groups(fields.get(_FAMILY_GROUPS, b"")))
        raise Corrupt("family: expected its number, found none", source=self.name, spec="linux/genetlink.h")

    def request(self, command: int, content: bytes, *, operation: str, device: str) -> list[Reply]:
        """Return what the kernel answers when it has done what was asked.

        Raises KernelError with its errno and its own words; Unavailable without privilege; Corrupt.
        """
        return self._ask(self._kind, command, content, operation, device)

    def _ask(self, kind: int, command: int, content: bytes, operation: str, device: str) -> list[Reply]:
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        device = device or self.name
        try:
            self._socket.sendto(message(kind, self._sequence, command, self._version, content), (0, 0))
            found: list[Reply] = []
            for _ in range(MAX_REPLIES):
                for each in _receive(self._socket):
                    if each.sequence != self._sequence:
                        continue  # the rest of an answer that was given up
                    if each.kind == _ERROR:
                        code, words = outcome(each)
                        if code:
                            raise kernel_error(operation, device, code, words and f"{os.strerror(code)}: {words}")
                        return found
                    if each.kind == kind:
                        found.append(reply(each))
        except TimeoutError:
            raise KernelError(operation, device, errno.ETIMEDOUT, "the kernel did not answer") from None
        except KernelError:
            raise
        except OSError as error:
            raise kernel_error(operation, device, error.errno or errno.EIO) from None
        raise KernelError(operation, device, errno.EPROTO, f"expected at most {MAX_REPLIES} messages, found more")

    def listen(self, group: str) -> Events:
        """Return what the kernel tells the group from now on. Raises Unavailable where there is no such group."""
        if group not in self._groups:
            raise Unavailable("listen", self.name, errno.ENOENT, f"the driver has no group {group!r}")
        sock = _open(self.name)
        try:
            sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, self._groups[group])
        except OSError as error:
            sock.close()
            raise kernel_error("NETLINK_ADD_MEMBERSHIP", self.name, error.errno or errno.EIO) from None
        return Events(sock, self._kind)


class Events:
    """What a family tells by itself, in order. One thread waits."""

    def __init__(self, sock: socket.socket, kind: int) -> None:
        self._socket = sock
        self._kind = kind

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()

    def wait(self, timeout_s: float, *, wake: Sequence[socket.socket] = ()) -> list[Reply] | None:
        """Return what was told, empty when the time has passed or one of ``wake`` can be read.

        None says that the kernel told more than could be held, and some of it is lost.
        """
        with selectors.DefaultSelector() as selector:  # select() itself knows no descriptor above 1023
            for each in (self._socket, *wake):
                selector.register(each, selectors.EVENT_READ)
            ready = {key.fileobj for key, _ in selector.select(timeout_s)}
        if self._socket not in ready:
            return []
        try:
            return [reply(each) for each in _receive(self._socket) if each.kind == self._kind]
        except TimeoutError:
            return []
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return None
            raise kernel_error("listen", "netlink", error.errno or errno.EIO) from None


def _groups(data: bytes) -> Iterator[tuple[str, int]]:
    for _, payload in attributes(data):
        fields = dict(attributes(payload))
        if _GROUP_NAME in fields and _GROUP_ID in fields:
            yield fields[_GROUP_NAME].partition(b"\0")[0].decode("utf-8", "replace"), number(fields[_GROUP_ID], 4)


def _open(name: str) -> socket.socket:
    if sys.platform != "linux":
        raise Unavailable("socket", name, errno.ENOSYS, f"needs Linux, this is {sys.platform}")
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)
    except OSError as error:
        text = f"the kernel has no generic netlink: {(error.strerror or '').lower()}"
        raise Unavailable("socket", name, error.errno or errno.EIO, text) from None
    try:
        sock.bind((0, 0))
        sock.settimeout(TIMEOUT_S)
        for option in (_CAP_ACK, _EXT_ACK):
            try:
                sock.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                continue  # before Linux 4.12: errors come without words
    except BaseException:
        sock.close()
        raise
    return sock


def _receive(sock: socket.socket) -> list[Message]:
    """Return the messages of the next datagram of the kernel's; none where somebody else sent it."""
    if sys.platform != "linux":
        return []
    data, _, flags, sender = sock.recvmsg(MAX_REPLY)
    if sender[0] != 0:
        return []
    if flags & socket.MSG_TRUNC:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    return messages(data)
