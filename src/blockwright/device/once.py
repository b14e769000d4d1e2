"""Devices that are written front to back and once, since what they write to is a pipe or keeps a running sum.

Knows: order, and that an end must be told. Refuses to know: what is made of the bytes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import final

from blockwright.device.base import BlockDevice, Traits
from blockwright.errors import NotSupported


class OnceDevice(BlockDevice):
    """Takes writes in ascending order; what no write covers reads as zeros later. It cannot be read.

    ``finish`` says that all was written: before that nothing whole is there. One call at a time.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size, Traits(writable=True, fast_zero=True))
        self._position = 0
        self._finished = False

    @final
    def finish(self) -> None:
        """Write what belongs behind all data. Raises OSError."""
        if not self._finished:
            self._finish()
            self._finished = True

    @abstractmethod
    def _finish(self) -> None:
        """Write what belongs behind all data."""

    def _ascend(self, offset: int, length: int) -> None:
        """Note that [offset, offset + length) is written. Raises NotSupported where it lies behind us."""
        if offset < self._position or self._finished:
            raise NotSupported(
                f"write: expected ascending offsets from byte {self._position} on, found one at {offset}: what is "
                "written is not gone back to"
            )
        self._position = offset + length

    def _read_into(self, offset: int, buffers: object) -> None:
        raise NotSupported("read: the device is written only")
