"""Loop devices in tests: where they can be had, and what a test left is detached whatever came of it."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blockwright.errors import NotFound
from blockwright.system.linux import loop

PATIENCE_S = 60.0


def why_not() -> str:
    """Why there are no loop devices to be had here; empty where there are."""
    if sys.platform != "linux":
        return "needs Linux"
    try:
        os.close(os.open("/dev/loop-control", os.O_RDWR))
    except OSError as error:
        return f"needs loop devices: /dev/loop-control: {error.strerror}"
    return ""


needs_loop = pytest.mark.skipif(bool(why_not()), reason=why_not() or "has loop devices")


@contextmanager
def swept(folder: Path) -> Iterator[None]:
    """Detach at the end whatever stands on files in `folder`; nobody else's."""
    try:
        yield
    finally:
        for each in list(loop.states()):
            if Path(each.backing).is_relative_to(folder):
                loop.detach(each.number, sequence=each.sequence)


def sparse(path: Path, size: int) -> Path:
    """A file of that size, zeros."""
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def attached(path: Path) -> list[str]:
    """The devices that stand on a file."""
    try:
        return [each.path for each in loop.find(path)]
    except NotFound:
        return []


def became_free(path: Path, device: str = "") -> bool:
    """Whether the kernel lets go of a file by itself: who looks through all devices has each open for a moment.

    With `device` that one is looked at alone.
    """
    end = time.monotonic() + PATIENCE_S
    while (found := attached(path)) and (not device or device in found):
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True
