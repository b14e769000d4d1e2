"""Space is divided by weight between those who have a least and a most.

Who needs more than its fair share gets its least, who may not have as much gets its most, and what is left goes to
the others by their weights: as systemd-repart does, so that the same definitions give the same sizes.

Knows: numbers. Refuses to know: what any of it is for.

Source: repart.d(5), systemd 252, ``Weight=``, ``PaddingWeight=``, ``SizeMinBytes=``; compared with its program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from blockwright.units import align_down, align_up

MAX_WEIGHT = 1_000_000
"""The largest weight, as repart.d(5) has it."""


class Share(NamedTuple):
    """Who takes part: at least ``least`` bytes, at most ``most`` (None for any), and by ``weight`` what is left.

    ``is_last`` says that it takes what nobody has a share of, where the others have their most.
    """

    least: int
    most: int | None
    weight: int
    is_last: bool = True


def divide(shares: Sequence[Share], room: int, grain: int) -> list[int]:
    """Return what each gets of ``room`` bytes, in multiples of ``grain``; all at least their least.

    Least and most sizes are rounded up to the grain. They fit the room: the caller has seen to it. What
    nobody may have is left over.
    """
    least = [align_up(share.least, grain) for share in shares]
    most = [
        None if share.most is None else max(low, align_up(share.most, grain))
        for share, low in zip(shares, least, strict=True)
    ]
    got: dict[int, int] = {}
    left, weights = room, sum(share.weight for share in shares)

    def fair(index: int) -> int:
        return left * shares[index].weight // weights if weights else 0

    def give(index: int, size: int) -> None:
        nonlocal left, weights
        got[index] = size
        left -= size
        weights -= shares[index].weight

    for bounded in (_more_than_fair, _less_than_fair):
        again = True
        while again:
            again = False
            for index in range(len(shares)):
                if index not in got:
                    size = bounded(least[index], most[index], fair(index))
                    if size is not None:
                        give(index, size)
                        again = True
    for index in range(len(shares)):
        if index not in got:
            # What is fair can grow by what rounding left of those before, and then to more than the most.
            size, limit = max(align_down(fair(index), grain), least[index]), most[index]
            give(index, size if limit is None else min(size, limit))
    left = align_down(left, grain)
    for index in range(len(shares)):
        limit = most[index]
        if left > 0 and shares[index].is_last and (limit is None or got[index] < limit):
            more = left if limit is None else min(left, limit - got[index])
            got[index] += more
            left -= more
    return [got[index] for index in range(len(shares))]


def _more_than_fair(least: int, _most: int | None, fair: int) -> int | None:
    return least if least > fair else None


def _less_than_fair(_least: int, most: int | None, fair: int) -> int | None:
    return most if most is not None and most < fair else None
