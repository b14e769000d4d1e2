"""Keeps an attached device connected: a connection that died is made again and given to the kernel.

Requests wait in the kernel meanwhile, for as long as the device's dead-connection timeout says. A server that comes
back with another export is not taken for the old one: a smaller one, or one that takes no writes any more.

Knows: when to connect again, and what must be the same then. Refuses to know: how either is done.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final

from blockwright.attach.nbd_dial import Link, Source
from blockwright.errors import BlockwrightError, IntegrityError, NotFound
from blockwright.nbd.wire import TransmissionFlag
from blockwright.system.linux.log import Logger
from blockwright.system.linux.nbd import DeadLinks, NbdDevice

LOOK_S: Final = 1.0
"""How often it is looked whether the device is still attached, which the kernel does not tell."""
FIRST_PAUSE_S: Final = 0.05
MAX_PAUSE_S: Final = 2.0
"""Between attempts to connect."""


class Keeper:
    """A thread that watches one device, from ``start`` until the device is detached, or ``stop``."""

    def __init__(
        self,
        device: NbdDevice,
        source: Source,
        dead: DeadLinks | None,
        *,
        connections: int,
        read_only: bool,
        logger: Logger,
    ) -> None:
        self._device = device
        self._source = source
        self._dead = dead
        self._connections = connections
        self._read_only = read_only
        self._logger = logger
        self._read, self._write = socket.socketpair()
        self._stopping = False
        self._told = ""
        self._thread = threading.Thread(target=self._run, name=f"nbd: {device.path}", daemon=True)
        self._on_end: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self.ended = threading.Event()
        """Set when the device is detached, by whoever it was, or after ``stop``."""

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; a connection under way is given up within its own time. Idempotent."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._write.send(b"\0")
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def when_ended(self, function: Callable[[], None]) -> None:
        """Call the function once ``ended`` is set, at once where it is."""
        with self._lock:
            if not self.ended.is_set():
                self._on_end.append(function)
                return
        function()

    def _run(self) -> None:
        try:
            self._watch()
        finally:
            if self._dead is not None:
                self._dead.close()
            self._read.close()
            self._write.close()
            with self._lock:
                self.ended.set()
            for each in self._on_end:
                each()

    def _watch(self) -> None:
        missing, pause = 0, 0.0
        while not self._stopping and self._device.is_attached:
            died = self._wait(pause or LOOK_S)
            if died is None:
                died = self._connections  # what is not dead is not replaced
            if died:
                self._logger.warning("%s: %d connections to %s died", self._device.path, died, self._source.text)
                pause = pause or FIRST_PAUSE_S
                missing = min(missing + died, self._connections)
                continue  # the kernel tells of them one by one
            while missing and not self._stopping and self._device.is_attached:
                if not self._replace():
                    pause = min(2 * pause, MAX_PAUSE_S)
                    break
                missing -= 1
            else:
                pause = 0.0

    def _wait(self, timeout_s: float) -> int | None:
        if self._dead is not None:
            try:
                return self._dead.wait(self._device.number, timeout_s, wake=[self._read])
            except (BlockwrightError, OSError) as error:  # the device is attached all the same, and watched
                text = "%s: connections that die are not made again any more: %s"
                self._logger.warning(text, self._device.path, error)
                self._dead.close()
                self._dead = None
        with contextlib.suppress(TimeoutError):
            self._read.settimeout(timeout_s)
            self._read.recv(1)
        return 0

    def _replace(self) -> bool:
        """Give the kernel one connection for a dead one, and say whether that worked."""
        try:
            link = self._source.link()
            try:
                if self._grown(link):
                    self._device.resize(link.export.size)
                    self._logger.info("%s: has %d bytes now", self._device.path, link.export.size)
                self._device.replace(link.sock)
            finally:
                link.sock.close()
        except NotFound as error:
            if not self._device.is_attached:
                return True
            self._tell(str(error))
            return False
        except (BlockwrightError, OSError) as error:
            self._tell(str(error))
            return False
        self._told = ""
        self._logger.info("%s: connected to %s again", self._device.path, self._source.text)
        return True

    def _tell(self, reason: str) -> None:
        """Warn of a reason once, until there is another."""
        tell = self._logger.debug if reason == self._told else self._logger.warning
        tell("%s: not connected: %s", self._device.path, reason)
        self._told = reason

    def _grown(self, link: Link) -> bool:
        """Whether the server has more than the device. Raises IntegrityError where it is not the one that was there.

        The device is asked, whose size any process may have changed.
        """
        now = self._device.state()
        size = link.export.size // now.block_size * now.block_size
        if size < now.size:
            text = f"the server came back with less: expected at least {now.size} bytes, found {link.export.size}"
            raise IntegrityError(f"{self._source.text}: {text}")
        if link.export.flags & TransmissionFlag.READ_ONLY and not self._read_only:
            raise IntegrityError(f"{self._source.text}: the server came back and takes no writes any more")
        return size > now.size
