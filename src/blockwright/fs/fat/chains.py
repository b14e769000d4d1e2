"""The allocation table of a planned volume, computed when it is read.

Every body lies in one run of clusters and the runs follow one another, so the table is the numbers that follow
each cluster, except at the last of each run. Memory follows the number of bodies, not of clusters.

Knows: entries of 12, 16 and 32 bits. Refuses to know: what the bodies are.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from typing import Final

from blockwright.fs.fat import layout

_CODES: Final = {12: "H", 16: "H", 32: "I"}


class ChainSource:
    """Fills buffers with the table whose runs end at the clusters ``ends`` (ascending), from cluster 2 on.

    Positions are bytes from the table's start, and lie before the entry behind the last run. ``media`` is the first
    byte.
    """

    def __init__(self, bits: int, ends: array[int], media: int = layout.MEDIA) -> None:
        self._bits = bits
        self._ends = ends
        self._media = media
        self.used_end = ends[-1] + 1 if ends else layout.FIRST_CLUSTER
        self.length = -(-self.used_end * bits // 8)
        self._small = _pack12(self._values(0, self.used_end)) if bits == 12 else b""

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Fill the buffer from byte ``offset`` of the table on."""
        if self._bits == 12:
            buffer[:] = self._small[offset : offset + len(buffer)]
            return
        width = self._bits // 8
        first, end = offset // width, -(-(offset + len(buffer)) // width)
        values = self._values(first, end)
        if sys.byteorder == "big":
            values.byteswap()
        skip = offset - first * width
        buffer[:] = values.tobytes()[skip : skip + len(buffer)]

    def _values(self, first: int, end: int) -> array[int]:
        """Return the entries of the clusters from ``first`` to before ``end``."""
        mask = layout.MASK[self._bits]
        # The highest number would not fit 16 bits; it belongs to the last cluster, which ends a run.
        values = array(_CODES[self._bits], range(first + 1, end))
        values.append(end & mask)
        ends = self._ends
        for index in range(bisect_left(ends, first), len(ends)):
            if ends[index] >= end:
                break
            values[ends[index] - first] = mask
        if first == 0:
            values[0] = mask & ~0xFF | self._media
        if first <= 1 < end:
            values[1 - first] = mask
        return values


def _pack12(values: array[int]) -> bytes:
    """Return entries of 12 bits, two in three bytes."""
    packed = bytearray()
    for index in range(0, len(values), 2):
        pair = values[index] | (values[index + 1] if index + 1 < len(values) else 0) << 12
        packed += pair.to_bytes(3, "little")
    return bytes(packed)
