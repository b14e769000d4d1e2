"""What every file system's ``resize`` module answers with.

Knows: sizes before and after, and a device that must be long enough. Refuses to know: how any file system grows or
shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.errors import BlockwrightError, UsageError

Wanted = int | Callable[[int], int] | None
"""The size that a file system is to have, also as a function of its present one; None for all of the device."""


def size_wanted(device: BlockDevice, wanted: Wanted, present: int, *, interrupted: bool) -> int:
    """Return what ``wanted`` is in bytes.

    Raises UsageError where it follows from the ``present`` size and that of an interrupted resize is not known.
    """
    if not callable(wanted):
        return device.size if wanted is None else wanted
    if interrupted:
        raise UsageError("resize: one was interrupted: expected the size to finish it with, without + or -")
    return wanted(present)


@dataclass(frozen=True, slots=True)
class ResizeReport:
    """A file system's size before and after, in bytes, in its own blocks (FAT's are sectors), and in block groups.

    ``size`` may be less than what was asked for: whole blocks count, and an end too short for a group is left out.
    ``method`` says how the change was made: "none" where nothing had to be written, "journal" for transactions of
    the file system's own journal, "ordered" for writes in an order from which a check mends every prefix.
    """

    kind: str
    block_size: int
    old_blocks: int
    blocks: int
    old_groups: int
    groups: int
    method: str

    @property
    def old_size(self) -> int:
        """Bytes before."""
        return self.old_blocks * self.block_size

    @property
    def size(self) -> int:
        """Bytes after."""
        return self.blocks * self.block_size


@contextmanager
def long_enough(device: BlockDevice, end: int) -> Iterator[None]:
    """Have the device reach to ``end``; where the body raises, it is as long as it was."""
    before = device.size
    if end <= before:
        yield
        return
    if not isinstance(device, ResizableDevice):
        raise UsageError(f"resize: expected at most the device's {before} bytes, found {end}")
    device.resize(end)
    try:
        yield
    except BaseException:
        with suppress(BlockwrightError):  # what stopped the body is what is told
            device.resize(before)
        raise
