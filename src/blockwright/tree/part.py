"""A range of another content as a content, and any content as a stream.

Knows: offsets. Refuses to know: what either holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from blockwright.device.base import Backing
from blockwright.tree.content import Content, Runs
from blockwright.units import MiB


class PartContent(Content):
    """A file whose data lies within ``whole``: each run of ``data_runs`` from the byte of ``starts`` on."""

    __slots__ = ("_data_runs", "_starts", "_whole")

    def __init__(self, whole: Content, size: int, data_runs: Runs, starts: Sequence[int]) -> None:
        super().__init__(size)
        self._whole = whole
        self._data_runs = data_runs
        self._starts = starts

    def runs(self) -> Runs:
        """Return the runs that were given."""
        return self._data_runs

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Read from the whole; holes read as zeros."""
        end = offset + len(buffer)
        position = offset
        for (start, length), at in zip(self._data_runs, self._starts, strict=True):
            low, high = max(start, position), min(start + length, end)
            if low >= high:
                continue
            if low > position:
                buffer[position - offset : low - offset] = bytes(low - position)
            self._whole.read_into(at + low - start, buffer[low - offset : high - offset])
            position = high
        if position < end:
            buffer[position - offset :] = bytes(end - position)

    def backing(self, offset: int, length: int, /) -> Backing:
        """Answer as the whole does, for a range within one run."""
        answer = getattr(self._whole, "backing", None)
        if answer is not None:
            for (start, run_length), at in zip(self._data_runs, self._starts, strict=True):
                if start <= offset and offset + length <= start + run_length:
                    found: Backing = answer(at + offset - start, length)
                    return found
        return nullcontext(None)


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
