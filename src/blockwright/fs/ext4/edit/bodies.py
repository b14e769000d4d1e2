"""What files hold, put into blocks: new blocks for every byte that is new, holes left out.

Nothing that a file had is written over: what changes in part is put together from the old and the new and goes to
new blocks. So a body is as it was until the commit.

Knows: contents and runs of blocks. Refuses to know: how a file's map is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from blockwright.fs.ext4.contents import RunReader
from blockwright.fs.ext4.edit.space import Space
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.mapping import Run
from blockwright.tree.content import BytesContent, Content, Runs
from blockwright.units import MiB

CHUNK: Final = MiB
"""Bytes that are read and written at once."""


class Patched(Content):
    """A file of ``size`` bytes that reads as ``new`` from ``offset`` on, to its end, and as ``old`` around it.

    Holes of the new part are holes here too, where they cover what is asked.
    """

    __slots__ = ("_new", "_offset", "_old")

    def __init__(self, size: int, old: RunReader, offset: int, new: Content) -> None:
        super().__init__(size)
        self._old = old
        self._offset = offset
        self._new = new

    def runs(self) -> Runs:
        """Return where data lies."""
        start, end = self._offset, self._offset + self._new.size
        found = [(low, min(low + length, start) - low) for low, length in self._old.runs() if low < start]
        found += [(start + low, length) for low, length in self._new.runs()]
        found += [
            (max(low, end), low + length - max(low, end)) for low, length in self._old.runs() if low + length > end
        ]
        return [(low, min(low + length, self.size) - low) for low, length in found if low < self.size and length > 0]

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Read from either."""
        start, end = self._offset, self._offset + self._new.size
        low, high = max(offset, start), min(offset + len(buffer), end)
        if low >= high:
            self._read_old(offset, buffer)
            return
        if offset < low:
            self._read_old(offset, buffer[: low - offset])
        self._new.read_into(low - start, buffer[low - offset : high - offset])
        if high < offset + len(buffer):
            self._read_old(high, buffer[high - offset :])

    def _read_old(self, offset: int, buffer: memoryview) -> None:
        inside = max(0, min(len(buffer), self._old.size - offset))
        if inside:
            self._old.read_into(offset, buffer[:inside])
        if inside < len(buffer):
            buffer[inside:] = bytes(len(buffer) - inside)


class Bodies:
    """Places contents in free blocks."""

    def __init__(self, transaction: Transaction, space: Space) -> None:
        self.transaction = transaction
        self._space = space
        self._block_size = transaction.volume.block_size

    def place(self, content: Content, goal: int, low: int = 0, high: int | None = None) -> list[Run]:
        """Write what ``content`` has in its blocks from ``low`` to ``high`` to new ones near ``goal``; return them.

        Raises NoSpace, and whatever reading the content raises.
        """
        size = self._block_size
        high = -(-content.size // size) if high is None else high
        runs: list[Run] = []
        for first, last in _block_ranges(content.runs(), size, low, high):
            for physical, count in self._space.allocate_runs(goal, last - first):
                runs.append(Run(first, count, physical, written=True))
                self._write(content, first, count, physical)
                first += count  # noqa: PLW2901 - walks through the range
                goal = physical + count
        return runs

    def place_bytes(self, data: bytes, goal: int) -> list[Run]:
        """Write bytes to new blocks."""
        return self.place(BytesContent(data), goal)

    def reader(self, runs: Sequence[Run], size: int) -> RunReader:
        """Return what reads a body as it is."""
        return RunReader(self.transaction.volume, list(runs), size)

    def _write(self, content: Content, logical: int, count: int, physical: int) -> None:
        size = self._block_size
        step = max(1, CHUNK // size)
        for done in range(0, count, step):
            part = min(step, count - done)
            buffer = bytearray(part * size)
            view = memoryview(buffer)
            offset = (logical + done) * size
            content.read_into(offset, view[: max(0, min(len(buffer), content.size - offset))])
            self.transaction.write_data(physical + done, view)


def _block_ranges(runs: Runs, size: int, low: int, high: int) -> list[tuple[int, int]]:
    """Return the blocks of [low, high) that hold any of the runs, as (first, behind the last), ascending."""
    found: list[tuple[int, int]] = []
    for offset, length in sorted(runs):
        first, last = max(low, offset // size), min(high, -(-(offset + length) // size))
        if first >= last:
            continue
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found
