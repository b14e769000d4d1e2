"""Rectangles whose areas are sizes, as square as may be (Bruls, Huizing, van Wijk: Squarified Treemaps, 2000).

Knows: areas. Refuses to know: what is drawn in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle: its left upper corner, width and height."""

    x: float
    y: float
    width: float
    height: float

    def inner(self, top: float, margin: float) -> Box:
        """Return what is left within a margin, and below ``top`` more."""
        return Box(
            self.x + margin,
            self.y + margin + top,
            max(0.0, self.width - 2 * margin),
            max(0.0, self.height - 2 * margin - top),
        )


def squarify(sizes: Sequence[int], box: Box) -> list[Box]:
    """Return a box for each of ``sizes``, which descend and are positive, all within ``box`` and filling it."""
    total = sum(sizes)
    if not total or box.width <= 0 or box.height <= 0:
        return [Box(box.x, box.y, 0.0, 0.0)] * len(sizes)
    areas = [size * box.width * box.height / total for size in sizes]
    found: list[Box] = []
    while len(found) < len(areas):
        side = min(box.width, box.height)
        row = [areas[len(found)]]
        for area in areas[len(found) + 1 :]:
            if _worst([*row, area], side) > _worst(row, side):
                break
            row.append(area)
        placed, box = _row(row, box)
        found += placed
    return found


def _worst(row: Sequence[float], side: float) -> float:
    """Return the largest ratio of sides in a row of areas along ``side``."""
    total = sum(row)
    if not total or not side:
        return float("inf")
    return max(side * side * max(row) / (total * total), total * total / (side * side * max(min(row), 1e-12)))


def _row(row: Sequence[float], box: Box) -> tuple[list[Box], Box]:
    """Lay a row along the shorter side; return its boxes, and what is left."""
    total = sum(row)
    upright = box.width >= box.height
    side = box.height if upright else box.width
    depth = min(total / side, box.width if upright else box.height) if side else 0.0
    placed, at = [], 0.0
    for area in row:
        length = side * area / total
        placed.append(Box(box.x, box.y + at, depth, length) if upright else Box(box.x + at, box.y, length, depth))
        at += length
    if upright:
        return placed, Box(box.x + depth, box.y, max(0.0, box.width - depth), box.height)
    return placed, Box(box.x, box.y + depth, box.width, max(0.0, box.height - depth))
