"""A range of another content as a content, and any content as a stream.

Knows: offsets. Refuses to know: what either holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from blockwright.device.base import Backing
from blockwright.tree.content import Content, Runs, ScatteredContent
from blockwright.units import MiB


class PartContent(ScatteredContent):
    """A file whose data lies within ``whole``: each run of ``data_runs`` from the byte of ``starts`` on."""

    __slots__ = ("_whole",)

    def __init__(self, whole: Content, size: int, data_runs: Runs, starts: Sequence[int]) -> None:
        super().__init__(size, data_runs, starts)
        self._whole = whole

    def _read_whole(self, at: int, buffer: memoryview, /) -> None:
        self._whole.read_into(at, buffer)

    def _back_whole(self, at: int, length: int, /) -> Backing:
        answer = getattr(self._whole, "backing", None)
        if answer is None:
            return nullcontext(None)
        found: Backing = answer(at, length)
        return found


class ContentReader:
    """Reads a content from its start to its end; holes are zeros."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._position = 0

    def read(self, length: int) -> bytes:
        """Return up to ``length`` of the next bytes, none at the end."""
        length = min(length, 4 * MiB, self._content.size - self._position)
        if not length:
            return b""
        buffer = bytearray(length)
        self._content.read_into(self._position, memoryview(buffer))
        self._position += length
        return bytes(buffer)
