"""Runs side by side on a line: to scale, but for those that would not be seen.

Knows: widths. Refuses to know: units of any drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from blockwright.draw.picture import Bin, Part


@dataclass(frozen=True, slots=True)
class Scale:
    """Where each part lies on a line from 0 to ``length``; ``exact`` says that all are to scale."""

    parts: tuple[Part, ...]
    edges: tuple[float, ...]
    exact: bool

    @classmethod
    def of(cls, parts: Sequence[Part], length: float, least: float) -> Scale:
        """Return parts on a line, each at least ``least`` wide where it has any bytes; the others make room."""
        widths = shares([part.shown for part in parts], length, least)
        total = sum(part.shown for part in parts) or 1
        exact = all(abs(width - part.shown * length / total) < 0.5 for part, width in zip(parts, widths, strict=True))
        return cls(tuple(parts), (0.0, *accumulate(widths)), exact)

    def place(self, offset: int) -> float:
        """Return where a byte of the disk lies on the line."""
        for part, low, high in zip(self.parts, self.edges, self.edges[1:], strict=False):
            start = part.start + part.size - part.shown
            if part.shown and offset < start + part.shown:
                return low + (high - low) * max(0, offset - start) / part.shown
        return self.edges[-1]


def shares(sizes: Sequence[int], length: float, least: float) -> list[float]:
    """Return ``length`` dealt out by size, at least ``least`` for each that is not 0 where that can be."""
    live = [index for index, size in enumerate(sizes) if size]
    widths = [0.0] * len(sizes)
    if not live:
        return widths
    least = min(least, length / len(live))
    small: set[int] = set()
    while True:
        rest = length - least * len(small)
        total = sum(sizes[index] for index in live if index not in small)
        more = {index for index in live if index not in small and sizes[index] * rest < least * total}
        if not more:
            break
        small |= more
    for index in live:
        widths[index] = least if index in small else sizes[index] * rest / total
    return widths


def whole_shares(sizes: Sequence[int], length: int, least: int) -> list[int]:
    """Return the same in whole cells, which add up to ``length`` where there is room for all."""
    widths = shares(sizes, length, least)
    edges = [round(each) for each in accumulate(widths, initial=0.0)]
    found = [high - low for low, high in pairwise(edges)]
    return [max(1, each) if size else 0 for each, size in zip(found, sizes, strict=True)]


def resample(bins: Sequence[Bin], count: int) -> list[Bin]:
    """Return the same run in ``count`` bins: what falls on an edge is divided."""
    if not bins or count <= 0:
        return [Bin()] * max(0, count)
    found = []
    for index in range(count):
        low, high = index * len(bins) / count, (index + 1) * len(bins) / count
        sums = [0.0] * 4
        for each in range(int(low), min(len(bins), int(-(-high // 1)))):
            share = min(high, each + 1) - max(low, each)
            for kind, value in enumerate(bins[each]):
                sums[kind] += value * share
        found.append(Bin(*map(round, sums)))
    return found
