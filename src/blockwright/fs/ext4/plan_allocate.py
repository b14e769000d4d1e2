"""Which blocks go to whom: ascending, without gaps, around the zones that metadata holds.

A run is cut only where a zone stands in its way, so nothing is left behind and a file is in as few pieces as its
place allows.

Knows: block numbers. Refuses to know: what they are for.
"""

from __future__ import annotations

from blockwright.errors import NoSpace
from blockwright.fs.ext4.plan_geometry import Zone

Pieces = list[tuple[int, int]]
"""Ascending (first block, blocks)."""


class Allocator:
    """Hands out the blocks of [start, end) that lie in no zone, each once, in ascending order."""

    __slots__ = ("_gap", "_gaps", "cursor", "gap_end")

    def __init__(self, zones: list[Zone], start: int, end: int) -> None:
        gaps, position = [], start
        for low, high in zones:
            if low > position:
                gaps.append((position, min(low, end)))
            position = max(position, high)
            if position >= end:
                break
        if position < end:
            gaps.append((position, end))
        self._gaps = gaps
        self._gap = 0
        self.cursor, self.gap_end = gaps[0] if gaps else (end, end)

    @property
    def gaps(self) -> int:
        """Into how many runs what there was at first is cut."""
        return len(self._gaps)

    def take(self, count: int) -> Pieces:
        """Return the next ``count`` blocks. Raises NoSpace when there are not as many."""
        start = self.cursor
        if count <= self.gap_end - start:
            self.cursor = start + count
            return [(start, count)] if count else []
        pieces: Pieces = []
        while count:
            self._ensure()
            part = min(count, self.gap_end - self.cursor)
            pieces.append((self.cursor, part))
            self.cursor += part
            count -= part
        return pieces

    def take_one(self) -> int:
        """Return the next block. Raises NoSpace."""
        self._ensure()
        self.cursor += 1
        return self.cursor - 1

    def _ensure(self) -> None:
        while self.cursor == self.gap_end:
            self._advance()

    def _advance(self) -> None:
        if self._gap + 1 >= len(self._gaps):
            raise NoSpace("ext4: the content does not fit the size: no block is left")
        self._gap += 1
        self.cursor, self.gap_end = self._gaps[self._gap]

    def remaining(self) -> int:
        """Return how many blocks are left."""
        rest = self._gaps[self._gap + 1 :]
        return self.gap_end - self.cursor + sum(end - start for start, end in rest)

    def free(self) -> list[Zone]:
        """Return the zones that are left, ascending."""
        rest = [(self.cursor, self.gap_end), *self._gaps[self._gap + 1 :]]
        return [(start, end) for start, end in rest if start < end]
