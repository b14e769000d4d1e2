"""Who uses which blocks: runs with owners, what is claimed twice, and bitmaps of it all.

Knows: runs of numbers. Refuses to know: what the numbers stand for (blocks, or clusters with bigalloc).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple


class Overlap(NamedTuple):
    """``units`` units from ``start`` on are claimed by both owners."""

    start: int
    units: int
    first: int
    second: int


class Claims:
    """Runs of units with the number of their owner, in the order they were claimed."""

    __slots__ = ("_counts", "_owners", "_sorted", "_starts")

    def __init__(self) -> None:
        self._starts = array("Q")
        self._counts = array("Q")
        self._owners = array("Q")
        self._sorted = True

    def add(self, start: int, count: int, owner: int) -> None:
        """Say that ``owner`` uses ``count`` units from ``start`` on."""
        if self._starts:
            end = self._starts[-1] + self._counts[-1]
            if start == end and owner == self._owners[-1]:
                self._counts[-1] += count
                return
            if start < end:
                self._sorted = False
        self._starts.append(start)
        self._counts.append(count)
        self._owners.append(owner)

    def sort(self) -> None:
        """Bring the runs into ascending order."""
        if not self._sorted:
            order = sorted(range(len(self._starts)), key=self._starts.__getitem__)
            self._starts = array("Q", [self._starts[i] for i in order])
            self._counts = array("Q", [self._counts[i] for i in order])
            self._owners = array("Q", [self._owners[i] for i in order])
            self._sorted = True

    def overlaps(self) -> Iterator[Overlap]:
        """Yield what is claimed more than once, ascending."""
        self.sort()
        end, owner = 0, 0
        for start, count, second in zip(self._starts, self._counts, self._owners, strict=True):
            if start < end:
                yield Overlap(start, min(end, start + count) - start, owner, second)
            if start + count > end:
                end, owner = start + count, second

    def contains(self, unit: int) -> bool:
        """Whether somebody claims the unit; the runs must not overlap."""
        self.sort()
        index = bisect_right(self._starts, unit) - 1
        return index >= 0 and unit < self._starts[index] + self._counts[index]

    def merged(self) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of the runs of claimed units, ascending, each unit once."""
        self.sort()
        low = high = -1
        for start, count in zip(self._starts, self._counts, strict=True):
            if start <= high:
                high = max(high, start + count)
                continue
            if high > low:
                yield low, high
            low, high = start, start + count
        if high > low:
            yield low, high

    def in_clusters(self, ratio: int, first: int) -> Claims:
        """Return the same claims in clusters of ``ratio`` blocks from block ``first`` on, each cluster once."""
        found = Claims()
        end = 0
        for low, high in self.merged():
            start, stop = max(end, (low - first) // ratio), -(-(high - first) // ratio)
            if start < stop:
                found.add(start, stop - start, 0)
                end = stop
        return found


def set_bits(bitmap: bytearray, start: int, count: int) -> None:
    """Set ``count`` bits from ``start`` on; bit 0 is the lowest of byte 0."""
    end = start + count
    first, last = start >> 3, end >> 3
    if first == last:
        bitmap[first] |= (1 << (end & 7)) - (1 << (start & 7)) & 0xFF
        return
    if start & 7:
        bitmap[first] |= 0xFF << (start & 7) & 0xFF
        first += 1
    bitmap[first:last] = b"\xff" * (last - first)
    if end & 7:
        bitmap[last] |= (1 << (end & 7)) - 1
