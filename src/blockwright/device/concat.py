"""Several devices as one, each at an offset of its own; what lies between them is a hole.

A planned disk is one: a table, partitions, and the table's copy behind them.

Knows: where each part begins. Refuses to know: what the parts are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext

from blockwright.device.base import Backing, BlockDevice, Traits, Waits
from blockwright.device.extent import HOLE, ZERO, Extent, shift
from blockwright.device.vector import Cutter, clear
from blockwright.errors import Misaligned, NotSupported, OutOfRange
from blockwright.units import KiB


class Concat(BlockDevice):
    """The devices of ``parts``, each at its offset in bytes; the bytes between and behind them read as zeros.

    ``size`` defaults to the end of the last part. Writable where every part is and nothing lies between them.
    Parts may come in any order; raises OutOfRange where they overlap or reach past ``size``, Misaligned where an
    offset is no multiple of the largest minimum block. Closes the parts too unless ``owns`` is False.
    """

    def __init__(
        self, parts: Iterable[tuple[int, BlockDevice]], size: int | None = None, *, owns: bool = True
    ) -> None:
        given = list(parts)
        ordered = sorted(((offset, part) for offset, part in given if part.size), key=lambda item: item[0])
        end, gaps = 0, False
        for offset, part in ordered:
            if offset < end:
                raise OutOfRange(f"concatenation: expected a part from byte {end} on, found one at {offset}")
            gaps |= offset > end
            end = offset + part.size
        if size is not None and size < end:
            raise OutOfRange(f"concatenation: expected parts that end by byte {size}, found an end at {end}")
        size = end if size is None else size
        traits = _intersect([part.traits for _, part in ordered], writable=not gaps and end == size)
        if any(offset % traits.minimum_block for offset, _ in ordered) or size % traits.minimum_block:
            raise Misaligned(f"concatenation: expected offsets that are multiples of {traits.minimum_block} bytes")
        super().__init__(size, traits)
        self._starts = [offset for offset, _ in ordered]
        self._parts = [part for _, part in ordered]
        self._owned = [part for _, part in given] if owns else []

    @classmethod
    def of(cls, *devices: BlockDevice, owns: bool = True) -> Concat:
        """Return the devices one directly behind the other."""
        parts, offset = [], 0
        for device in devices:
            parts.append((offset, device))
            offset += device.size
        return cls(parts, owns=owns)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[BlockDevice | None, int, int]]:
        """Yield (part or None for a hole, offset within it, length), ascending, covering the range."""
        end = offset + length
        index = max(0, bisect_right(self._starts, offset) - 1)
        while offset < end:
            if index == len(self._parts):
                yield None, 0, end - offset
                return
            start, part = self._starts[index], self._parts[index]
            if offset < start:
                stop = min(start, end)
                yield None, 0, stop - offset
            else:
                stop = max(offset, min(start + part.size, end))
                if stop > offset:
                    yield part, offset - start, stop - offset
                index += 1
            offset = stop

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        cutter = Cutter(buffers)
        for part, within, length in self._pieces(offset, sum(map(len, buffers))):
            views = cutter.take(length)
            if part is not None:
                part.read_into(within, *views)
            else:
                for view in views:
                    clear(view)

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        cutter = Cutter(buffers)
        for part, within, length in self._writable(offset, sum(map(len, buffers))):
            part.write(within, *cutter.take(length), durable=durable)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        """Zero each part. ``fast_only`` takes one: a second could refuse when the first has changed."""
        pieces = list(self._writable(offset, length))
        if fast_only and len(pieces) > 1:
            raise NotSupported(f"zero: expected a range within one part, found {len(pieces)} parts")
        for part, within, count in pieces:
            part.zero(within, count, may_unmap=may_unmap, fast_only=fast_only, durable=durable)

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        for part, within, count in self._writable(offset, length):
            part.discard(within, count, durable=durable)

    def _writable(self, offset: int, length: int) -> Iterator[tuple[BlockDevice, int, int]]:
        for part, within, count in self._pieces(offset, length):
            assert part is not None, "a concatenation with holes is read-only"
            yield part, within, count

    def _flush(self) -> None:
        for part in self._parts:
            part.flush()

    def _begin_flush(self) -> None:
        for part in self._parts:
            part.begin_flush()

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        for part, within, count in self._pieces(offset, length):
            if part is None:
                yield Extent(offset, count, HOLE | ZERO)
            else:
                yield from shift(part.extents(within, count), offset - within)
            offset += count

    def _prefetch(self, offset: int, length: int) -> None:
        for part, within, count in self._pieces(offset, length):
            if part is not None:
                part.prefetch(within, count)

    def _cancel(self) -> None:
        for part in self._parts:
            part.cancel()

    def _backing(self, offset: int, length: int) -> Backing:
        """Answer for the part that holds the first byte."""
        for part, within, count in self._pieces(offset, length):
            return nullcontext(None) if part is None else part.backing(within, count)
        return nullcontext(None)

    def _close(self) -> None:
        with ExitStack() as open_parts:  # each is closed, whatever closing another raises
            for part in reversed(self._owned):
                open_parts.enter_context(part)


def _intersect(traits: Sequence[Traits], *, writable: bool) -> Traits:
    """Return what all of them can."""
    writable = writable and bool(traits) and all(each.writable for each in traits)
    return Traits(
        writable=writable,
        discard=writable and any(each.discard for each in traits),
        fast_zero=writable and all(each.fast_zero for each in traits),
        fua=writable and all(each.fua for each in traits),
        parallelism=min((each.parallelism for each in traits), default=8),
        minimum_block=max((each.minimum_block for each in traits), default=1),
        preferred_block=max((each.preferred_block for each in traits), default=4 * KiB),
        maximum_block=min((each.maximum_block for each in traits), default=1 << 62),
        waits=max((each.waits for each in traits), default=Waits.NEVER),
        known_extents=all(each.known_extents for each in traits),
    )
