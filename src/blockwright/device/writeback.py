"""Has the host write a file back while it is still being written, so that the sync at its end has little left to do.

Knows: files behind a device, and that hints may be ignored. Refuses to know: whether anything is durable.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.units import MiB

STEP: Final = 32 * MiB
"""Bytes of a file that are written back at once: enough for the disk to work with, little to wait for at the end."""


class Writeback:
    """Watches how far a target is written, roughly in ascending order; ``behind`` bytes may still be written late."""

    def __init__(self, target: BlockDevice, *, behind: int = 16 * MiB) -> None:
        self._target = target
        self._behind = behind
        self._begun = 0
        self._useful = sys.platform == "linux" and target.size > 2 * STEP

    def reached(self, position: int) -> None:
        """Begin to write back what lies well before ``position``."""
        end = position - self._behind
        if self._useful and end - self._begun >= STEP:
            start, self._begun = self._begun, end
            self._begin(start, end)

    def _begin(self, offset: int, end: int) -> None:
        while offset < end:
            with self._target.backing(offset, end - offset) as runs:
                if not runs or not all(run.writable for run in runs):
                    self._useful = False
                    return
                for run in runs:
                    _begin(run.fd, run.offset, run.length)
                    offset += run.length


def _begin(fd: int, offset: int, length: int) -> None:
    """Begin to write back a range; Linux does so, without waiting, when told that the range is not needed."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)
