"""Blocks of a file system written to a device, whatever the device's minimum block.

Knows: ranges. Refuses to know: what is written, and in which order it must be durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.device.extent import ZERO
from blockwright.units import MiB, align_down, align_up

MAX_WRITE: Final = 4 * MiB
"""Bytes of neighbouring blocks that are written at once."""


class Writer:
    """Writes blocks of a file system to ``device``, whatever its minimum block."""

    def __init__(self, device: BlockDevice, block_size: int) -> None:
        self.device = device
        self._size = block_size

    def write(self, blocks: Iterable[tuple[int, bytes]]) -> None:
        """Write ascending (block, bytes), neighbours together; nothing is durable yet."""
        for block, data in _joined(blocks, self._size):
            self._write(block * self._size, data)

    def zero(self, runs: Iterable[tuple[int, int]]) -> None:
        """Have runs of (block, count) read as zeros, and leave alone what does already."""
        for block, count in runs:
            start, length = block * self._size, count * self._size
            for extent in self.device.extents(*whole(self.device, start, length)):
                low, high = max(start, extent.offset), min(start + length, extent.end)
                if not extent.flags & ZERO and low < high:
                    self._zero(low, high - low)

    def _zero(self, start: int, length: int) -> None:
        if whole(self.device, start, length) == (start, length):
            self.device.zero(start, length)
        else:
            self._write(start, bytes(length))

    def _write(self, start: int, data: bytes) -> None:
        low, length = whole(self.device, start, len(data))
        if (low, length) != (start, len(data)):
            around = bytearray(self.device.read(low, length))
            around[start - low : start - low + len(data)] = data
            start, data = low, bytes(around)
        self.device.write(start, data)


def _joined(blocks: Iterable[tuple[int, bytes]], size: int) -> Iterator[tuple[int, bytes]]:
    first, parts, length = 0, list[bytes](), 0
    for block, data in blocks:
        if parts and (block * size != first * size + length or length + len(data) > MAX_WRITE):
            yield first, b"".join(parts)
            parts, length = [], 0
        if not parts:
            first = block
        parts.append(data)
        length += len(data)
    if parts:
        yield first, b"".join(parts)


def whole(device: BlockDevice, start: int, length: int) -> tuple[int, int]:
    """Return a range's start and length, in whole minimum blocks of the device."""
    grain = device.traits.minimum_block
    low = align_down(start, grain)
    return low, min(align_up(start + length, grain), device.size) - low
