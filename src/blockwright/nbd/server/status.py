"""Block status: a context's extents as they are told to a client.

Knows: limits and alignment of what is told. Refuses to know: where extents come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from blockwright.device.extent import Extent, merge
from blockwright.units import align_down

MAX_TOLD: Final = 16384
"""Extents of one reply; the document allows 2**20, and a client asks on behind the last one."""

_MAX_32: Final = (1 << 32) - 1


def told(extents: Iterable[Extent], *, block: int, one: bool, wide: bool) -> list[tuple[int, int]]:
    """Return (length, flags) of as many extents as one reply may tell: the first one only where ``one``.

    Without ``wide`` a length has 32 bits, and a longer extent becomes several of whole blocks.
    """
    found: list[tuple[int, int]] = []
    longest = 1 << 64 if wide else align_down(_MAX_32, block)
    for extent in extents:
        length = extent.length
        while length:
            part = min(length, longest)
            found.append((part, extent.flags))
            length -= part
            if one or len(found) == MAX_TOLD:
                return found
    return found


def whole_blocks(extents: Iterable[Extent], start: int, end: int, block: int) -> Iterator[Extent]:
    """Yield extents that begin and end at multiples of ``block`` from ``start`` on, the last one at ``end``.

    A block that several extents share has the flags that all of them have: DATA where they differ in all.
    """
    return merge(_cut(extents, start, end, block)) if block > 1 else iter(extents)


def _cut(extents: Iterable[Extent], start: int, end: int, block: int) -> Iterator[Extent]:
    position = start  # what lies before is told
    shared: int | None = None  # flags of the block at ``position``, of which a part was seen
    for extent in extents:
        stop = extent.end
        if shared is not None:
            shared &= extent.flags
            border = min(position + block, end)
            if stop < border:
                continue
            yield Extent(position, border - position, shared)
            position, shared = border, None
        whole = stop if stop >= end else align_down(stop, block)
        if whole > position:
            yield Extent(position, whole - position, extent.flags)
            position = whole
        if stop > position:
            shared = extent.flags
    if position < end:
        yield Extent(position, end - position, shared or 0)
