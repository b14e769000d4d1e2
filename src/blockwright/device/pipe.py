"""A pipe, or any stream of bytes, as a device to write front to back.

Knows: that what is left out are zeros. Refuses to know: what is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from blockwright.device.once import OnceDevice
from blockwright.device.vector import zeros


class PipeDevice(OnceDevice):
    """Writes to ``stream``, which stays its owner's; ``finish`` fills it up to ``size`` bytes."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        super().__init__(size)
        self._stream = stream
        self._written = 0

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        length = sum(map(len, buffers))
        self._ascend(offset, length)
        self._fill(offset)
        for each in buffers:
            self._put(each)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        self._ascend(offset, length)

    def _fill(self, end: int) -> None:
        """Write zeros up to ``end``, a piece at a time: there may be exbibytes of them."""
        while self._written < end:
            for each in zeros(min(end - self._written, 1 << 24)):
                self._put(each)

    def _put(self, data: memoryview) -> None:
        # A raw stream may take less than it is given.
        while data:
            taken = self._stream.write(data)
            data = data[taken:]
            self._written += taken

    def _flush(self) -> None:
        self._stream.flush()

    def _finish(self) -> None:
        self._fill(self._size)
        self._stream.flush()
