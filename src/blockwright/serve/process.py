"""A server's life as a process of the host: its user, its pid file, its parent, its signals.

Knows: the operating system. Refuses to know: what the process does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, Self

from blockwright.errors import KernelError, NotFound, NotSupported, Unavailable, UsageError

ENDED: Final = 0
"""What ``Signals.wait`` returns when the work has ended by itself."""

_PR_SET_PDEATHSIG: Final = 1


class Signals:
    """Signals as a queue: inside the context they interrupt nobody and wait to be asked for.

    Used by the main thread. A signal that was ignored before stays so.
    """

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(True)
        self._write.setblocking(False)
        self._before: dict[int, object] = {}
        self._fd = -1

    def __enter__(self) -> Self:
        self._fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, _noted)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() returned
        signal.set_wakeup_fd(self._fd)
        self._read.close()
        self._write.close()

    def wait(self) -> int:
        """Return the next signal's number, ENDED after ``end``."""
        return self._read.recv(1)[0]

    def end(self) -> None:
        """Let ``wait`` return ENDED. From any thread."""
        with suppress(OSError):  # full of signals, which will do, or over already
            self._write.send(bytes([ENDED]))


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the number was written to the wakeup descriptor."""


@contextmanager
def pid_file(path: str | None) -> Iterator[None]:
    """Keep a file with our process id for as long as the context lasts.

    Raises UsageError for an empty path, OSError where it cannot be made.
    """
    if path is None:
        yield
        return
    if not path:
        raise UsageError("pid file: expected a path, found none")
    part = f"{path}.{os.getpid()}"
    try:
        with suppress(FileNotFoundError):
            os.unlink(part)  # of a process that had our number, or a link that somebody put there
        with open(part, "x", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        os.replace(part, path)  # nobody ever reads a part of it
    except OSError as error:
        with suppress(OSError):
            os.unlink(part)
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from None
    try:
        yield
    finally:
        with suppress(OSError), open(path, encoding="ascii") as file:
            if file.read(32).strip() == str(os.getpid()):
                os.unlink(path)


def become(user: str) -> None:
    """Give up root for ``user`` and its groups. Raises NotFound, Unavailable without the right, NotSupported.

    ``user`` is a name, or a number.
    """
    if sys.platform == "win32":
        raise NotSupported("user: this system has no users to become")
    import pwd

    try:
        found = pwd.getpwuid(int(user)) if user.isascii() and user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError, ValueError):
        raise NotFound(f"user {user[:64]!r}: no such user") from None
    if (os.getuid(), os.geteuid()) == (found.pw_uid, found.pw_uid):
        return
    try:
        os.initgroups(found.pw_name, found.pw_gid)
        os.setgid(found.pw_gid)
        os.setuid(found.pw_uid)
    except OSError as error:
        number = error.errno or 0
        raise Unavailable("setuid", user, number, "needs root to serve as another user") from None


def end_with_parent(parent: int) -> None:
    """Have SIGTERM sent to this process when its parent, the process ``parent``, ends.

    Called by the main thread, and behind ``become``: who changes his user is not told any more. Raises NotSupported,
    KernelError, UsageError where the parent has ended already.
    """
    if sys.platform != "linux":
        raise NotSupported("exit with parent: only Linux tells a process that its parent has ended")
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0):
        number = ctypes.get_errno()
        raise KernelError("prctl", "process", number, os.strerror(number).lower())
    if os.getppid() != parent:
        raise UsageError("exit with parent: the parent has ended already")
