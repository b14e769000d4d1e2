"""The nbd driver by generic netlink: the requests, and what it tells of dead connections.

Knows: how each is asked and what its refusals mean. Refuses to know: what a device is used for.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from blockwright.device import holders
from blockwright.errors import Corrupt, InUse, KernelError, Unavailable
from blockwright.system.linux import blkdev
from blockwright.system.linux.ioctl import NEEDS_ROOT, require_linux
from blockwright.system.linux.nbd import layout
from blockwright.system.linux.nbd.layout import Command, Settings
from blockwright.system.linux.netlink import Events, Family

_CAP_SYS_ADMIN: Final = 21


class Control:
    """The driver, asked by one thread at a time. Raises Unavailable where the kernel has none that listens."""

    def __init__(self) -> None:
        require_linux("nbd", "network block devices")
        self._family = Family(layout.FAMILY, module="nbd")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop asking. Idempotent."""
        self._family.close()

    def connect(self, settings: Settings, sockets: Sequence[int], index: int | None = None) -> int:
        """Have a device over the connected sockets, and return its number. The driver holds them from then on.

        Raises InUse where the device of that ``index`` is taken, KernelError, Unavailable.
        """
        name = "/dev/nbd*" if index is None else f"/dev/nbd{index}"
        request = layout.connect_request(settings, sockets, index)
        try:
            answers = self._family.request(Command.CONNECT, request, operation="NBD_CMD_CONNECT", device=name)
        except KernelError as error:
            if error.errno == errno.EBUSY:
                raise InUse(f"{name}: is in use: {holders.named(blkdev.users(name)) or 'it is attached'}") from None
            raise
        for each in answers:
            if each.command == Command.CONNECT:
                return layout.index_of(each)
        raise Corrupt("connect: expected the device's number, found no answer", source="nbd")

    def disconnect(self, index: int) -> None:
        """Have the device tell its servers good-bye and take no more requests; what is free already stays so."""
        self._family.request(
            Command.DISCONNECT,
            layout.index_request(index),
            operation="NBD_CMD_DISCONNECT",
            device=f"/dev/nbd{index}",
        )

    def reconfigure(
        self, index: int, identifier: str, *, size: int | None = None, sockets: Sequence[int] = ()
    ) -> None:
        """Have the device of that size, and its dead connections replaced by ``sockets`` as far as there are any.

        Raises KernelError: EINVAL where the device is not attached, or by another identifier.
        """
        request = layout.reconfigure_request(index, identifier, size=size, sockets=sockets)
        self._family.request(Command.RECONFIGURE, request, operation="NBD_CMD_RECONFIGURE", device=f"/dev/nbd{index}")

    def status(self, index: int) -> bool | None:
        """Whether the device is attached or open; None where there is none of that number."""
        name = f"/dev/nbd{index}"
        request = layout.index_request(index)
        for each in self._family.request(Command.STATUS, request, operation="NBD_CMD_STATUS", device=name):
            found = layout.connected_of(each)
            if index in found:
                return found[index]
        return None

    def dead_links(self) -> DeadLinks:
        """Return what the driver tells from now on of connections that died."""
        return DeadLinks(self._family.listen(layout.GROUP))


class DeadLinks:
    """Connections that died, as the driver tells of them when it has given each up."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def wait(self, index: int, timeout_s: float, *, wake: Sequence[socket.socket] = ()) -> int | None:
        """Return how many connections of the device died, 0 when the time has passed or ``wake`` can be read.

        None says that some of what was told is lost.
        """
        found = self._events.wait(timeout_s, wake=wake)
        if found is None:
            return None
        return sum(each.command == Command.LINK_DEAD and layout.index_of(each) == index for each in found)

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._events.close()


def check_privilege(operation: str, device: str) -> None:
    """Return where this process may attach devices. Raises Unavailable."""
    require_linux(operation, device)
    for line in blkdev.text("/proc/self/status").splitlines():
        if line.startswith("CapEff:") and not int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1:
            raise Unavailable(operation, device, errno.EPERM, os.strerror(errno.EPERM).lower(), remedy=NEEDS_ROOT)
