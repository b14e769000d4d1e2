"""What a copy has to do, as runs: data to move and zeros to make.

Knows: extents, and which zeros are worth a hole. Refuses to know: how anything is read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.device.extent import DATA, ZERO, Extent, merge
from blockwright.units import KiB, MiB, align_down, align_up

CHUNK: Final = MiB
"""Bytes read and written at once: past the point where a system call's own cost matters, well within the cache."""

MIN_HOLE: Final = 32 * KiB
"""Zeros between data that are worth a hole: shorter ones are copied, for fewer and longer writes."""

_HOLE_OF_ZEROS: Final = bytes(MIN_HOLE)

Ranges = Callable[[], Iterable[tuple[int, int]]]
"""Gives ascending (offset, length) in bytes, each time it is called."""


class Run(NamedTuple):
    """``length`` bytes from ``offset`` on are data, or ``zero``."""

    offset: int
    length: int
    zero: bool


def runs_of(source: BlockDevice, ranges: Ranges | None, *, block: int) -> Iterator[Run]:
    """Yield the runs of ``source``, or of ``ranges`` of it, in ascending order; lazily.

    They begin and end at multiples of ``block``, or where a range does.
    """
    for offset, length in (ranges or whole(source))():
        yield from join(rounded(source.extents(offset, length), block))


def whole(source: BlockDevice) -> Ranges:
    """Return the one range that is all of ``source``."""
    return lambda: ((0, source.size),)


def join(extents: Iterable[Extent]) -> Iterator[Run]:
    """Yield contiguous extents as runs, with short zeros between data counted as data."""
    start = end = gap = -1  # data in [start, end), then ``gap`` zeros that are not told yet
    for offset, length, flags in extents:
        if start < 0:
            start, end, gap = offset, offset, 0
        if not flags & ZERO:
            if gap >= MIN_HOLE or start == end:
                if end > start:
                    yield Run(start, end - start, zero=False)
                if gap:
                    yield Run(end, gap, zero=True)
                start = offset
            gap, end = 0, offset + length
        else:
            gap += length
    if end > start:
        yield Run(start, end - start, zero=False)
    if gap > 0:
        yield Run(end, gap, zero=True)


def rounded(extents: Iterable[Extent], block: int) -> Iterable[Extent]:
    """Return the extents with zeros cut back to whole blocks; what is cut off counts as data."""
    return extents if block == 1 else merge(_cut_back(extents, block))


def _cut_back(extents: Iterable[Extent], block: int) -> Iterator[Extent]:
    for extent in extents:
        low, high = align_up(extent.offset, block), align_down(extent.end, block)
        if not extent.flags & ZERO or low >= high:
            yield extent._replace(flags=DATA)
            continue
        yield Extent(extent.offset, low - extent.offset, DATA)
        yield Extent(low, high - low, extent.flags)
        yield Extent(high, extent.end - high, DATA)


def without_zeros(offset: int, data: bytearray, length: int, *, block: int = 1) -> list[Run]:
    """Return the runs of the first ``length`` bytes of ``data``, which belong at ``offset``."""
    step = max(MIN_HOLE, block)
    zeros = _HOLE_OF_ZEROS if step == MIN_HOLE else bytes(step)
    found: list[Run] = []
    for position in range(0, length, step):
        part = min(step, length - position)
        zero = part == step and data.startswith(zeros, position)
        if found and found[-1].zero == zero:
            found[-1] = found[-1]._replace(length=found[-1].length + part)
        else:
            found.append(Run(offset + position, part, zero))
    return found
