"""Contents one behind the other, as one.

Knows: positions. Refuses to know: what the parts are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import accumulate

from blockwright.device.base import Backing
from blockwright.device.planned import BackedSource
from blockwright.tree.content import Content, Runs


class JoinedContent(Content):
    """The bytes of all parts, in their order; holes of a part are holes of the whole."""

    __slots__ = ("_parts", "_starts")

    def __init__(self, parts: Sequence[Content]) -> None:
        self._parts = [part for part in parts if part.size]
        ends = list(accumulate(part.size for part in self._parts))
        self._starts = [0, *ends[:-1]]
        super().__init__(ends[-1] if ends else 0)

    def runs(self) -> Runs:
        """Return the runs of every part; those that touch are one."""
        found: list[tuple[int, int]] = []
        for start, part in zip(self._starts, self._parts, strict=False):
            for offset, length in part.runs():
                if found and sum(found[-1]) == start + offset:
                    found[-1] = found[-1][0], found[-1][1] + length
                else:
                    found.append((start + offset, length))
        return found

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Read from each part that the range touches."""
        index = max(0, bisect_right(self._starts, offset) - 1)
        done = 0
        while done < len(buffer):
            part, within = self._parts[index], offset + done - self._starts[index]
            length = min(part.size - within, len(buffer) - done)
            part.read_into(within, buffer[done : done + length])
            done += length
            index += 1

    def backing(self, offset: int, length: int, /) -> Backing:
        """Answer as the part does that holds the whole range."""
        index = max(0, bisect_right(self._starts, offset) - 1)
        if index < len(self._parts):
            part, within = self._parts[index], offset - self._starts[index]
            if within + length <= part.size and isinstance(part, BackedSource):
                return part.backing(within, length)
        return nullcontext(None)
