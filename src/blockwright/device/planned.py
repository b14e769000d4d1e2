"""A plan becomes a device: an ascending table of segments, read through it.

A segment is a run of the device whose bytes are known before any is written: literal bytes, or a source that
fills them in when they are read (a file's content, a structure computed on reading). What lies between segments
reads as zeros and is a hole, so a plan's memory follows what is used, not the size of the disk.

Knows: positions. Refuses to know: which file system or table made the plan, and what a source stands for.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Final, Protocol, runtime_checkable

from blockwright.device.base import Backing, BlockDevice, Traits
from blockwright.device.extent import DATA, HOLE, ZERO, Extent
from blockwright.device.vector import clear
from blockwright.units import KiB, MiB

MIN_BACKED: Final = MiB
"""Bytes of a longer range that one segment must hold for its file to be opened for it."""


@runtime_checkable
class Source(Protocol):
    """Anything that can fill a buffer with the bytes at an offset of its own, from several threads at once."""

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Fill all of ``buffer`` with the bytes from ``offset`` on, or raise."""


@runtime_checkable
class BackedSource(Source, Protocol):
    """A source whose bytes lie in files that the kernel can read by itself."""

    def backing(self, offset: int, length: int, /) -> Backing:
        """Answer as ``BlockDevice.backing`` does."""


class SegmentTable:
    """Ascending segments that do not overlap, in four parallel columns.

    ``add`` takes them in any order; ``freeze`` sorts where that was not ascending, and checks. Bytes.
    """

    __slots__ = ("_ascending", "_last", "lengths", "source_offsets", "sources", "starts")

    def __init__(self) -> None:
        self.starts = array("Q")
        self.lengths = array("Q")
        self.sources: list[bytes | Source] = []
        self.source_offsets = array("Q")
        self._last = 0  # the end of the segment added last
        self._ascending = True  # and so without overlap: each began at that end or behind it

    def __len__(self) -> int:
        return len(self.starts)

    def add(self, offset: int, length: int, source: bytes | Source, source_offset: int = 0) -> None:
        """Say that ``length`` bytes at ``offset`` are those of ``source`` from ``source_offset`` on."""
        if not length:
            return
        if offset < self._last:
            self._ascending = False
        self._last = offset + length
        self.starts.append(offset)
        self.lengths.append(length)
        self.sources.append(source)
        self.source_offsets.append(source_offset)

    def add_bytes(self, offset: int, data: bytes) -> None:
        """Say that ``data`` lies at ``offset``."""
        self.add(offset, len(data), data)

    def include(self, other: SegmentTable, distance: int) -> None:
        """Add all segments of ``other``, moved by ``distance`` bytes: a file system becomes a part of a disk."""
        if not other.starts:
            return
        self._ascending &= other._ascending and other.starts[0] + distance >= self._last
        self._last = other._last + distance
        self.starts.extend([start + distance for start in other.starts] if distance else other.starts)
        self.lengths.extend(other.lengths)
        self.sources += other.sources
        self.source_offsets.extend(other.source_offsets)

    def freeze(self) -> None:
        """Sort by offset. Overlap is a bug of the planner, and is asserted against."""
        if self._ascending:
            return
        order = sorted(range(len(self.starts)), key=self.starts.__getitem__)
        self.starts = array("Q", [self.starts[i] for i in order])
        self.lengths = array("Q", [self.lengths[i] for i in order])
        self.sources = [self.sources[i] for i in order]
        self.source_offsets = array("Q", [self.source_offsets[i] for i in order])
        end = 0
        for start, length in zip(self.starts, self.lengths, strict=True):
            assert start >= end, f"planner bug: segment at {start} overlaps the one that ends at {end}"
            end = start + length
        self._last = end
        self._ascending = True

    @property
    def end(self) -> int:
        """The first byte behind the last segment of a frozen table."""
        return self.starts[-1] + self.lengths[-1] if self.starts else 0


class PlannedDevice(BlockDevice):
    """Reads as the plan says: a read-only device of ``size`` bytes over a frozen ``SegmentTable``.

    ``extents`` are told in multiples of ``granularity`` bytes (a block), so that the tail of each file's last
    block does not become an extent of its own.
    """

    def __init__(self, size: int, table: SegmentTable, *, granularity: int = 4 * KiB) -> None:
        super().__init__(size, Traits(parallelism=8, preferred_block=granularity, known_extents=True))
        table.freeze()
        assert table.end <= size, f"planner bug: segments end at {table.end}, past the size {size}"
        self._table = table
        self._granularity = granularity

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            self._fill(offset, buffer)
            offset += len(buffer)

    def _fill(self, offset: int, buffer: memoryview) -> None:
        table = self._table
        starts, lengths, sources, source_offsets = (
            table.starts,
            table.lengths,
            table.sources,
            table.source_offsets,
        )
        index = max(0, bisect_right(starts, offset) - 1)
        position, end, count = offset, offset + len(buffer), len(starts)
        while position < end and index < count:
            start = starts[index]
            if start >= end:
                break
            stop = start + lengths[index]
            if stop > position:
                if start > position:
                    clear(buffer[position - offset : start - offset])
                    position = start
                stop = min(stop, end)
                source, within = sources[index], source_offsets[index] + position - start
                if type(source) is bytes:
                    buffer[position - offset : stop - offset] = source[within : within + stop - position]
                else:
                    source.read_into(within, buffer[position - offset : stop - offset])  # type: ignore[union-attr]  # not bytes
                position = stop
            index += 1
        if position < end:
            clear(buffer[position - offset :])

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield DATA for blocks that a segment touches and a hole for the rest."""
        table, mask = self._table, self._granularity - 1
        end, position = offset + length, offset & ~mask
        first = max(0, bisect_right(table.starts, position) - 1)
        last = bisect_left(table.starts, end)
        start = stop = position  # data in [start, stop) that is not told yet
        for low, count in zip(table.starts[first:last], table.lengths[first:last], strict=True):
            low_block, high_block = low & ~mask, (low + count + mask) & ~mask
            if low_block > stop:
                if stop > start:
                    yield Extent(start, stop - start, DATA)
                yield Extent(stop, low_block - stop, HOLE | ZERO)
                start, stop = low_block, high_block
            elif high_block > stop:
                stop = high_block
        if stop > start:
            yield Extent(start, stop - start, DATA)
        if stop < end:
            yield Extent(stop, end - stop, HOLE | ZERO)

    def _backing(self, offset: int, length: int) -> Backing:
        """Answer for the segment that holds the first byte, where it holds the range or a long part of it."""
        table = self._table
        index = bisect_right(table.starts, offset) - 1
        if index < 0 or not length:
            return nullcontext(None)
        within = offset - table.starts[index]
        covered = min(length, table.lengths[index] - within)
        source = table.sources[index]
        if covered < min(length, MIN_BACKED) or not isinstance(source, BackedSource):
            return nullcontext(None)
        return source.backing(table.source_offsets[index] + within, covered)
