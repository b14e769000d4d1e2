"""Room for what is new in an extent: behind all that is there, and where something was to go that failed.

Knows: which bytes nothing refers to. Refuses to know: what they are for.
"""

from __future__ import annotations

from bisect import insort
from itertools import pairwise


class Room:
    """Room from ``end`` on. What was taken and given back is taken before that. Its caller has a lock around all."""

    def __init__(self, end: int) -> None:
        self.end = end
        self._spare: list[tuple[int, int]] = []

    def spare(self, length: int) -> int | None:
        """Take ``length`` bytes of what was given back before ``end``; None where there are not as many in a row."""
        for index, (start, end) in enumerate(self._spare):
            if end - start >= length:
                self._spare[index : index + 1] = [(start + length, end)] if end - start > length else []
                return start
        return None

    def give_back(self, start: int, length: int) -> None:
        """Take back what was taken, to which nothing has ever referred."""
        insort(self._spare, (start, start + length))
        merged = [self._spare[0]]
        for (_, end), (first, last) in pairwise(self._spare):
            if first == end:
                merged[-1] = merged[-1][0], last
            else:
                merged.append((first, last))
        if merged[-1][1] == self.end:
            self.end = merged.pop()[0]
        self._spare = merged
