"""Sizes and alignment become positions: where each partition of a new disk lies, and how large the disk is.

Knows: arithmetic over requests, the same for every kind of table. Refuses to know: what a table looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from blockwright.errors import NoSpace, UsageError
from blockwright.table.shares import MAX_WEIGHT, Share, divide
from blockwright.units import MAX_SIZE, MiB, align_down, align_up

ALIGNMENT: Final = MiB
"""Where partitions start by default: a multiple of every erase block, stripe and sector size in use."""
DEFAULT_WEIGHT: Final = 1000
_NONE: Final[dict[int, tuple[int, int]]] = {}


@dataclass(frozen=True, slots=True)
class Padding:
    """Room that stays free behind a partition: at least ``least`` bytes, at most ``most``, a share by ``weight``."""

    least: int = 0
    most: int | None = None
    weight: int = 0


NO_PADDING: Final = Padding()


@dataclass(frozen=True, slots=True)
class Space:
    """What a partition asks for: at least ``size`` bytes, and with ``remaining`` a share of all that is left.

    A size that follows from content is computed by the caller: that makes it a fixed one here. ``start`` pins the
    first byte. ``what`` names the partition in messages. The share is by ``weight``, and ends at ``most``.
    ``alignment`` is its own where it is coarser than that of all. ``before`` are bytes that stay free in front of it,
    behind the one before: a multiple of the alignment of all.
    """

    what: str
    size: int
    remaining: bool = False
    start: int | None = None
    most: int | None = None
    weight: int = DEFAULT_WEIGHT
    padding: Padding = NO_PADDING
    alignment: int | None = None
    before: int = 0


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
    sector before the table behind. The requests with ``remaining``, and paddings with a weight, get what is left as
    ``shares.divide`` deals it out.

    Raises NoSpace with both numbers; UsageError for a size or alignment that is no multiple of the sector.
    """
    _check_arguments(spaces, sector_size, size, alignment)
    runs, end = _pack(spaces, front, sector_size, alignment)
    if size is None:
        return Placement(tuple(runs), align_up(max(end, front) + back, alignment))
    limit = align_down(size - back, sector_size)
    trimmed = end > limit
    if trimmed:
        # Rounding the last size up may be what does not fit, and is a wish only.
        runs, end = _trim(spaces, runs, sector_size)
    if end > limit or limit < front:
        need = max(end, front) + back
        raise NoSpace(f"disk: the partitions need {need} bytes with the table around them, found a size of {size}")
    if any(space.remaining or space.padding.weight for space in spaces):
        grown = _grow(spaces, runs, front, None if trimmed else limit, sector_size, alignment)
        runs = [*grown[:-1], runs[-1]] if trimmed else grown
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
        if space.alignment is not None and (space.alignment <= 0 or space.alignment % alignment):
            raise UsageError(
                f"{space.what}: expected an alignment of a multiple of {alignment} bytes, found {space.alignment}"
            )
        _check_bounds(space.what, space.size, space.most, space.weight)
        _check_bounds(f"{space.what}: padding", space.padding.least, space.padding.most, space.padding.weight)


def _check_bounds(what: str, least: int, most: int | None, weight: int) -> None:
    if not 0 <= weight <= MAX_WEIGHT:
        raise UsageError(f"{what}: expected a weight from 0 to {MAX_WEIGHT}, found {weight}")
    if not 0 <= least <= MAX_SIZE or (most is not None and most < least):
        raise UsageError(f"{what}: expected a maximum of at least {least} bytes, found {most}")


def _pack(
    spaces: Sequence[Space], front: int, sector_size: int, alignment: int, sizes: dict[int, tuple[int, int]] = _NONE
) -> tuple[list[tuple[int, int]], int]:
    """Place every request one behind the other; answer with the first free byte too.

    Each has its least size and padding, or those of ``sizes``.
    """
    runs = []
    end = front
    for index, space in enumerate(spaces):
        start = align_up(align_up(end, alignment) + space.before, space.alignment or alignment)
        if space.start is not None:
            start = space.start
        if start < end + space.before:
            raise NoSpace(f"{space.what}: expected to start at byte {end + space.before} or later, found {start}")
        step = sector_size if start % alignment else alignment
        size, padding = sizes.get(index, (space.size, space.padding.least))
        length = max(align_up(size, step), step)
        runs.append((start, length))
        end = start + length + align_up(padding, sector_size)
    return runs, end


def _trim(
    spaces: Sequence[Space], runs: list[tuple[int, int]], sector_size: int
) -> tuple[list[tuple[int, int]], int]:
    """Give back what rounding added to the last partition."""
    if not runs:
        return runs, 0
    start, _ = runs[-1]
    length = max(align_up(spaces[-1].size, sector_size), sector_size)
    return [*runs[:-1], (start, length)], start + length + align_up(spaces[-1].padding.least, sector_size)


def _grow(
    spaces: Sequence[Space],
    runs: list[tuple[int, int]],
    front: int,
    limit: int | None,
    sector_size: int,
    alignment: int,
) -> list[tuple[int, int]]:
    """Divide what is left before ``limit`` between those that grow, and move what lies behind each.

    A pinned start is a wall: what grows before it grows up to it, and no further. Sizes grow in steps of the
    alignment. Without a limit there is nothing left behind the last wall.
    """
    walls = [index for index, space in enumerate(spaces) if space.start is not None and index]
    sizes: dict[int, tuple[int, int]] = {}
    for low, high in pairwise([0, *walls, len(spaces)]):
        growing = [index for index in range(low, high) if spaces[index].remaining or spaces[index].padding.weight]
        wall = limit if high == len(spaces) else runs[high][0]
        if not growing or wall is None:
            continue
        room = align_down(wall, alignment) - align_up(runs[low][0], alignment)
        for index in range(low, high):
            space = spaces[index]
            slack = (space.alignment or alignment) - alignment if index > low else 0
            room -= slack + (space.before if index > low else 0)
            if index not in growing:
                room -= align_up(runs[index][1] + space.padding.least, alignment)
        asked = []
        for index in growing:
            space = spaces[index]
            least = runs[index][1]
            asked.append(Share(least, space.most, space.weight) if space.remaining else Share(least, least, 0))
            asked.append(Share(space.padding.least, space.padding.most, space.padding.weight, is_last=False))
        got = divide(asked, room, alignment)
        sizes |= {index: (got[2 * at], got[2 * at + 1]) for at, index in enumerate(growing)}
    return _pack(spaces, front, sector_size, alignment, sizes)[0]
