"""Lists of buffers that stand for one run of bytes, cut into pieces without copying.

Knows: lengths. Refuses to know: what is in the buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from blockwright.units import MiB

ZEROS: Final = memoryview(bytes(MiB))
"""One MiB of zeros to write from."""


def total(buffers: Sequence[memoryview]) -> int:
    """Return the bytes in all buffers together."""
    return sum(map(len, buffers))


def clear(view: memoryview) -> None:
    """Fill the view with zeros."""
    length = len(view)
    if length <= len(ZEROS):
        view[:] = ZEROS[:length]
        return
    for position in range(0, length, len(ZEROS)):
        part = view[position : position + len(ZEROS)]
        part[:] = ZEROS[: len(part)]


def zeros(length: int) -> list[memoryview]:
    """Return buffers that hold ``length`` zeros together, to write from."""
    whole, rest = divmod(length, len(ZEROS))
    return [ZEROS] * whole + ([ZEROS[:rest]] if rest else [])


class Cutter:
    """Hands out the bytes of a list of buffers from front to back, in pieces of any length."""

    __slots__ = ("_buffers", "_index", "_within")

    def __init__(self, buffers: Sequence[memoryview]) -> None:
        self._buffers = buffers
        self._index = 0
        self._within = 0

    def take(self, length: int) -> list[memoryview]:
        """Return views of the next ``length`` bytes, which must be there."""
        pieces = []
        while length > 0:
            buffer = self._buffers[self._index]
            end = min(self._within + length, len(buffer))
            if end > self._within:
                pieces.append(buffer[self._within : end])
                length -= end - self._within
            if end == len(buffer):
                self._index += 1
                self._within = 0
            else:
                self._within = end
        return pieces

    def take_at_most(self, count: int, length: int) -> list[memoryview]:
        """Return at most ``count`` views of at most ``length`` bytes: the next ones, none at the end."""
        pieces: list[memoryview] = []
        while length > 0 and len(pieces) < count and self._index < len(self._buffers):
            part = min(length, len(self._buffers[self._index]) - self._within)
            if not part:
                self._index += 1
                self._within = 0
                continue
            pieces += self.take(part)
            length -= part
        return pieces
