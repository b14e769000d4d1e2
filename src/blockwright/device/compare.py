"""Compares two devices byte for byte, without reading what both know to be zeros.

Knows: extents and equality. Refuses to know: what a difference means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.device.copy_runs import rounded
from blockwright.device.extent import ZERO, Extent
from blockwright.units import KiB, MiB, align_down

CHUNK: Final = MiB
BLOCK: Final = 4 * KiB

_ZEROS: Final = bytes(CHUNK)


class Difference(NamedTuple):
    """``length`` bytes from ``offset`` on are not the same in both."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first byte behind the difference."""
        return self.offset + self.length


def compare(a: BlockDevice, b: BlockDevice, *, progress: Callable[[int, int], None] | None = None) -> int | None:
    """Return the first byte at which the devices differ, or None where they are equal.

    Where one is longer and the rest is equal, that is the first byte behind the shorter one.
    """
    for found in differences(a, b, block=1, progress=progress):
        return found.offset
    return None


def differences(
    a: BlockDevice, b: BlockDevice, *, block: int = BLOCK, progress: Callable[[int, int], None] | None = None
) -> Iterator[Difference]:
    """Yield ascending ranges that differ, in whole multiples of ``block`` bytes, neighbours joined; lazily.

    What only the longer device has is a difference. ``progress(done, total)`` is called as bytes are compared.
    """
    start = end = 0
    for low, high in _unequal(a, b, block, progress):
        if low > end:
            if end > start:
                yield Difference(start, end - start)
            start = low
        end = high
    if end > start:
        yield Difference(start, end - start)


def _unequal(
    a: BlockDevice, b: BlockDevice, block: int, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of unequal blocks, ascending."""
    common, total = min(a.size, b.size), max(a.size, b.size)
    chunk = max(block, align_down(CHUNK, block))
    left, right = bytearray(chunk), bytearray(chunk)
    step = max(a.traits.minimum_block, b.traits.minimum_block)
    told = (rounded(each.extents(0, common), step) for each in (a, b))
    for offset, length, a_zero, b_zero in _paired(*told):
        position, end = offset, offset + length
        while position < end and not (a_zero and b_zero):
            part = min(chunk - position % chunk, end - position)
            ours = _contents(a, position, left, part, zero=a_zero)
            theirs = _contents(b, position, right, part, zero=b_zero)
            if ours != theirs:
                for low, high in _narrow(ours, theirs, position, block):
                    yield low, min(high, total)
            position += part
            if progress is not None:
                progress(position, total)
        if progress is not None:
            progress(end, total)
    if common < total:
        yield common, total


def _contents(device: BlockDevice, offset: int, buffer: bytearray, length: int, *, zero: bool) -> bytes | bytearray:
    """Return the bytes, in ``buffer`` where that has their length."""
    if zero:
        return _ZEROS if length == len(_ZEROS) else bytes(length)
    target = buffer if length == len(buffer) else bytearray(length)
    device.read_into(offset, target)
    return target


def _narrow(ours: bytes | bytearray, theirs: bytes | bytearray, offset: int, block: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the device's blocks in which the contents differ, halving what is unequal."""
    pending = [(0, len(ours))]
    while pending:
        low, high = pending.pop()
        if ours[low:high] == theirs[low:high]:
            continue
        first, last = (offset + low) // block, (offset + high - 1) // block
        if first == last:
            yield first * block, (first + 1) * block
            continue
        middle = (first + (last - first + 1) // 2) * block - offset
        pending += [(middle, high), (low, middle)]


def _paired(a: Iterable[Extent], b: Iterable[Extent]) -> Iterator[tuple[int, int, bool, bool]]:
    """Yield (offset, length, whether a is zero, whether b is) for runs that lie in one extent of each."""
    rest = iter(b)
    other = next(rest, None)
    for extent in a:
        position = extent.offset
        while position < extent.end and other is not None:
            stop = min(extent.end, other.end)
            yield position, stop - position, bool(extent.flags & ZERO), bool(other.flags & ZERO)
            position = stop
            if stop == other.end:
                other = next(rest, None)
