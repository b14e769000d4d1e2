"""A process that writes to a volume is asked to wait while its layers change, and then to look again what they are.

The process that has the volume open listens on a socket in a folder that only its user may enter. Whoever takes a
snapshot connects and says so; the holder ends the calls under way, brings all to the file, closes it and answers. It
opens the volume again, by what the journal says then, when the connection ends, which the kernel sees to if the other
process dies.

Knows: that conversation. Refuses to know: volumes.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

from blockwright.errors import BlockwrightError, InUse, NotSupported

PREFIX: Final = "blockwright-volume-"
TIMEOUT_S: Final = 30.0
LEFT_S: Final = 60.0
"""Seconds after which a folder in which nobody listens is one that somebody left who died."""
_STOPPED: Final = b"stopped\n"
MAX_ANSWER: Final = 1024


class Holder:
    """Listens for those who need a volume to stand still. ``stop`` and ``go_on`` are called by a thread of its own.

    ``go_on`` is called after each ``stop``, also after one that raised.
    """

    def __init__(self, stop: Callable[[], None], go_on: Callable[[], None]) -> None:
        self._stop = stop
        self._go_on = go_on
        self._folder = tempfile.mkdtemp(prefix=PREFIX)
        self.path = os.path.join(self._folder, "s")
        self._closing = False
        self._socket = _socket()
        try:
            self._socket.bind(self.path)
            self._socket.listen(4)
            self._thread = threading.Thread(target=self._serve, name="volume: holder", daemon=True)
            self._thread.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Listen no more, and leave nothing behind."""
        self._closing = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        remove_traces(self.path)

    def _serve(self) -> None:
        while not self._closing:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                if self._closing:
                    return
                continue
            with peer:
                self._stand_still(peer)

    def _stand_still(self, peer: socket.socket) -> None:
        try:
            try:
                self._stop()
            except (BlockwrightError, OSError) as error:
                with suppress(OSError):
                    peer.sendall(f"{error}\n".encode()[:MAX_ANSWER])
                return
            with suppress(OSError):
                peer.sendall(_STOPPED)
                peer.recv(1)  # until the connection ends
        finally:
            self._go_on()


class StandStill:
    """The holder at ``path`` stands still until this is closed, or the process ends."""

    def __init__(self, path: str, name: str) -> None:
        self._socket = _socket()
        try:
            self._socket.settimeout(TIMEOUT_S)
            answer = b""
            try:
                self._socket.connect(path)
                while not answer.endswith(b"\n") and len(answer) < MAX_ANSWER:
                    part = self._socket.recv(MAX_ANSWER)
                    if not part:
                        break
                    answer += part
            except OSError as error:
                raise InUse(f"{name}: the process that has it open does not stand still: {error}") from None
            if answer != _STOPPED:
                text = answer.decode("utf-8", "replace").strip() or "it has gone"
                raise InUse(f"{name}: the process that has it open does not stand still: {text}")
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Let the holder go on."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _socket() -> socket.socket:
    if sys.platform == "win32":
        raise NotSupported("volume: this system has no sockets that are files")
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def clear_traces() -> None:
    """Remove what this user's dead holders left where they listened and no lease names, as their journal is gone.

    Nobody is asked to stand still by this: a socket of another type only learns from the kernel whether one listens.
    """
    if sys.platform == "win32":
        return
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for each in entries:
            if each.name.startswith(PREFIX) and each.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _clear(each.path, each.stat(follow_symlinks=False))


def _clear(folder: str, status: os.stat_result) -> None:
    """Remove a folder of ours in which nobody listens. Raises OSError."""
    if sys.platform == "win32":
        return
    if status.st_uid != os.geteuid() or status.st_mode & 0o777 != 0o700 or time.time() - status.st_mtime < LEFT_S:
        return
    names = os.listdir(folder)
    path = os.path.join(folder, "s")
    if names == ["s"] and stat.S_ISSOCK(os.lstat(path).st_mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking, suppress(ConnectionRefusedError):
            asking.connect(path)
            return
        os.unlink(path)
    os.rmdir(folder)  # which fails where there is anything else


def remove_traces(path: str) -> None:
    """Remove what a holder left where it listened; nothing else."""
    folder = os.path.dirname(path)
    if os.path.basename(folder).startswith(PREFIX) and os.path.basename(path) == "s":
        with suppress(OSError):
            os.unlink(path)
        with suppress(OSError):
            os.rmdir(folder)
