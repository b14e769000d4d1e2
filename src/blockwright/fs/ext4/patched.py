"""A device of which some blocks are read from elsewhere: from the journal, or from a transaction in memory.

Knows: how reads and extents go around such blocks. Refuses to know: which blocks those are, and where they come from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

from blockwright.device.base import Backing, BlockDevice
from blockwright.device.extent import DATA, Extent, clip
from blockwright.device.forwarding import ForwardingDevice


class PatchedDevice(ForwardingDevice):
    """The inner device with some blocks of ``block_size`` bytes read from elsewhere. Takes no writes."""

    def __init__(self, inner: BlockDevice, block_size: int) -> None:
        super().__init__(
            inner, traits=replace(inner.traits, writable=False, discard=False, fast_zero=False, fua=False)
        )
        self.block_size = block_size

    @abstractmethod
    def _within(self, offset: int, end: int) -> Sequence[int]:
        """Return the patched blocks that touch [offset, end), ascending."""

    @abstractmethod
    def _content(self, block: int) -> bytes | bytearray:
        """Return what a patched block holds."""

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._inner.read_into(offset, *buffers)
        size = self.block_size
        for buffer in buffers:
            end = offset + len(buffer)
            for block in self._within(offset, end):
                data = memoryview(self._content(block))
                low, high = max(offset, block * size), min(end, (block + 1) * size)
                buffer[low - offset : high - offset] = data[low - block * size : high - block * size]
            offset = end

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        """Say that a read may wait: a patched block may be read from elsewhere first."""
        return False

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield the inner extents, but data where a block is patched."""
        position, end, size = offset, offset + length, self.block_size
        for block in self._within(offset, end):
            start, stop = max(offset, block * size), min(end, (block + 1) * size)
            if start > position:
                yield from clip(self._inner.extents(position, start - position), position, start)
            yield Extent(start, stop - start, DATA)
            position = stop
        if position < end:
            yield from self._inner.extents(position, end - position)

    def _backing(self, offset: int, length: int) -> Backing:
        """Answer for ranges without a patched block only."""
        if self._within(offset, offset + length):
            return nullcontext(None)
        return self._inner.backing(offset, length)
