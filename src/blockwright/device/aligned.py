"""Transfers of any range to and from an open file that takes whole blocks only.

Raw disks of macOS (/dev/rdiskN) and files that Linux opened with O_DIRECT go past the host's cache: their offsets and
lengths are multiples of the disk's sector, and on Linux so is the memory. What is asked for is moved through buffers
of whole pages; the rest of a block that is written in part is read first, with nobody else writing the block.

Knows: blocks, buffers, who writes which block. Refuses to know: what the file is.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from blockwright.device import hostfile
from blockwright.device.ranges import RangeLock
from blockwright.device.vector import Cutter, total
from blockwright.units import MiB, align_down, align_up

CHUNK: Final = MiB
"""Bytes that one call to the host moves, and of each buffer; a multiple of every block."""
MAX_BLOCK: Final = CHUNK
"""Bytes of the largest block."""


class AlignedFile:
    """Reads and writes ``fd``, of which it takes ``block`` bytes or multiples at multiples. Any thread may call.

    ``block`` is a power of two up to ``MAX_BLOCK``. The descriptor stays the caller's.
    """

    def __init__(self, fd: int, block: int) -> None:
        assert block <= MAX_BLOCK
        assert not block & (block - 1)
        self._fd = fd
        self._block = block
        self._writes = RangeLock()
        self._buffers: deque[mmap.mmap] = deque()

    def read(self, offset: int, buffers: Sequence[memoryview]) -> int:
        """Fill the buffers from ``offset`` on and return the bytes read, fewer only where the file ends."""
        wanted, done, cutter = total(buffers), 0, Cutter(buffers)
        with self._buffer() as view:
            while done < wanted:
                at = offset + done
                start, end = self._chunk(at, offset + wanted)
                found = hostfile.read_full(self._fd, start, [view[: align_up(end, self._block) - start]])
                part = max(0, min(end, start + found) - at)
                position = at - start
                for piece in cutter.take(part):
                    piece[:] = view[position : position + len(piece)]
                    position += len(piece)
                done += part
                if at + part < end:
                    break
        return done

    def write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool = False) -> None:
        """Write the buffers at ``offset``; other bytes of their first and last block stay as they are."""
        at, stop, cutter = offset, offset + total(buffers), Cutter(buffers)
        with self._buffer() as view:
            while at < stop:
                start, end = self._chunk(at, stop)
                whole = align_up(end, self._block)
                with self.writing(at, end - at):
                    self._fill_around(view, start, at, end)
                    position = at - start
                    for piece in cutter.take(end - at):
                        view[position : position + len(piece)] = piece
                        position += len(piece)
                    hostfile.write_full(self._fd, start, [view[: whole - start]], durable=durable)
                at = end

    def writing(self, offset: int, length: int) -> AbstractContextManager[None]:
        """Hold the range against writes that read other parts of its blocks first.

        Whole blocks are held with whoever else writes them; a block of which the range is a part, alone.
        """
        start, end = align_down(offset, self._block), align_up(offset + length, self._block)
        if (start, end) == (offset, offset + length):
            return self._writes.shared(start, end)
        return self._writes.exclusive(start, end)

    def _chunk(self, at: int, stop: int) -> tuple[int, int]:
        """Return where the block begins that ``at`` lies in, and how far the next call goes."""
        start = align_down(at, self._block)
        return start, min(stop, start + CHUNK)

    def _fill_around(self, view: memoryview, start: int, at: int, end: int) -> None:
        """Read the blocks of which [at, end) is a part, to their places in a buffer that begins at ``start``."""
        last = align_down(end, self._block)
        if at > start:
            self._read_block(view, start, 0)
        if end > last and not (at > start and last == start):
            self._read_block(view, last, last - start)

    def _read_block(self, view: memoryview, offset: int, position: int) -> None:
        found = hostfile.read_full(self._fd, offset, [view[position : position + self._block]])
        if found < self._block:  # behind the end: the host says so when it is written
            view[position + found : position + self._block] = bytes(self._block - found)

    @contextmanager
    def _buffer(self) -> Iterator[memoryview]:
        """Lend a buffer that begins at a page; as many are kept as were in use at once."""
        try:
            memory = self._buffers.pop()
        except IndexError:
            memory = mmap.mmap(-1, CHUNK)
        try:
            with memoryview(memory) as view:
                yield view
        finally:
            self._buffers.append(memory)
