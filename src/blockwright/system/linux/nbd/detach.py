"""Detaches a network block device when it is quiet, and proves that it is free.

What was written and not stored yet is stored first; the driver itself would forget it.

Knows: one attached device, and when it may go. Refuses to know: how it was attached, and its server.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from types import TracebackType
from typing import Final, Self

from blockwright.device import holders
from blockwright.errors import InUse, KernelError, NotFound, NotSupported, Unavailable
from blockwright.system.linux import blkdev
from blockwright.system.linux.bounded import within
from blockwright.system.linux.ioctl import kernel_error, open_node
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.nbd import by_ioctl, ownership, state
from blockwright.system.linux.nbd.control import Control
from blockwright.system.linux.nbd.ownership import Ownership
from blockwright.system.linux.nbd.state import NbdState, require_driver

TIMEOUT_S: Final = 5.0
"""How long users of a device that come and go by themselves, as udevd does, are waited for, and its server."""
_FIRST_PAUSE_S: Final = 0.001
_MAX_PAUSE_S: Final = 0.05


class NbdDevice:
    """A network block device that was attached here: ``path`` is its node, ``identifier`` what it is known by.

    As a context manager it goes with the block, and with this process where that dies: ``gc`` finds it then.
    """

    def __init__(self, number: int, record: Ownership, holder: by_ioctl.Holder | None = None) -> None:
        self.number = number
        self.path = f"/dev/nbd{number}"
        self.identifier = record.identifier
        self._record = record
        self._holder = holder

    def __str__(self) -> str:
        return self.path

    def __fspath__(self) -> str:
        return self.path

    @property
    def can_change(self) -> bool:
        """Whether connections can be replaced and the size can change, which ioctls do not offer."""
        return self._holder is None

    @property
    def is_attached(self) -> bool:
        """Whether the device is still what was attached here."""
        return self._record.is_attached()

    def state(self) -> NbdState:
        """Return what the device is now. Raises NotFound where it is no longer what was attached here."""
        found = state.state(self.number)
        if found is None or not self.is_attached:
            raise NotFound(f"{self.path}: is no longer the device that was attached here")
        return found

    def resize(self, size: int) -> None:
        """Have the device of that size in bytes. Raises NotFound, NotSupported, KernelError."""
        self._check()
        with Control() as control:
            control.reconfigure(self.number, self.identifier, size=size)

    def replace(self, sock: socket.socket) -> None:
        """Have ``sock`` in place of a dead connection, if there is one; the driver holds it then.

        Raises NotFound, NotSupported, KernelError.
        """
        self._check()
        with Control() as control:
            control.reconfigure(self.number, self.identifier, sockets=[sock.fileno()])

    def _check(self) -> None:
        self.state()
        if not self.can_change:
            raise NotSupported(f"{self.path}: was attached by ioctl, which changes nothing afterwards")

    def keep(self) -> None:
        """Have the device stay when this process ends, where it was attached as owned by it."""
        if self._holder is not None:
            raise NotSupported(f"{self.path}: was attached by ioctl, and goes with the process")
        self._record.keep()

    def detach(self, *, force: bool = False, timeout_s: float = TIMEOUT_S, logger: Logger | None = None) -> None:
        """Have the device free. What is free or another attachment already is left alone. Raises as ``detach``."""
        found = state.state(self.number)
        if found is not None and self.is_attached:
            detach(self.number, force=force, timeout_s=timeout_s, logger=logger, expected=found)
        self._record.forget()

    def __enter__(self) -> Self:
        self._record.bind()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


def detach(
    device: str | int,
    *,
    force: bool = False,
    timeout_s: float = TIMEOUT_S,
    logger: Logger | None = None,
    expected: NbdState | None = None,
) -> bool:
    """Have the device free, with its partitions gone and all that was written stored; answer whether it was attached.

    Raises InUse, naming who, where a mount, a device on top of it or a process holds it, and nothing is changed;
    KernelError where what was written cannot be stored (ETIMEDOUT where the server does not answer in time). With
    ``force`` neither is asked: who uses the device gets errors, and what is not stored is lost.
    One that is no longer what was ``expected``, but somebody else's by now, is left alone.
    Raises NotFound without such a device; Unavailable.
    """
    require_driver("detach", str(device))
    number = state.number_of(device)
    found = state.state(number)
    if found is None:
        if not state.exists(number):
            raise NotFound(f"/dev/nbd{number}: no such device")
        return False
    if expected is not None and not _is_same(found, expected):
        return False
    path = state.node(number)
    end = time.monotonic() + timeout_s
    fd = -1 if force else _claimed(number, path, timeout_s, end)
    try:
        if fd >= 0:
            end = _another(timeout_s)  # storing took its own
            blkdev.delete_partitions(fd, path, blkdev.partitions(path), timeout_s=timeout_s)
            _wait_until_quiet(number, path, end)
        if _is_same(state.state(number), found):  # the kernel disconnects whatever it is by then
            _disconnect(number)
    finally:
        if fd >= 0:
            os.close(fd)
    _wait_until_free(found, path, _another(timeout_s))
    ownership.forget(found)
    told(logger).info("detached %s", path)
    return True


def _another(timeout_s: float) -> float:
    """Return the end of a time limit that begins now; the kernel has a moment in any case."""
    return time.monotonic() + max(timeout_s, _MAX_PAUSE_S)


def _is_same(now: NbdState | None, found: NbdState) -> bool:
    """Whether the device is attached as it was found."""
    return now is not None and (now.number, now.task, now.identifier) == (found.number, found.task, found.identifier)


def _claimed(number: int, path: str, timeout_s: float, end: float) -> int:
    """Return the open node, which nobody else claims from now on, with everything written stored."""
    try:
        # Much may be left to store: that is waited for as long as any of it gets done.
        return within(
            timeout_s, lambda: _claim_and_store(path, end), late=os.close, progress=lambda: state.completed(number)
        )
    except TimeoutError:
        text = f"its server has not answered for {timeout_s:g} s, and what was written is not stored"
        raise KernelError("fsync", path, errno.ETIMEDOUT, text, remedy="wait, or detach by force") from None


def _claim_and_store(path: str, end: float) -> int:
    pause = _FIRST_PAUSE_S
    while True:
        try:
            fd = open_node(path, os.O_RDONLY | os.O_EXCL)
            break
        except KernelError as error:
            if error.errno != errno.EBUSY:
                raise
            who = blkdev.users(path)
            if who or time.monotonic() >= end:
                raise InUse(f"{path}: is in use: {holders.named(who) or 'somebody claims it'}") from None
        time.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE_S)
    try:
        os.fsync(fd)
    except OSError as error:
        os.close(fd)
        number = error.errno or errno.EIO
        text = f"what was written cannot be stored: {os.strerror(number).lower()}"
        raise kernel_error("fsync", path, number, text, remedy="detach by force, and it is lost") from None
    return fd


def _wait_until_quiet(number: int, path: str, end: float) -> None:
    """Return when no request is under way and nobody else has the device open."""
    pause = _FIRST_PAUSE_S
    while True:
        now = state.state(number)
        if now is None:
            return
        who = _users(path, now)
        if not now.in_flight and not who:
            return
        if time.monotonic() >= end:
            busy = holders.named(who) or f"{now.in_flight} requests are under way"
            raise InUse(f"{path}: is in use: {busy}")
        time.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE_S)


def _users(path: str, found: NbdState) -> list[str]:
    """Return who uses the device, without the process that holds it open because it attached it by ioctl."""
    who = blkdev.users(path)
    if found.identifier:
        return who
    holder = re.search(r"^Tgid:\t(\d+)$", blkdev.text(f"/proc/{found.task}/status"), re.MULTILINE)
    return [each for each in who if holder is None or not each.startswith(f"process {holder[1]} (")]


def _disconnect(number: int) -> None:
    try:
        control = Control()
    except Unavailable as error:
        if error.errno != errno.ENOENT:
            raise
        by_ioctl.disconnect(number)
        return
    with control:
        control.disconnect(number)


def _wait_until_free(found: NbdState, path: str, end: float) -> None:
    pause = _FIRST_PAUSE_S
    while True:
        now = state.state(found.number)
        if not _is_same(now, found):
            return
        if time.monotonic() >= end:
            who = holders.named(_users(path, found)) or "somebody unknown"
            raise InUse(f"{path}: takes no more requests, and is held by {who}; it is free when its last user closes")
        time.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE_S)
