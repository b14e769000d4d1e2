"""A partition whose bytes somebody else has made, or that holds nothing.

Knows: that. Refuses to know: what the bytes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from blockwright.device.planned import SegmentTable
from blockwright.tree.content import EMPTY, Content


class RawSummary(NamedTuple):
    """What people ask of it: the file that it comes from, if any."""

    image: str


@dataclass(frozen=True, slots=True)
class RawPlan:
    """The bytes of a content, holes and all."""

    content: Content = EMPTY
    image: str = ""

    @property
    def kind(self) -> str:
        """``image``, or ``empty`` where there is nothing."""
        return "image" if self.image else "empty"

    @property
    def size(self) -> int:
        """Bytes in it."""
        return self.content.size

    @property
    def summary(self) -> RawSummary:
        """What people ask of it."""
        return RawSummary(self.image)

    def segments(self) -> SegmentTable:
        """Return where its data lies."""
        table = SegmentTable()
        for offset, length in self.content.runs():
            table.add(offset, length, self.content, offset)
        return table
