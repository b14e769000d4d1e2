"""Extents: which runs of a device are data, holes or zeros.

Knows: the shape of an extent and how runs are merged and clipped. Refuses to know: where they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

DATA: Final = 0
"""No flag: the run may hold anything. Always a legal answer."""
HOLE: Final = 1
"""Not allocated where the device lives. The same bit as NBD's NBD_STATE_HOLE."""
ZERO: Final = 2
"""Reads as zeros. The same bit as NBD's NBD_STATE_ZERO; set only where certain."""


class Extent(NamedTuple):
    """``length`` bytes from ``offset`` on share ``flags``: DATA, or HOLE and ZERO together or alone."""

    offset: int
    length: int
    flags: int

    @property
    def end(self) -> int:
        """The first byte behind the extent."""
        return self.offset + self.length


def merge(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Yield ascending, contiguous extents with equal neighbours joined and empty ones dropped."""
    offset = length = flags = 0
    for extent in extents:
        if not extent.length:
            continue
        if length and extent.flags == flags and extent.offset == offset + length:
            length += extent.length
            continue
        if length:
            yield Extent(offset, length, flags)
        offset, length, flags = extent
    if length:
        yield Extent(offset, length, flags)


def clip(extents: Iterable[Extent], start: int, end: int) -> Iterator[Extent]:
    """Yield the parts of ascending extents that lie in [start, end)."""
    for extent in extents:
        if extent.offset >= end:
            return
        low, high = max(extent.offset, start), min(extent.end, end)
        if low < high:
            yield Extent(low, high - low, extent.flags)


def shift(extents: Iterable[Extent], distance: int) -> Iterator[Extent]:
    """Yield the extents moved by ``distance`` bytes."""
    for offset, length, flags in extents:
        yield Extent(offset + distance, length, flags)
