"""What changed on a device since a moment: one bit of knowledge for each block.

A block is told as changed if any byte of it may have changed: too much is told now and then, too little never.

Knows: blocks and marks. Refuses to know: who writes, and how a checkpoint outlives its process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from blockwright.device.blockmap import PAGE, BlockMap
from blockwright.device.extent import Extent, merge
from blockwright.errors import UsageError
from blockwright.units import KiB

CHANGED: Final = 1
"""The flag of an extent that may have changed since the checkpoint; others have 0."""
BLOCK: Final = 64 * KiB
"""Bytes of a block by default."""
MAX_BLOCKS: Final = 1 << 26
"""Blocks of one checkpoint, each a byte at most: blocks are larger where a device has more (4 TiB of 64 KiB)."""
_DIGITS: Final = b"0" + b"1" * 255
_STATES: Final = bytes(each == ord("1") for each in range(256))
MAX_NAME: Final = 200
"""Bytes of a checkpoint's name, so that it fits any protocol that tells of it."""


class Checkpoint:
    """The blocks of a device of ``size`` bytes that changed since this was made. Thread-safe.

    ``block`` is a power of two, made larger where there would be more than MAX_BLOCKS. Raises UsageError for a
    block or a name that will not do.
    """

    def __init__(self, name: str, size: int, *, block: int = BLOCK) -> None:
        if block < 1 or block & (block - 1):
            raise UsageError(f"checkpoint {name!r}: expected a block that is a power of two, found {block}")
        if not name.isprintable() or not 0 < len(name.encode()) <= MAX_NAME:
            raise UsageError(f"checkpoint {name[:64]!r}: expected a name of 1 to {MAX_NAME} printable bytes")
        self.name = name
        self._lock = threading.Lock()
        # Replaced together, so that whoever looks without the lock sees a map with the blocks that it is of.
        self._state = (block.bit_length() - 1, BlockMap(0))
        self.make_room(size)

    @property
    def block(self) -> int:
        """Bytes of a block."""
        return 1 << self._state[0]

    def mark(self, offset: int, length: int) -> None:
        """Take note that the range is about to change, or has changed."""
        if not length:
            return
        shift, marks = self._state
        if offset >> shift == (offset + length - 1) >> shift and marks[offset >> shift]:
            return
        with self._lock:
            shift, marks = self._state
            marks.set(offset >> shift, ((offset + length - 1) >> shift) + 1, CHANGED)

    def make_room(self, size: int) -> None:
        """Have MAX_BLOCKS at most on a device of ``size`` bytes, by larger blocks where there would be more."""
        with self._lock:
            old, marks = self._state
            shift = old
            while size > MAX_BLOCKS << shift:
                shift += 1
            if shift == old:
                return
            larger, wider = BlockMap(0), shift - old
            for low, high, state in marks.runs(0, MAX_BLOCKS):
                if state:
                    larger.set(low >> wider, ((high - 1) >> wider) + 1, CHANGED)
            self._state = shift, larger

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield extents that cover the range, flags CHANGED or 0, as ``BlockDevice.extents`` does."""
        return merge(self._walk(offset, offset + length))

    def pages(self) -> list[tuple[int, bytes | int]]:
        """Return the pages of the map in which a block has changed, as ``BlockMap.pages`` does."""
        with self._lock:
            return self._state[1].pages()

    def put_page(self, index: int, states: bytes | int) -> None:
        """Take over a page that ``pages`` told of a checkpoint with the same blocks."""
        with self._lock:
            self._state[1].put_page(index, states)

    def _walk(self, offset: int, end: int) -> Iterator[Extent]:
        while offset < end:
            with self._lock:
                shift, marks = self._state
                first = offset >> shift
                runs = list(marks.runs(first, min(first + PAGE, ((end - 1) >> shift) + 1)))
            for low, high, state in runs:
                start, stop = max(offset, low << shift), min(end, high << shift)
                yield Extent(start, stop - start, state)
            offset = min(end, runs[-1][1] << shift)


def bits_of(states: bytes) -> bytes:
    """Return a bit for each of a multiple of 8 states, the lowest first; any state but 0 is a 1."""
    return int(states[::-1].translate(_DIGITS), 2).to_bytes(len(states) // 8, "little")


def states_of(bits: bytes) -> bytes:
    """Return the state, CHANGED or 0, of each bit, the lowest first."""
    return f"{int.from_bytes(bits, 'little'):0{8 * len(bits)}b}".encode().translate(_STATES)[::-1]
