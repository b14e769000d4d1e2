"""A new swap area as a value.

Knows: what ``mkswap`` writes, and no more. Refuses to know: devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from blockwright.device.planned import SegmentTable
from blockwright.errors import UsageError
from blockwright.fs.swap import layout


class Summary(NamedTuple):
    """What people ask of a swap area."""

    label: str
    uuid: str
    page_size: int
    pages: int


@dataclass(frozen=True, slots=True)
class SwapPlan:
    """A swap area of ``size`` bytes in whole pages. Raises UsageError for what its header cannot say."""

    size: int
    uuid: UUID
    label: str = ""

    def __post_init__(self) -> None:
        pages, rest = divmod(self.size, layout.PAGE_SIZE)
        if rest or not layout.MIN_PAGES <= pages <= layout.MAX_PAGES:
            raise UsageError(
                f"swap: expected {layout.MIN_PAGES} to {layout.MAX_PAGES} whole pages of {layout.PAGE_SIZE} bytes,"
                f" found {self.size} bytes"
            )
        if len(self.label.encode()) > layout.MAX_LABEL or "\0" in self.label:
            raise UsageError(f"swap label: expected at most {layout.MAX_LABEL} bytes, found {self.label!a}")

    @property
    def kind(self) -> str:
        """``swap``."""
        return "swap"

    @property
    def summary(self) -> Summary:
        """The numbers that people ask of it."""
        return Summary(self.label, str(self.uuid), layout.PAGE_SIZE, self.size // layout.PAGE_SIZE)

    def segments(self) -> SegmentTable:
        """Return its header; the other pages are holes."""
        header = layout.Header(
            last_page=self.size // layout.PAGE_SIZE - 1,
            sws_uuid=self.uuid.bytes,
            sws_volume=self.label.encode().ljust(layout.MAX_LABEL, b"\0"),
            magic=layout.MAGIC,
        )
        table = SegmentTable()
        table.add_bytes(0, header.pack())
        return table
