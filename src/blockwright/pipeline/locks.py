"""A lock that is waited for as long as it takes, and that a process which dies lets go.

Knows: how it is taken and waited for. Refuses to know: what it keeps others from.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from blockwright.system.linux.ioctl import lock_node

_FIRST_PAUSE_S: Final = 0.01
_LAST_PAUSE_S: Final = 0.5


def pauses() -> Iterator[float]:
    """Yield seconds to wait, longer each time, without end."""
    pause = _FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(_LAST_PAUSE_S, pause * 1.5)


@contextmanager
def exclusive(path: str, stop: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of the file at ``path``, which is made, against every other process and thread.

    ``stop`` is called while it is waited for, and may raise. The file is removed by whoever had the lock, while it
    still has it: who gets the lock of a file that has no name any more opens the next one. Raises OSError.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    fd = _locked(path, stop)
    try:
        yield
    finally:
        if os.name != "nt":
            os.unlink(path)
        os.close(fd)


def _locked(path: str, stop: Callable[[], None]) -> int:
    fd = -1
    try:
        for pause in pauses():
            if fd < 0:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            if lock_node(fd):
                if _is_at(fd, path):
                    break
                os.close(fd)
                fd = -1
                continue
            stop()
            time.sleep(pause)
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise
    return fd


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
