"""Where there is room on a disk that has partitions already, and which of it a new one takes.

Knows: runs of bytes, alignment. Refuses to know: what a table looks like, and what lies in the runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from blockwright.errors import NoSpace, UsageError
from blockwright.units import MiB, align_down, align_up

Run = tuple[int, int]
"""The first byte, and the first one behind."""

ALIGNMENT: Final = MiB


@dataclass(frozen=True, slots=True)
class Wish:
    """Where a partition is wanted, in bytes: ``size`` None for all that is left, ``start`` None for wherever.

    A start that is given need not be aligned.
    """

    size: int | None = None
    start: int | None = None
    alignment: int = ALIGNMENT


def free_runs(low: int, high: int, taken: Iterable[Run]) -> list[Run]:
    """Return the runs of [``low``, ``high``) that none of ``taken`` touches, ascending."""
    found, position = [], low
    for start, end in sorted(taken):
        if start > position:
            found.append((position, min(start, high)))
        position = max(position, end)
    if high > position:
        found.append((position, high))
    return [(start, end) for start, end in found if end > start]


def choose(runs: Sequence[Run], wish: Wish, sector_size: int) -> Run:
    """Return the run that the wish gets of the free ``runs``: whole sectors.

    With a size, the first place where it fits from an aligned byte on; without, the largest, its end aligned too
    where that leaves anything. Raises NoSpace with both numbers; UsageError for what is no whole sector.
    """
    _check(wish, sector_size)
    if wish.start is not None:
        return _at(runs, wish, wish.start, sector_size)
    places = [(align_up(start, wish.alignment), end) for start, end in runs]
    lengths = [align_down(end, sector_size) - start for start, end in places]
    largest = max(lengths, default=0)
    if wish.size is None:
        if largest <= 0:
            raise NoSpace(f"table: expected free room that begins at a multiple of {wish.alignment}, found none")
        start, end = places[lengths.index(largest)]
        return start, _rounded(start, end, wish.alignment, sector_size)
    for (start, _), length in zip(places, lengths, strict=True):
        if length >= wish.size:
            return start, start + wish.size
    raise NoSpace(f"table: expected {wish.size} free bytes in one piece, found {max(largest, 0)}")


def _at(runs: Sequence[Run], wish: Wish, start: int, sector_size: int) -> Run:
    for low, high in runs:
        if low <= start < high:
            room = align_down(high, sector_size) - start
            if wish.size is None:
                return start, _rounded(start, high, wish.alignment, sector_size)
            if wish.size > room:
                raise NoSpace(f"table: expected {wish.size} free bytes from byte {start} on, found {room}")
            return start, start + wish.size
    raise NoSpace(f"table: expected free room at byte {start}, found a partition, the table or the end of the disk")


def grown(runs: Sequence[Run], end: int) -> int:
    """Return how far what ends at byte ``end`` can grow: to the end of the free run behind it."""
    return next((high for low, high in runs if low == end), end)


def _rounded(start: int, end: int, alignment: int, sector_size: int) -> int:
    """Return the end, aligned where a part is left then."""
    aligned = align_down(end, alignment)
    return aligned if aligned > start else align_down(end, sector_size)


def _check(wish: Wish, sector_size: int) -> None:
    if wish.alignment <= 0 or wish.alignment % sector_size:
        raise UsageError(f"alignment: expected a multiple of the sector size {sector_size}, found {wish.alignment}")
    for what, value, least in (("start", wish.start, 0), ("size", wish.size, 1)):
        if value is not None and (value % sector_size or value < least):
            raise UsageError(f"partition {what}: expected a multiple of {sector_size} bytes, found {value}")
