"""Attaches by the driver's ioctls: before Linux 4.12, and in a network namespace, where its netlink is not heard.

A thread of its own hands the sockets over and then stays inside NBD_DO_IT for as long as the device is attached: the
driver takes all of it from one thread only, and a signal there would end the device. The device goes with the
process. Dead connections cannot be replaced, and the size stays.

Knows: the order of requests and the thread's rules. Refuses to know: what is on record.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from blockwright.errors import InUse, KernelError, NotFound, Unavailable
from blockwright.system.linux.ioctl import call, lock_node, open_node, unlock_node
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.nbd import state
from blockwright.system.linux.nbd.layout import Request, Settings

START_S: Final = 10.0
"""How long the driver is waited for until it shows the device as attached."""
_PAUSE_S: Final = 0.002


class Holder:
    """A device that is attached for as long as a thread holds it. ``number`` is the device's."""

    def __init__(self, settings: Settings, sockets: Sequence[int], on_thread: Callable[[], None]) -> None:
        self._settings = settings
        self._sockets = [os.dup(each) for each in sockets]
        self._on_thread = on_thread
        self._settled = threading.Event()
        self._failed: BaseException | None = None
        self.number = -1
        self.ended = threading.Event()

    def attach(self, number: int | None, *, logger: Logger | None = None) -> int:
        """Have the device attached, that ``number`` or the first that is free, and return its number.

        Raises InUse where it is taken, NotFound without such a device, Unavailable, KernelError.
        """
        candidates = state.numbers() if number is None else [number]
        thread = threading.Thread(target=self._hold, args=(candidates,), name="nbd: device", daemon=True)
        thread.start()
        self._settled.wait()
        if self._failed is None:
            end = time.monotonic() + START_S
            while state.state(self.number) is None and not self.ended.is_set() and time.monotonic() < end:
                time.sleep(_PAUSE_S)
        if self._failed is not None:
            thread.join()
            raise self._failed
        told(logger).debug("/dev/nbd%d: attached by ioctl", self.number)
        return self.number

    def _hold(self, candidates: Sequence[int]) -> None:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        fd = -1
        try:
            self._on_thread()
            fd = self._prepared(candidates)
            self._close_sockets()  # the driver has them
            self._settled.set()
            _ask(fd, self.number, Request.DO_IT)
        except BaseException as error:  # noqa: BLE001 - raised by who attaches
            self._failed = error
        finally:
            self._close_sockets()
            if fd >= 0:
                for request in (Request.CLEAR_QUE, Request.CLEAR_SOCK):
                    with contextlib.suppress(KernelError):
                        _ask(fd, self.number, request)
                os.close(fd)
            self.ended.set()
            self._settled.set()

    def _close_sockets(self) -> None:
        while self._sockets:
            os.close(self._sockets.pop())

    def _prepared(self, candidates: Sequence[int]) -> int:
        """Return the open node of a device that was free and has all sockets now."""
        busy: list[str] = []
        for number in candidates:
            if not state.exists(number):
                raise NotFound(f"/dev/nbd{number}: no such device")
            if state.state(number) is not None:
                busy.append(f"/dev/nbd{number}")
                continue
            fd = open_node(state.node(number), os.O_RDWR)
            try:
                # Between two of us the lock decides; others are told apart by the driver, at the first socket.
                if lock_node(fd) and state.state(number) is None and self._configure(fd, number):
                    unlock_node(fd)
                    self.number = number
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            busy.append(f"/dev/nbd{number}")
        if len(busy) == 1:
            raise InUse(f"{busy[0]}: is in use")
        text = f"all {len(busy)} devices are in use" if busy else "the kernel has no devices"
        raise Unavailable("attach", "/dev/nbd*", errno.EBUSY, text, remedy="modprobe nbd nbds_max=64")

    def _configure(self, fd: int, number: int) -> bool:
        """Tell the driver all that it wants to know, and say whether the device was free."""
        settings = self._settings
        for index, each in enumerate(self._sockets):
            try:
                _ask(fd, number, Request.SET_SOCK, each)
            except KernelError as error:
                if error.errno == errno.EBUSY and not index:
                    return False
                raise
        _ask(fd, number, Request.SET_BLKSIZE, settings.block_size)
        _ask(fd, number, Request.SET_SIZE_BLOCKS, settings.size // settings.block_size)
        _ask(fd, number, Request.SET_FLAGS, settings.flags)
        if settings.timeout_s:
            _ask(fd, number, Request.SET_TIMEOUT, settings.timeout_s)
        return True


def disconnect(number: int) -> None:
    """Have the device tell its servers good-bye and take no more requests."""
    fd = open_node(f"/dev/nbd{number}", os.O_RDONLY)
    try:
        for request in (Request.DISCONNECT, Request.CLEAR_SOCK):
            _ask(fd, number, request)
    finally:
        os.close(fd)


def _ask(fd: int, number: int, request: Request, argument: int = 0) -> None:
    call(fd, request, int(argument), operation=f"NBD_{request.name}", device=f"/dev/nbd{number}")
