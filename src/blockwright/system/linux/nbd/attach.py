"""Attaches connected sockets as a network block device: by netlink, or by ioctl where that is not heard.

Knows: the order of things, and that what the kernel says it did is looked at. Refuses to know: NBD's handshake, and
what is at the other end of a socket.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from enum import Enum
from typing import Final

from blockwright.errors import BlockwrightError, KernelError, Unavailable, UsageError
from blockwright.system.linux import blkdev
from blockwright.system.linux.bounded import within
from blockwright.system.linux.ioctl import open_node
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.nbd import by_ioctl, state
from blockwright.system.linux.nbd.control import Control, check_privilege
from blockwright.system.linux.nbd.detach import NbdDevice
from blockwright.system.linux.nbd.layout import MAX_CONNECTIONS, ServerFlag, Settings
from blockwright.system.linux.nbd.ownership import Ownership

READY_TIMEOUT_S: Final = 30.0
"""How long a new device is waited for until it can be read."""


class By(Enum):
    """How a device is attached."""

    NETLINK = "netlink"
    IOCTL = "ioctl"


def available() -> By:
    """Return how devices can be attached here. Raises Unavailable: no Linux, no driver, no privilege."""
    check_privilege("attach", "/dev/nbd*")
    try:
        Control().close()
    except Unavailable:
        if not state.has_driver():
            raise
        return By.IOCTL
    return By.NETLINK


def attach(
    sockets: Sequence[socket.socket],
    settings: Settings,
    *,
    device: str | int | None = None,
    by: By | None = None,
    owned: bool = False,
    source: str = "",
    largest_request: int | None = None,
    ready_timeout_s: float = READY_TIMEOUT_S,
    logger: Logger | None = None,
) -> NbdDevice:
    """Return a device over ``sockets``, each at the end of a handshake that agreed on simple replies.

    It can be read when this returns. The kernel holds the sockets; those of the caller are his to close. ``settings``
    without an identifier get one of their own. ``device`` is taken if it is free, any without it. With ``owned`` the
    device goes with this process: ``gc`` detaches it when that has died. ``source`` is kept on record.
    ``largest_request`` is the most bytes that the server takes at once.

    Raises InUse where the device is taken, TimeoutError where it cannot be read in time, UsageError, NotFound;
    Unavailable without privilege or driver; KernelError. The device is detached then.
    """
    if not 0 < len(sockets) <= MAX_CONNECTIONS:
        raise UsageError(f"nbd: expected 1 to {MAX_CONNECTIONS} connections, found {len(sockets)}")
    if len(sockets) > 1 and not settings.flags & ServerFlag.CAN_MULTI_CONN:
        raise UsageError(f"nbd: expected one connection to a server that allows no more, found {len(sockets)}")
    number = None if device is None else state.number_of(device)
    by = available() if by is None else by
    record = Ownership.intended(settings.identifier or None, source=source, connections=len(sockets))
    try:
        if by is By.NETLINK:
            found = _by_netlink(sockets, settings, number, record)
        else:
            found = _by_ioctl(sockets, settings, number, record, logger)
        record.attached(found.number, owned=True)
    except BaseException:
        record.forget()
        raise
    try:
        _verify(found, settings)
        if largest_request is not None:
            _limit(found, largest_request, logger)
        _wait_readable(found, ready_timeout_s)
        if not owned and by is By.NETLINK:
            record.keep()
    except BaseException:
        with contextlib.suppress(BlockwrightError, OSError):
            found.detach(force=True)
        raise
    told(logger).info("attached %s as %s", source or "the server", found.path)
    return found


def _by_netlink(
    sockets: Sequence[socket.socket], settings: Settings, number: int | None, record: Ownership
) -> NbdDevice:
    wanted = _with_identifier(settings, record.identifier)
    with Control() as control:
        number = control.connect(wanted, [each.fileno() for each in sockets], number)
    return NbdDevice(number, record)


def _by_ioctl(
    sockets: Sequence[socket.socket],
    settings: Settings,
    number: int | None,
    record: Ownership,
    logger: Logger | None,
) -> NbdDevice:
    holder = by_ioctl.Holder(settings, [each.fileno() for each in sockets], record.by_this_thread)
    number = holder.attach(number, logger=logger)
    return NbdDevice(number, record, holder)


def _with_identifier(settings: Settings, identifier: str) -> Settings:
    from dataclasses import replace

    return replace(settings, identifier=identifier)


def _verify(found: NbdDevice, settings: Settings) -> None:
    """Compare the device with what it was to be."""
    state.node(found.number)
    now = state.state(found.number)
    if now is None:
        raise KernelError("attach", found.path, errno.ENOTCONN, "the connection ended at once")
    read_only = bool(settings.flags & ServerFlag.READ_ONLY)
    for what, expected, has in (
        ("size", settings.kept_size, now.size),
        ("block size", settings.block_size, now.block_size),
        ("read-only", read_only, now.read_only),
    ):
        if expected != has:
            raise KernelError("attach", found.path, errno.EINVAL, f"{what}: expected {expected}, found {has}")


def _limit(found: NbdDevice, largest: int, logger: Logger | None) -> None:
    try:
        state.limit_requests(found.number, largest)
    except OSError as error:
        told(logger).warning("%s: requests stay above %d bytes: %s", found.path, largest, error)


def _wait_readable(found: NbdDevice, timeout_s: float) -> None:
    """Return when the first bytes are there. The kernel looks for partitions on the way, at the first open."""

    def read() -> None:
        fd = open_node(found.path, os.O_RDONLY)
        try:
            if blkdev.size(fd, found.path) and not _pread(fd):
                raise OSError(errno.EIO, os.strerror(errno.EIO), found.path)
        except OSError as error:
            if isinstance(error, KernelError):
                raise
            number = error.errno or errno.EIO
            raise KernelError("read", found.path, number, os.strerror(number).lower()) from None
        finally:
            os.close(fd)

    try:
        within(timeout_s, read, late=lambda _: None)
    except TimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, f"cannot be read after {timeout_s:g} s", found.path) from None


def _pread(fd: int) -> bytes:
    return os.pread(fd, 512, 0) if hasattr(os, "pread") else b""
