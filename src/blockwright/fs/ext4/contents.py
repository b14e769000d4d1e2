"""A file's bytes: as a read-only device with its holes, and as the content of a tree's node.

Knows: how runs of blocks become bytes. Refuses to know: how the runs are stored.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

from blockwright.device.base import Backing, BlockDevice, Traits
from blockwright.device.extent import DATA, HOLE, ZERO, Extent
from blockwright.device.vector import clear
from blockwright.fs.ext4.mapping import Run
from blockwright.fs.ext4.volume import Volume
from blockwright.tree.content import Content, Runs


class RunReader:
    """Reads ``size`` bytes that lie in runs of a volume's blocks."""

    __slots__ = ("_logical", "_runs", "_shift", "_volume", "size")

    def __init__(self, volume: Volume, runs: list[Run], size: int) -> None:
        self._volume = volume
        self._runs = runs
        self._logical = [run.logical for run in runs]
        self._shift = volume.block_size.bit_length() - 1
        self.size = size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from ``offset`` on; holes and uninitialised extents read as zeros."""
        position, end, shift = offset, offset + len(buffer), self._shift
        index = max(0, bisect_right(self._logical, offset >> shift) - 1)
        runs = self._runs
        while position < end and index < len(runs):
            logical, count, physical, written = runs[index]
            index += 1
            start, stop = logical << shift, logical + count << shift
            if start >= end:
                break
            if stop <= position or not written:
                continue
            if start > position:
                clear(buffer[position - offset : start - offset])
                position = start
            stop = min(stop, end)
            part = buffer[position - offset : stop - offset]
            self._volume.read_into((physical << shift) + position - start, part)
            position = stop
        if position < end:
            clear(buffer[position - offset :])

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield the extents that cover the range: data, holes, and zeros where space is allocated but not written."""
        shift, end = self._shift, min(offset + length, self.size)
        index = max(0, bisect_right(self._logical, offset >> shift) - 1)
        position = offset
        for logical, count, _physical, written in self._runs[index:]:
            start, stop = logical << shift, min(logical + count << shift, self.size)
            if start >= end:
                break
            if stop <= position:
                continue
            if start > position:
                yield Extent(position, start - position, HOLE | ZERO)
                position = start
            yield Extent(position, stop - position, DATA if written else ZERO)
            position = stop
        if position < end:
            yield Extent(position, end - position, HOLE | ZERO)

    def runs(self) -> Runs:
        """Return where data lies, in bytes."""
        found: list[tuple[int, int]] = []
        shift = self._shift
        for logical, count, _physical, written in self._runs:
            start, stop = logical << shift, min(logical + count << shift, self.size)
            if not written or start >= stop:
                continue
            if found and sum(found[-1]) == start:
                found[-1] = (found[-1][0], stop - found[-1][0])
            else:
                found.append((start, stop - start))
        return found

    def backing(self, offset: int, length: int) -> Backing:
        """Answer as the device does for a range within one written run, else None."""
        shift = self._shift
        index = bisect_right(self._logical, offset >> shift) - 1
        if length and index >= 0:
            logical, count, physical, written = self._runs[index]
            if written and offset + length <= logical + count << shift:
                return self._volume.device.backing((physical << shift) + offset - (logical << shift), length)
        return nullcontext(None)


class FileDevice(BlockDevice):
    """A regular file as a read-only device. Closing it leaves the file system open."""

    def __init__(self, volume: Volume, reader: RunReader) -> None:
        traits = Traits(parallelism=volume.device.traits.parallelism, preferred_block=volume.block_size)
        super().__init__(reader.size, traits)
        self._reader = reader

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            self._reader.read_into(offset, buffer)
            offset += len(buffer)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self._reader.extents(offset, length)

    def _backing(self, offset: int, length: int) -> Backing:
        return self._reader.backing(offset, length)


class BytesDevice(BlockDevice):
    """A small file that lies in its inode, as a read-only device."""

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data), Traits(parallelism=8))
        self._data = data

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            buffer[:] = self._data[offset : offset + len(buffer)]
            offset += len(buffer)


class FileContent(Content):
    """A file of an open file system as a node's content; its map is read when it is first asked for."""

    __slots__ = ("_open", "_reader")

    def __init__(self, size: int, opener: Callable[[], RunReader]) -> None:
        super().__init__(size)
        self._open = opener
        self._reader: RunReader | None = None

    def _ready(self) -> RunReader:
        if self._reader is None:
            self._reader = self._open()
        return self._reader

    def runs(self) -> Runs:
        """Return where data lies."""
        return self._ready().runs()

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Read from the file system's device."""
        self._ready().read_into(offset, buffer)

    def backing(self, offset: int, length: int, /) -> Backing:
        """Answer as the file system's device does, for a range within one run."""
        return self._ready().backing(offset, length)
