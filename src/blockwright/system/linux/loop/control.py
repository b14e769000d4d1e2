"""/dev/loop-control: which device is free, and one attachment at a time.

The lock is flock(2) on the control node, which systemd takes as well; programs that take none are met by trying
again. Whoever waits, waits for a bounded time.

Knows: the control node. Refuses to know: what is attached.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from blockwright.errors import KernelError
from blockwright.system.linux.ioctl import call, lock_node, open_control
from blockwright.system.linux.loop import layout

LOCK_TIMEOUT_S: Final = 30.0
_PAUSE_S: Final = 0.004


@contextmanager
def control() -> Iterator[int]:
    """Give the control node, open and locked against every other user of this package and systemd.

    Raises Unavailable where the kernel has no loop devices, or without privilege; KernelError (EAGAIN) where the
    lock is not free within 30 s.
    """
    fd = open_control(layout.CONTROL, misc="loop-control", module="loop")
    try:
        _lock(fd)
        yield fd
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    end = time.monotonic() + LOCK_TIMEOUT_S
    while not lock_node(fd):
        if time.monotonic() > end:
            text = f"somebody else has held the lock for {LOCK_TIMEOUT_S:g} s"
            raise KernelError("flock", layout.CONTROL, errno.EAGAIN, text)
        time.sleep(random.uniform(0, _PAUSE_S))  # noqa: S311 - that waiters part is all that is asked of it


def free_number(fd: int) -> int:
    """Return the number of a device that is free, and may be taken by others at once; one is made if none is."""
    return call(fd, layout.CTL_GET_FREE, operation="LOOP_CTL_GET_FREE", device=layout.CONTROL)


def add(fd: int, number: int) -> None:
    """Have a device of that number."""
    try:
        call(fd, layout.CTL_ADD, number, operation="LOOP_CTL_ADD", device=layout.CONTROL)
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
