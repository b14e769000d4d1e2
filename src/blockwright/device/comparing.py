"""A target that writes nothing: what is written to it is compared with what a device holds already.

Whatever makes a disk on a blank target proves with this one that an existing disk is what it would make.

Knows: which bytes were written and which of them differ. Refuses to know: who writes, and what the bytes mean.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from blockwright.device.base import BlockDevice, ResizableDevice, Traits
from blockwright.device.extent import DATA, HOLE, ZERO, Extent
from blockwright.device.vector import ZEROS, clear
from blockwright.units import KiB, MiB, align_up, ceil_div

BLOCK: Final = 4 * KiB
MAX_KEPT: Final = 8192
"""Blocks that differ which are kept, 64 MiB of them; of others nothing is noted."""
_CHUNK: Final = MiB


class ComparingDevice(ResizableDevice):
    """Takes writes of a disk that is being made anew, and compares each with the same bytes of ``inner``.

    It reads as what was written, zeros elsewhere, so that whoever reads back what they wrote makes the same of it.
    ``inner`` stays the caller's. Memory follows the number of runs that are written, 16 bytes each, and of blocks
    that differ, which are kept: with more than ``MAX_KEPT`` of them reads give the others as ``inner`` has them.
    """

    def __init__(self, inner: BlockDevice) -> None:
        super().__init__(inner.size, Traits(writable=True, known_extents=True))
        self._inner = inner
        self._lock = threading.Lock()
        self._starts = array("Q")  # of runs that were written, ascending, none touching the next
        self._ends = array("Q")
        self._differing: dict[int, _Block] = {}

    def first_difference(self) -> int | None:
        """Return the first byte at which ``inner`` differs from what was written; what was not has to be zeros.

        Where one is longer and the rest is zeros, that is the end of the shorter one. None where they are the same.
        """
        found = min((each.first for each in self._differing.values()), default=None)
        for start, end in self._gaps(max(self._size, self._inner.size)):
            if found is not None and start >= found:
                break
            at = self._data_in(start, end if found is None else min(end, found))
            if at is not None:
                return at
        if found is None and self._inner.size != self._size:
            return min(self._inner.size, self._size)
        return found

    def _gaps(self, end: int) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of what was not written, ascending."""
        position = 0
        for start, stop in zip(self._starts, self._ends, strict=True):
            if start > position:
                yield position, start
            position = stop
        if position < end:
            yield position, end

    def _data_in(self, start: int, end: int) -> int | None:
        """Return the first byte of ``inner`` in the range that is not zero."""
        end = min(end, self._inner.size)
        if start >= end:
            return None
        for offset, length, flags in self._inner.extents(start, end - start):
            position, stop = offset, offset + length
            while position < stop and not flags & ZERO:
                part = self._inner.read(position, min(_CHUNK, stop - position))
                if part != ZEROS[: len(part)].tobytes():
                    return position + next(index for index, byte in enumerate(part) if byte)
                position += len(part)
        return None

    # -- reading back ------------------------------------------------------------------------------------------

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        with self._lock:
            for buffer in buffers:
                position, end = offset, offset + len(buffer)
                for start, stop in self._written(offset, end):
                    clear(buffer[position - offset : start - offset])
                    self._read_there(start, buffer[start - offset : stop - offset])
                    position = stop
                clear(buffer[position - offset :])
                offset = end

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        with self._lock:
            written = list(self._written(offset, offset + length))
        position = offset
        for start, stop in written:
            if start > position:
                yield Extent(position, start - position, HOLE | ZERO)
            yield Extent(start, stop - start, DATA)
            position = stop
        if position < offset + length:
            yield Extent(position, offset + length - position, HOLE | ZERO)

    def _written(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of what was written within a range."""
        index = bisect_right(self._ends, offset)
        while index < len(self._starts) and self._starts[index] < end:
            yield max(self._starts[index], offset), min(self._ends[index], end)
            index += 1

    def _read_there(self, offset: int, buffer: memoryview) -> None:
        """Read what was written, all of a range: from ``inner``, but for blocks that differ."""
        self._read_inner(offset, buffer)
        if not self._differing:
            return
        end = offset + len(buffer)
        for number in range(offset // BLOCK, ceil_div(end, BLOCK)):
            block = self._differing.get(number)
            if block is not None:
                low, high = max(offset, number * BLOCK), min(end, (number + 1) * BLOCK)
                buffer[low - offset : high - offset] = block.data[low - number * BLOCK : high - number * BLOCK]

    def _read_inner(self, offset: int, buffer: memoryview) -> None:
        """Read what is there, zeros behind its end."""
        there = max(0, min(len(buffer), self._inner.size - offset))
        if there:
            self._inner.read_into(offset, buffer[:there])
        clear(buffer[there:])

    # -- writing -----------------------------------------------------------------------------------------------

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        with self._lock:
            for buffer in buffers:
                for position in range(0, len(buffer), _CHUNK):
                    self._compare(offset + position, bytes(buffer[position : position + _CHUNK]))
                offset += len(buffer)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        with self._lock:
            for position in range(offset, offset + length, _CHUNK):
                self._compare(position, ZEROS[: min(_CHUNK, offset + length - position)].tobytes())

    def _resize(self, size: int) -> None:
        """Take any size, since nothing is allocated, and forget what was written behind it."""
        with self._lock:
            count = bisect_left(self._starts, size)
            del self._starts[count:], self._ends[count:]
            if count and self._ends[-1] > size:
                self._ends[-1] = size
            for number in [each for each in self._differing if (each + 1) * BLOCK > size]:
                block = self._differing[number]
                keep = max(0, size - number * BLOCK)
                block.data[keep:] = block.found[keep:]
                if block.data == block.found:
                    del self._differing[number]

    def _compare(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        found = bytearray(len(data))
        self._read_inner(offset, memoryview(found))
        if found != data or self._differing:
            position = offset
            while position < end:
                stop = min(end, align_up(position + 1, BLOCK))
                self._note(
                    position, data[position - offset : stop - offset], found[position - offset : stop - offset]
                )
                position = stop
        self._cover(offset, end)

    def _note(self, start: int, data: bytes, found: bytearray) -> None:
        """Keep a part of a block as it was written, where any of the block differs."""
        number, within = divmod(start, BLOCK)
        block = self._differing.get(number)
        if block is None:
            if data == found or len(self._differing) >= MAX_KEPT:
                return
            block = self._differing[number] = _Block(number * BLOCK, bytearray(BLOCK), bytearray(BLOCK))
            self._read_inner(block.start, memoryview(block.data))
            block.found[:] = block.data
        block.data[within : within + len(data)] = data
        if block.data == block.found:
            del self._differing[number]

    def _cover(self, start: int, end: int) -> None:
        """Add a run to those that were written."""
        starts, ends = self._starts, self._ends
        if ends and ends[-1] == start:
            ends[-1] = end
            return
        low, high = bisect_left(ends, start), bisect_right(starts, end)
        if low < high:
            start, end = min(start, starts[low]), max(end, ends[high - 1])
        starts[low:high] = array("Q", [start])
        ends[low:high] = array("Q", [end])


@dataclass(slots=True)
class _Block:
    """A block from byte ``start`` on: as it was written, with what was not as it is there, and as it is there."""

    start: int
    data: bytearray
    found: bytearray

    @property
    def first(self) -> int:
        """The first byte of the device that differs."""
        return self.start + next(at for at in range(BLOCK) if self.data[at] != self.found[at])
