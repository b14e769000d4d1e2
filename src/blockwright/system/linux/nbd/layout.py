"""The nbd driver's numbers, requests and answers (linux/nbd-netlink.h, linux/nbd.h), as bytes and values.

Knows: commands, attributes, ioctls. Refuses to know: when they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from blockwright.errors import Corrupt, UsageError
from blockwright.system.linux import netlink
from blockwright.system.linux.netlink import Reply

FAMILY: Final = "nbd"
GROUP: Final = "nbd_mc_group"
MAJOR: Final = 43
SECTOR: Final = 512

MIN_BLOCK_SIZE: Final = 512
MAX_CONNECTIONS: Final = 64
"""Sockets of one device that we hand over."""
MAX_IDENTIFIER: Final = 512
"""Bytes of a backend identifier that we make."""


class Command(IntEnum):
    """What is asked, and LINK_DEAD, which the driver tells (NBD_CMD_*)."""

    CONNECT = 1
    DISCONNECT = 2
    RECONFIGURE = 3
    LINK_DEAD = 4
    STATUS = 5


class Attribute(IntEnum):
    """NBD_ATTR_*; sizes in bytes, times in seconds."""

    INDEX = 1
    SIZE_BYTES = 2
    BLOCK_SIZE_BYTES = 3
    TIMEOUT = 4
    SERVER_FLAGS = 5
    CLIENT_FLAGS = 6
    SOCKETS = 7
    DEAD_CONN_TIMEOUT = 8
    DEVICE_LIST = 9
    BACKEND_IDENTIFIER = 10


SOCK_ITEM: Final = 1
SOCK_FD: Final = 1
DEVICE_ITEM: Final = 1
DEVICE_INDEX: Final = 1
DEVICE_CONNECTED: Final = 2


class ClientFlag(IntFlag):
    """What the driver does by itself (NBD_CFLAG_*)."""

    DESTROY_ON_DISCONNECT = 1
    DISCONNECT_ON_CLOSE = 2


class ServerFlag(IntFlag):
    """What of an export's flags the driver understands; the bits are the protocol's."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    CAN_MULTI_CONN = 1 << 8


KNOWN_FLAGS: Final = ServerFlag(0x17F)
_NO_CLIENT_FLAGS: Final = ClientFlag(0)


class Request(IntEnum):
    """ioctls of a node (type 0xAB, without a size)."""

    SET_SOCK = 0xAB00
    SET_BLKSIZE = 0xAB01
    DO_IT = 0xAB03
    CLEAR_SOCK = 0xAB04
    CLEAR_QUE = 0xAB05
    SET_SIZE_BLOCKS = 0xAB07
    DISCONNECT = 0xAB08
    SET_TIMEOUT = 0xAB09
    SET_FLAGS = 0xAB0A


@dataclass(frozen=True, slots=True)
class Settings:
    """What a device is to be: ``size`` and ``block_size`` in bytes, times in whole seconds, 0 for none.

    ``timeout_s`` is how long one request may take, ``dead_timeout_s`` how long requests wait for another connection
    when all are dead. ``identifier`` is what the device is known by afterwards; empty for none.
    """

    size: int
    block_size: int = 512
    flags: ServerFlag = ServerFlag.HAS_FLAGS
    timeout_s: int = 0
    dead_timeout_s: int = 0
    client_flags: ClientFlag = _NO_CLIENT_FLAGS
    identifier: str = ""

    def __post_init__(self) -> None:
        block = self.block_size
        if block < MIN_BLOCK_SIZE or block & (block - 1):
            raise UsageError(f"block size: expected a power of two from {MIN_BLOCK_SIZE} on, found {block}")
        if not 0 <= self.size < 1 << 63:
            raise UsageError(f"size: expected less than 2^63 bytes, found {self.size}")
        if not (0 <= self.timeout_s < 1 << 31 and 0 <= self.dead_timeout_s < 1 << 31):
            raise UsageError(f"times: expected 0 or more seconds, found {self.timeout_s} and {self.dead_timeout_s}")
        if "\0" in self.identifier or len(self.identifier.encode("utf-8", "surrogateescape")) > MAX_IDENTIFIER:
            raise UsageError(f"identifier: expected text of at most {MAX_IDENTIFIER} bytes without NUL")

    @property
    def kept_size(self) -> int:
        """The size that the device has: whole blocks."""
        return self.size // self.block_size * self.block_size


def connect_request(settings: Settings, sockets: Sequence[int], index: int | None) -> bytes:
    """Return the attributes of CONNECT; without an ``index`` the driver takes a free device, or makes one."""
    parts = [] if index is None else [netlink.u32(Attribute.INDEX, index)]
    parts += [
        netlink.u64(Attribute.SIZE_BYTES, settings.size),
        netlink.u64(Attribute.BLOCK_SIZE_BYTES, settings.block_size),
        netlink.u64(Attribute.SERVER_FLAGS, settings.flags),
        netlink.u64(Attribute.CLIENT_FLAGS, settings.client_flags),
    ]
    if settings.timeout_s:
        parts.append(netlink.u64(Attribute.TIMEOUT, settings.timeout_s))
    if settings.dead_timeout_s:
        parts.append(netlink.u64(Attribute.DEAD_CONN_TIMEOUT, settings.dead_timeout_s))
    if settings.identifier:
        parts.append(netlink.text(Attribute.BACKEND_IDENTIFIER, settings.identifier))
    return b"".join([*parts, _sockets(sockets)])


def reconfigure_request(
    index: int, identifier: str, *, size: int | None = None, sockets: Sequence[int] = ()
) -> bytes:
    """Return the attributes of RECONFIGURE. ``sockets`` take the place of dead ones; ``identifier`` must be right."""
    parts = [netlink.u32(Attribute.INDEX, index)]
    if size is not None:
        parts.append(netlink.u64(Attribute.SIZE_BYTES, size))
    if identifier:
        parts.append(netlink.text(Attribute.BACKEND_IDENTIFIER, identifier))
    if sockets:
        parts.append(_sockets(sockets))
    return b"".join(parts)


def index_request(index: int | None) -> bytes:
    """Return the attributes of DISCONNECT and STATUS; None asks STATUS for all devices."""
    return b"" if index is None else netlink.u32(Attribute.INDEX, index)


def _sockets(sockets: Sequence[int]) -> bytes:
    items = [netlink.attribute(SOCK_ITEM, netlink.u32(SOCK_FD, each)) for each in sockets]
    return netlink.attribute(Attribute.SOCKETS, b"".join(items))


def index_of(found: Reply) -> int:
    """Return the device's number that CONNECT's answer and LINK_DEAD tell. Raises Corrupt."""
    payload = dict(netlink.attributes(found.attributes)).get(Attribute.INDEX)
    if payload is None:
        raise Corrupt("answer: expected the device's number, found none", source="nbd", spec="linux/nbd-netlink.h")
    return netlink.number(payload, 4)


def connected_of(found: Reply) -> dict[int, bool]:
    """Return by its number whether a device is configured or open, as STATUS tells. Raises Corrupt."""
    devices = {}
    for _, item in netlink.attributes(dict(netlink.attributes(found.attributes)).get(Attribute.DEVICE_LIST, b"")):
        fields = dict(netlink.attributes(item))
        if DEVICE_INDEX not in fields or DEVICE_CONNECTED not in fields:
            raise Corrupt("status: expected number and state, found less", source="nbd", spec="linux/nbd-netlink.h")
        devices[netlink.number(fields[DEVICE_INDEX], 4)] = bool(netlink.number(fields[DEVICE_CONNECTED], 1))
    return devices
