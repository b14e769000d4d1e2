"""Which blocks of an export are read and written: bytes in a few cells, each a power of two of the export's.

Every session counts in cells of its own, which one thread writes, so counting takes no lock; they are added up when
somebody looks. Where nobody wants it there is no heat, and a session's calls are those of its device.

Knows: cells. Refuses to know: sessions, and how it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

CELLS: Final = 256
"""Cells of an export at the most: it has more than half as many, unless it has fewer bytes than that."""

Ready = Callable[[int, Sequence[memoryview]], bool]
Write = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Bytes by cell, each of ``1 << shift`` bytes of the export."""

    shift: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]

    def __add__(self, other: HeatMap) -> HeatMap:
        """Return both, in the larger cells of the two: an export may have been resized between them."""
        shift = max(self.shift, other.shift)
        count = max(_count(self, shift), _count(other, shift))
        reads, writes = [0] * count, [0] * count
        for each in (self, other):
            step = shift - each.shift
            for cells, sums in ((each.reads, reads), (each.writes, writes)):
                for index, value in enumerate(cells):
                    sums[index >> step] += value
        return HeatMap(shift, tuple(reads), tuple(writes))

    def fields(self) -> list[Any]:
        """Return it as JSON has it, without cells that nobody touched."""
        pairs = enumerate(zip(self.reads, self.writes, strict=True))
        return [self.shift, len(self.reads), [[index, *pair] for index, pair in pairs if any(pair)]]

    @classmethod
    def of_fields(cls, fields: list[Any]) -> HeatMap:
        """Return what ``fields`` gave."""
        shift, count, touched = fields
        reads, writes = [0] * count, [0] * count
        for index, read, written in touched:
            reads[index], writes[index] = read, written
        return cls(shift, tuple(reads), tuple(writes))


def _count(each: HeatMap, shift: int) -> int:
    return -(-len(each.reads) >> (shift - each.shift))


class Heat:
    """What one session touches of ``size`` bytes. Written by its own thread, read by any."""

    def __init__(self, size: int) -> None:
        self.shift = max(0, (size - 1).bit_length() - CELLS.bit_length() + 1) if size else 0
        count = max(1, -(-size >> self.shift))
        self._reads = [0] * count
        self._writes = [0] * count

    def reading(self, ready: Ready) -> Ready:
        """Return a call that reads one buffer of less than a cell or so, and counts it where it was read."""
        cells, shift = self._reads, self.shift

        def counted(offset: int, buffers: Sequence[memoryview], /) -> bool:
            if ready(offset, buffers):
                try:
                    cells[offset >> shift] += len(buffers[0])
                except IndexError:  # the export has grown since
                    cells[-1] += len(buffers[0])
                return True
            return False

        return counted

    def writing(self, write: Write) -> Write:
        """Return a call that writes one buffer, and counts it where it was written."""
        cells, shift = self._writes, self.shift

        def counted(offset: int, buffers: Sequence[memoryview], /, *, durable: bool) -> None:
            write(offset, buffers, durable=durable)
            try:
                cells[offset >> shift] += len(buffers[0])
            except IndexError:
                cells[-1] += len(buffers[0])

        return counted

    def touch(self, offset: int, length: int, *, written: bool) -> None:
        """Count a run of any length."""
        cells, shift = self._writes if written else self._reads, self.shift
        end = offset + length
        while offset < end:
            index = offset >> shift
            step = min(end, (index + 1) << shift)
            if index >= len(cells):
                cells[-1] += end - offset
                return
            cells[index] += step - offset
            offset = step

    def take_over(self, told: HeatMap) -> None:
        """Be what another process has counted of the session so far."""
        self.shift = told.shift
        self._reads, self._writes = list(told.reads), list(told.writes)

    def snapshot(self) -> HeatMap:
        """Return what was counted so far."""
        return HeatMap(self.shift, tuple(self._reads), tuple(self._writes))
