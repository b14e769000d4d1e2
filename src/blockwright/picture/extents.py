"""Which bytes of a device are data, zeros and holes, in few numbers however many extents there are.

Knows: adding up. Refuses to know: what the runs are of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.device.extent import HOLE, ZERO
from blockwright.draw.picture import Bin
from blockwright.units import ceil_div

MAX_EXTENTS: Final = 1 << 20
"""Extents that one picture asks for; what lies behind them is told as unknown."""
COLUMNS: Final = 480
"""Bins of a whole disk, about: each part has its share of them, and a few at least."""
_LEAST: Final = 4


class Extents:
    """Asks a device for extents, up to MAX_EXTENTS of them in all."""

    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self._left = MAX_EXTENTS

    def bins(self, start: int, size: int) -> tuple[Bin, ...]:
        """Return a run of the device in bins of one length, but for the last."""
        if size <= 0:
            return ()
        wanted = max(_LEAST, ceil_div(size * COLUMNS, max(1, self._device.size)))
        width = ceil_div(size, min(size, wanted))
        count = ceil_div(size, width)
        sums = [[0, 0, 0] for _ in range(count)]
        for low, high, kind in self._kinds(start, size):
            position = low
            while position < high:
                index = position // width
                end = min(high, (index + 1) * width)
                sums[index][kind] += end - position
                position = end
        found = []
        for index, (data, zero, hole) in enumerate(sums):
            length = min(size, (index + 1) * width) - index * width
            found.append(Bin(data, zero, hole, length - data - zero - hole))
        return tuple(found)

    def _kinds(self, start: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Yield runs, counted from ``start``, with 0 for data, 1 for zeros, 2 for holes."""
        if not self._left:
            return
        for extent in self._device.extents(start, size):
            kind = 2 if extent.flags & HOLE else 1 if extent.flags & ZERO else 0
            yield extent.offset - start, extent.end - start, kind
            self._left -= 1
            if not self._left:
                return
