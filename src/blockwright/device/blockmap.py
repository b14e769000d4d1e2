"""One small state for each block of a device, in memory that follows what is not in the first state.

Knows: numbers from 0 to 255 and runs of them. Refuses to know: what a state means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_PAGE: Final = 1 << 14
"""Blocks whose states are allocated at once."""

_RUN: Final = re.compile(rb"(.)\1*", re.DOTALL)


class BlockMap:
    """The state of each block from 0 to ``count - 1``; every one is 0 at first. Not locked."""

    __slots__ = ("_count", "_pages")

    def __init__(self, count: int) -> None:
        self._count = count
        self._pages: dict[int, bytearray] = {}

    def __getitem__(self, block: int) -> int:
        page = self._pages.get(block // _PAGE)
        return 0 if page is None else page[block % _PAGE]

    def set(self, start: int, end: int, state: int) -> None:
        """Give every block of [start, end) the state. Whole pages of state 0 are dropped."""
        while start < end:
            index, within = divmod(start, _PAGE)
            part = min(_PAGE - within, end - start)
            if part == _PAGE:
                if state:
                    self._pages[index] = bytearray([state]) * _PAGE
                else:
                    self._pages.pop(index, None)
            elif state or index in self._pages:
                page = self._pages.get(index)
                if page is None:
                    page = self._pages.setdefault(index, bytearray(_PAGE))
                page[within : within + part] = bytes([state]) * part
            start += part

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
            index, within = divmod(start, _PAGE)
            part = min(_PAGE - within, end - start)
            page = self._pages.get(index)
            if page is None:
                yield start, start + part, 0
            else:
                states = bytes(page[within : within + part])
                for match in _RUN.finditer(states):
                    yield start + match.start(), start + match.end(), states[match.start()]
            start += part
