"""Copy-on-write: a writable device over a read-only one, which is never written to.

Each block is in one of three states: as in the base, in the top, or zero. A partial write to a block that is not
in the top fills the rest of it first, under a reservation of the block's range, and the state changes only when
the block is whole. So whatever fails on the way, bytes outside the written range are what they were.

Knows: which block lives where. Refuses to know: how the top keeps bytes, and how an overlay is stored.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.blockmap import BlockMap
from blockwright.device.extent import HOLE, ZERO, Extent
from blockwright.device.memory import MemoryDevice
from blockwright.device.ranges import RangeLock
from blockwright.device.vector import Cutter, clear, total, zeros
from blockwright.errors import NoSpace, NotSupported, ReadOnly, UsageError
from blockwright.units import KiB, align_down, align_up, ceil_div

BLOCK: Final = 4 * KiB

_BASE: Final = 0
_TOP: Final = 1
_ZERO: Final = 2


class Overlay(BlockDevice):
    """Reads as ``base`` where nothing was written since; takes every write in ``top``.

    ``top`` is memory unless given, and its content does not matter; it must be writable and of the base's size, or
    able to grow to it. ``block`` is the bytes that are copied up at once. ``owns`` says whether closing closes both.
    Raises ReadOnly and NoSpace for a top that does not do, UsageError for a block that is no power of two.
    """

    def __init__(
        self, base: BlockDevice, top: BlockDevice | None = None, *, block: int = BLOCK, owns: bool = True
    ) -> None:
        if block < 1 or block & (block - 1):
            raise UsageError(f"overlay: expected a block that is a power of two, found {block}")
        top = MemoryDevice(base.size) if top is None else top
        if not top.traits.writable:
            raise ReadOnly("overlay: expected a writable device to write to, found a read-only one")
        if top.size < base.size:
            if not isinstance(top, ResizableDevice):
                raise NoSpace(f"overlay: expected a device of at least {base.size} bytes, found {top.size}")
            top.resize(base.size)
        minimum = max(base.traits.minimum_block, top.traits.minimum_block)
        traits = replace(
            top.traits,
            discard=True,
            fast_zero=True,
            parallelism=min(base.traits.parallelism, top.traits.parallelism),
            minimum_block=minimum,
            preferred_block=max(block, minimum),
            waits=max(base.traits.waits, top.traits.waits),
            known_extents=base.traits.known_extents and top.traits.known_extents,
        )
        super().__init__(base.size, traits)
        self._base = base
        self._top = top
        self._owns = owns
        self._block = max(block, minimum)
        self._map = BlockMap(ceil_div(base.size, self._block))
        self._map_lock = threading.Lock()  # held to look and to change, never during I/O
        self._ranges = RangeLock()

    # -- reading ---------------------------------------------------------------------------------------------

    def _runs(self, offset: int, end: int) -> list[tuple[int, int, int]]:
        """Return (start, end, state) in bytes that cover [offset, end)."""
        if offset >= end:
            return []
        block = self._block
        with self._map_lock:
            runs = list(self._map.runs(offset // block, ceil_div(end, block)))
        return [(max(low * block, offset), min(high * block, end), state) for low, high, state in runs]

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        end = offset + total(buffers)
        cutter = Cutter(buffers)
        with self._ranges.shared(offset, end):
            for low, high, state in self._runs(offset, end):
                views = cutter.take(high - low)
                if state == _TOP:
                    self._top.read_into(low, *views)
                elif state == _BASE:
                    self._base.read_into(low, *views)
                else:
                    for view in views:
                        clear(view)

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        end = offset + total(buffers)
        cutter = Cutter(buffers)
        with self._ranges.shared(offset, end):
            for low, high, state in self._runs(offset, end):
                views = cutter.take(high - low)
                if state == _ZERO:
                    for view in views:
                        clear(view)
                elif not (self._top if state == _TOP else self._base).read_ready(low, *views):
                    return False
        return True

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        for low, high, state in self._runs(offset, offset + length):
            if state == _TOP:
                yield from self._top.extents(low, high - low)
            elif state == _BASE:
                yield from self._base.extents(low, high - low)
            else:
                yield Extent(low, high - low, HOLE | ZERO)

    def _prefetch(self, offset: int, length: int) -> None:
        for low, high, state in self._runs(offset, offset + length):
            if state != _ZERO:
                (self._top if state == _TOP else self._base).prefetch(low, high - low)

    def _cancel(self) -> None:
        self._base.cancel()
        self._top.cancel()

    # -- writing ---------------------------------------------------------------------------------------------

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        length = total(buffers)
        if not length:
            return
        with self._ranges.shared(offset, offset + length):
            if all(state == _TOP for _, _, state in self._runs(offset, offset + length)):
                self._top.write(offset, *buffers, durable=durable)
                return
        start, end = self._blocks_around(offset, offset + length)
        with self._ranges.exclusive(start, end):
            self._write_blocks(offset, length, buffers, durable=durable)

    def _write_blocks(self, offset: int, length: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        """Write with what is missing of the first and the last block before and behind; the range is reserved."""
        end = offset + length
        start, stop = self._blocks_around(offset, end)
        head = self._missing(start, offset)
        tail = self._missing(end, stop)
        self._top.write(offset - len(head), head, *buffers, tail, durable=durable)
        self._set(start, stop, _TOP)

    def _missing(self, low: int, high: int) -> memoryview:
        """Return the part [low, high) of one block as it must be put into the top; empty where it is there."""
        if low >= high or self._state(low) == _TOP:
            return memoryview(b"")
        content = memoryview(bytearray(high - low))
        if self._state(low) == _BASE:
            self._base.read_into(low, content)
        return content

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        """Mark whole blocks as zero; write zeros in the blocks at the edges.

        Not allowed to unmap, the zeros go into the top, so that the space they take is taken.
        """
        if not length:
            return
        end = offset + length
        start, stop = self._blocks_around(offset, end)
        if not may_unmap:
            if fast_only:
                raise NotSupported("zero: an overlay has no faster way of keeping space than writing zeros")
            with self._ranges.exclusive(start, stop):
                for low in range(offset, end, 1 << 24):
                    part = min(1 << 24, end - low)
                    self._write_blocks(low, part, zeros(part), durable=durable)
            return
        with self._ranges.exclusive(start, stop):
            first = start if start == offset else min(end, start + self._block)
            last = max(first, stop if end in (stop, self._size) else align_down(end, self._block))
            for low, high in ((offset, first), (last, end)):
                if low < high and self._state(low) != _ZERO:
                    self._write_blocks(low, high - low, zeros(high - low), durable=durable)
            self._drop(first, min(last, self._size))

    def _drop(self, start: int, end: int) -> None:
        """Make whole blocks zero and give back what the top holds of them. Their content is not needed any more."""
        if start >= end:
            return
        held = [(low, high) for low, high, state in self._runs(start, end) if state == _TOP]
        self._set(start, end, _ZERO)
        if self._top.traits.discard:
            for low, high in held:
                self._top.discard(low, high - low)

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        """Make whole blocks zero and leave the edges."""
        start, end = align_up(offset, self._block), offset + length
        if end != self._size:
            end = align_down(end, self._block)
        if start < end:
            with self._ranges.exclusive(start, end):
                self._drop(start, end)

    def _flush(self) -> None:
        self._ranges.wait_for_earlier()
        self._top.flush()

    def _close(self) -> None:
        if self._owns:
            try:
                self._top.close()
            finally:
                self._base.close()

    # -- the map ---------------------------------------------------------------------------------------------

    def _blocks_around(self, offset: int, end: int) -> tuple[int, int]:
        """Return the blocks that hold the range, the last one cut where the device ends."""
        return align_down(offset, self._block), min(align_up(end, self._block), self._size)

    def _state(self, offset: int) -> int:
        with self._map_lock:
            return self._map[offset // self._block]

    def _set(self, start: int, end: int, state: int) -> None:
        with self._map_lock:
            self._map.set(start // self._block, ceil_div(end, self._block), state)
