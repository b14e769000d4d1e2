"""Detaches a loop device, and proves that it is: the driver says yes at once and does it when the last user closes.

Knows: one attached device, and when it is free. Refuses to know: how it was attached.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from types import TracebackType
from typing import Final, Self

from blockwright.device import holders, locks
from blockwright.errors import InUse, KernelError, NotFound
from blockwright.system.linux import blkdev
from blockwright.system.linux.ioctl import call, open_node, require_linux
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.loop import change, layout, ownership, state
from blockwright.system.linux.loop.ownership import Ownership

TIMEOUT_S: Final = 5.0
"""How long users of a device that come and go by themselves, as udevd does, are waited for."""
_FIRST_PAUSE_S: Final = 0.0005
_MAX_PAUSE_S: Final = 0.05


class LoopDevice:
    """A loop device that was attached here: ``path`` is its node, ``sequence`` tells this attachment from later ones.

    As a context manager it goes with the block, and with this process where that dies: ``gc`` finds it then.
    """

    def __init__(self, number: int, path: str, sequence: int | None, record: Ownership, fd: int | None) -> None:
        self.number = number
        self.path = path
        self.sequence = sequence
        self._record = record
        self._fd = fd

    def __str__(self) -> str:
        return self.path

    def __fspath__(self) -> str:
        return self.path

    def state(self) -> state.LoopState:
        """Return what the device is now. Raises NotFound where it is no longer this attachment."""
        found = state.state(self.number)
        if found is None or found.sequence != self.sequence:
            raise NotFound(f"{self.path}: is no longer the device that was attached here")
        return found

    def refresh(self) -> int:
        """Have the size follow the image's; return it in bytes. Raises NotFound, KernelError."""
        self.state()
        return change.refresh(self.number)

    def keep(self) -> None:
        """Have the device stay when this process ends, where it was attached as owned by it."""
        self._record.keep()

    def close(self) -> None:
        """Stop being a user of an autoclear device, which goes with its last one. Detaches no other. Idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            if not state.backing_of(self.number):
                self._record.forget()

    def detach(self, *, timeout_s: float = TIMEOUT_S, logger: Logger | None = None) -> None:
        """Have the device free. What is free or another attachment already is left alone. Raises as ``detach``."""
        self.close()
        if not detach(self.number, sequence=self.sequence, timeout_s=timeout_s, logger=logger):
            self._record.forget()

    def __enter__(self) -> Self:
        self._record.bind()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is None:
            self.detach()
        self.close()


def detach(
    device: str | int,
    *,
    sequence: int | None = None,
    timeout_s: float = TIMEOUT_S,
    logger: Logger | None = None,
) -> bool:
    """Have the loop device free, with its partitions gone; answer whether it was attached before.

    With ``sequence`` only that attachment is detached; a later one of the same device is left alone, and the answer
    is False. Raises InUse, naming who, where a mount, a device on top of it or a process holds it: before anything
    is changed where that can be told, else after ``timeout_s``, when the kernel will free it after its last user.
    Raises NotFound without such a device; Unavailable, KernelError.
    """
    require_linux("detach", str(device))
    number = state.number_of(device)
    backing = state.backing_of(number)
    if not backing:
        if isinstance(device, str) and not os.path.exists(state.folder_of(number)):
            raise NotFound(f"/dev/loop{number}: no such device")
        return False
    path = state.node(number)
    try:
        fd = open_node(path, os.O_RDONLY | os.O_EXCL)
    except KernelError as error:
        if error.errno == errno.EBUSY:
            raise InUse(f"{path}: is in use: {_users(path) or 'somebody claims it'}") from None
        if error.errno == errno.ENXIO:
            return False
        raise
    try:
        found = blkdev.disk_sequence(fd, path)
        if sequence not in (None, found) or not _clear(fd, number, path, timeout_s):
            return False
    finally:
        os.close(fd)
    end = time.monotonic() + timeout_s
    if _wait_until_free(number, path, found, end):
        _wait_until_let_go(backing, end)
    ownership.forget(number, found)
    told(logger).info("detached %s from %s", path, backing)
    return True


def _clear(fd: int, number: int, path: str, timeout_s: float) -> bool:
    """Tell the driver to let go of the file, while nobody else claims the device; answer whether it had one."""
    try:
        # Linux leaves those that it has not found by itself when the disk under them goes.
        partitions = blkdev.partitions_in(state.folder_of(number), f"loop{number}")
        blkdev.delete_partitions(fd, path, partitions, timeout_s=timeout_s)
        call(fd, layout.CLR_FD, operation="LOOP_CLR_FD", device=path)
    except KernelError as error:
        if error.errno == errno.ENXIO:
            return False  # somebody else was faster
        if error.errno == errno.EBUSY:
            raise InUse(f"{path}: is in use: {_users(path) or 'one of its partitions is open'}") from None
        raise
    return True


def _wait_until_free(number: int, path: str, sequence: int | None, end: float) -> bool:
    """Return whether somebody else was the device's last user."""
    wait = _FIRST_PAUSE_S
    while True:
        if not state.backing_of(number) or state.sequence_of(number) != sequence:
            return wait > _FIRST_PAUSE_S
        if time.monotonic() >= end:
            who = _users(path) or "somebody unknown"
            raise InUse(f"{path}: is in use: {who}; it is detached when its last user closes it")
        time.sleep(wait)
        wait = min(2 * wait, _MAX_PAUSE_S)


def _wait_until_let_go(backing: str, end: float) -> None:
    """Wait until the image's locks are gone with the kernel's open file, which it closes after the device is free.

    Seen where udevd is the last user. Locks of a process are not waited for, nor is a file that cannot be opened.
    """
    try:
        status = os.stat(backing)
        if not stat.S_ISREG(status.st_mode):
            return
        fd = os.open(backing, os.O_RDONLY)
    except OSError:
        return
    wait = _FIRST_PAUSE_S
    try:
        while locks.held(fd) and time.monotonic() < end and not holders.processes(status):
            time.sleep(wait)
            wait = min(2 * wait, _MAX_PAUSE_S)
    finally:
        os.close(fd)


def _users(path: str) -> str:
    return holders.named(blkdev.users(path))
