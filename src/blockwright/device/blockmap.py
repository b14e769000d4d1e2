"""One small state for each block of a device, in memory that follows what is not in the first state.

Knows: numbers from 0 to 255 and runs of them. Refuses to know: what a state means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from operator import itemgetter
from typing import Final

PAGE: Final = 1 << 14
"""Blocks whose states are allocated at once."""

_RUN: Final = re.compile(rb"(.)\1*", re.DOTALL)


class BlockMap:
    """The state of each block from 0 to ``count - 1``; every one is 0 at first. Not locked."""

    __slots__ = ("_count", "_pages")

    def __init__(self, count: int) -> None:
        self._count = count
        # A page of one state is that state's number, and takes no memory of its own.
        self._pages: dict[int, bytearray | int] = {}

    def __getitem__(self, block: int) -> int:
        page = self._pages.get(block // PAGE, 0)
        return page if isinstance(page, int) else page[block % PAGE]

    def set(self, start: int, end: int, state: int) -> None:
        """Give every block of [start, end) the state. Whole pages of state 0 are dropped."""
        while start < end:
            index, within = divmod(start, PAGE)
            part = min(PAGE - within, end - start)
            if part == PAGE:
                if state:
                    self._pages[index] = state
                else:
                    self._pages.pop(index, None)
            else:
                page = self._pages.get(index, 0)
                if isinstance(page, int):
                    page = self._pages[index] = bytearray([page]) * PAGE
                page[within : within + part] = bytes([state]) * part
            start += part

    def pages(self) -> list[tuple[int, bytes | int]]:
        """Return (index, states) of pages that are not all 0, ascending: a byte a block, or the one state of all."""
        return [
            (index, page if isinstance(page, int) else bytes(page))
            for index, page in sorted(self._pages.items(), key=itemgetter(0))
        ]

    def put_page(self, index: int, states: bytes | int) -> None:
        """Give the blocks of a page these states, as ``pages`` tells them."""
        self._pages[index] = states if isinstance(states, int) else bytearray(states)

    def runs(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield (start, end, state) that cover [start, end), ascending, with equal neighbours joined."""
        low, state = start, self[start] if start < end else 0
        for first, last, found in self._page_runs(start, end):
            if found != state:
                yield low, first, state
                low, state = first, found
            if last == end:
                yield low, end, state

    def _page_runs(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        while start < end:
            index, within = divmod(start, PAGE)
            part = min(PAGE - within, end - start)
            page = self._pages.get(index, 0)
            if isinstance(page, int):
                yield start, start + part, page
            else:
                states = bytes(page[within : within + part])
                for match in _RUN.finditer(states):
                    yield start + match.start(), start + match.end(), states[match.start()]
            start += part
