"""Sizes and alignment become positions: where each partition of a new disk lies, and how large the disk is.

Knows: arithmetic over requests, the same for every kind of table. Refuses to know: what a table looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from blockwright.errors import NoSpace, UsageError
from blockwright.units import MAX_SIZE, MiB, align_down, align_up

ALIGNMENT: Final = MiB
"""Where partitions start by default: a multiple of every erase block, stripe and sector size in use."""


@dataclass(frozen=True, slots=True)
class Space:
    """What a partition asks for: at least ``size`` bytes, and with ``remaining`` a share of all that is left.

    A size that follows from content is computed by the caller: that makes it a fixed one here. ``start`` pins the
    first byte. ``what`` names the partition in messages.
    """

    what: str
    size: int
    remaining: bool = False
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """The (start, size) of each request in bytes, in their order, and the size of the whole disk."""

    runs: tuple[tuple[int, int], ...]
    size: int


def place(
    spaces: Sequence[Space],
    *,
    front: int,
    back: int,
    sector_size: int,
    size: int | None = None,
    alignment: int = ALIGNMENT,
) -> Placement:
    """Return where the requests lie: in order, each start and size a multiple of ``alignment``.

    The table itself takes the first ``front`` and the last ``back`` bytes. Without ``size`` the disk is as small as
    it can be, a multiple of ``alignment``. With it, a pinned or exactly fitting partition may end anywhere on a
    sector before the table behind. What is left goes in equal shares to the requests with ``remaining``.

    Raises NoSpace with both numbers; UsageError for a size or alignment that is no multiple of the sector.
    """
    _check_arguments(spaces, sector_size, size, alignment)
    runs, end = _pack(spaces, front, sector_size, alignment)
    if size is None:
        return Placement(tuple(runs), align_up(max(end, front) + back, alignment))
    limit = align_down(size - back, sector_size)
    if end > limit:
        # Rounding the last size up may be what does not fit, and is a wish only.
        runs, end = _trim(spaces, runs, sector_size)
    if end > limit or limit < front:
        need = max(end, front) + back
        raise NoSpace(f"disk: the partitions need {need} bytes with the table around them, found a size of {size}")
    growing = [index for index, space in enumerate(spaces) if space.remaining]
    if growing:
        runs = _share(spaces, runs, growing, limit, alignment)
    return Placement(tuple(runs), size)


def _check_arguments(spaces: Sequence[Space], sector_size: int, size: int | None, alignment: int) -> None:
    if alignment <= 0 or alignment % sector_size:
        raise UsageError(f"alignment: expected a multiple of the sector size {sector_size}, found {alignment}")
    if size is not None and (size % sector_size or not 0 < size <= MAX_SIZE):
        raise UsageError(f"disk: expected a size of one or more sectors of {sector_size} bytes, found {size}")
    for space in spaces:
        if not 0 <= space.size <= MAX_SIZE:
            raise UsageError(f"{space.what}: expected a size from 0 to {MAX_SIZE} bytes, found {space.size}")
        if space.start is not None and (space.start < 0 or space.start % sector_size):
            raise UsageError(
                f"{space.what}: expected a start that is a multiple of {sector_size} bytes, found {space.start}"
            )


def _pack(spaces: Sequence[Space], front: int, sector_size: int, alignment: int) -> tuple[list[tuple[int, int]], int]:
    """Place every request at its smallest, one behind the other; answer with the first free byte too."""
    runs = []
    end = front
    for space in spaces:
        start = align_up(end, alignment) if space.start is None else space.start
        if start < end:
            raise NoSpace(f"{space.what}: expected to start at byte {end} or later, found {start}")
        step = sector_size if start % alignment else alignment
        length = max(align_up(space.size, step), step)
        runs.append((start, length))
        end = start + length
    return runs, end


def _trim(
    spaces: Sequence[Space], runs: list[tuple[int, int]], sector_size: int
) -> tuple[list[tuple[int, int]], int]:
    """Give back what rounding added to the last partition."""
    if not runs:
        return runs, 0
    start, _ = runs[-1]
    length = max(align_up(spaces[-1].size, sector_size), sector_size)
    return [*runs[:-1], (start, length)], start + length


def _share(
    spaces: Sequence[Space], runs: list[tuple[int, int]], growing: list[int], limit: int, alignment: int
) -> list[tuple[int, int]]:
    """Divide what is left between the growing requests and move what lies behind each.

    A pinned start is a wall: what grows before it grows up to it, and no further. Sizes grow in steps of the
    alignment; what the division leaves over goes to the last.
    """
    result = list(runs)
    walls = [index for index, space in enumerate(spaces) if space.start is not None and index]
    bounds = [0, *walls, len(spaces)]
    for low, high in pairwise(bounds):
        members = [index for index in growing if low <= index < high]
        if not members:
            continue
        wall = limit if high == len(spaces) else runs[high][0]
        steps = (wall - sum(runs[high - 1])) // alignment
        moved = 0
        for index in range(low, high):
            start, length = result[index]
            extra = 0
            if index in members:
                extra = steps // len(members) + (steps % len(members) if index == members[-1] else 0)
            result[index] = (start + moved, length + extra * alignment)
            moved += extra * alignment
    return result
