"""Changes to sectors that are not on the device yet, each with the step of a commit that writes it.

Knows: bytes, positions and steps. Refuses to know: what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from enum import IntEnum

from blockwright.device.base import Backing, BlockDevice
from blockwright.device.extent import DATA, Extent
from blockwright.device.forwarding import ForwardingDevice


class Step(IntEnum):
    """When a patch is written. Whoever reads the volume sees nothing of the first step and the last."""

    PREPARE = 0
    SWITCH = 1
    REMOVE = 2
    CLEAN_UP = 3


class Pending:
    """Patches by sector. A later one for the same position takes the place of the one before."""

    def __init__(self, sector_size: int) -> None:
        self._size = sector_size
        self._sectors: dict[int, dict[int, tuple[Step, bytes]]] = {}
        self.count = 0

    def __bool__(self) -> bool:
        return bool(self._sectors)

    def put(self, position: int, data: bytes, step: Step) -> None:
        """Have these bytes at a position; they lie within one sector."""
        patches = self._sectors.setdefault(position // self._size, {})
        self.count += position not in patches
        patches[position] = (step, data)

    def step_at(self, position: int) -> Step | None:
        """Return when the bytes at a position are written, None where nothing is to be."""
        found = self._sectors.get(position // self._size, {}).get(position)
        return None if found is None else found[0]

    def forget(self, position: int, length: int) -> None:
        """Drop what was to be written within a range of whole sectors."""
        for sector in range(position // self._size, (position + length) // self._size):
            self.count -= len(self._sectors.pop(sector, ()))

    def clear(self) -> None:
        """Drop everything."""
        self._sectors.clear()
        self.count = 0

    def visible(self) -> set[int]:
        """Return the sectors whose writing is seen."""
        seen = (Step.SWITCH, Step.REMOVE)
        return {
            sector for sector, patches in self._sectors.items() if any(step in seen for step, _ in patches.values())
        }

    def of_steps(self, steps: Iterable[Step]) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
        """Yield (sector, its patches of these steps), sectors ascending."""
        wanted = frozenset(steps)
        for sector, patches in sorted(self._sectors.items()):
            found = [(position, data) for position, (step, data) in patches.items() if step in wanted]
            if found:
                yield sector, found

    def touches(self, offset: int, length: int) -> bool:
        """Whether a patch lies in one of the range's sectors."""
        if not self._sectors or not length:
            return False
        first, last = offset // self._size, (offset + length - 1) // self._size
        if last - first < len(self._sectors):
            return any(sector in self._sectors for sector in range(first, last + 1))
        return any(first <= sector <= last for sector in self._sectors)

    def apply(self, offset: int, buffer: memoryview) -> None:
        """Change what was read from ``offset`` on to what it will be."""
        if not self.touches(offset, len(buffer)):
            return
        end = offset + len(buffer)
        first, last = offset // self._size, (end - 1) // self._size
        within = range(first, last + 1) if last - first < len(self._sectors) else list(self._sectors)
        for sector in within:
            for position, (_, data) in self._sectors.get(sector, {}).items():
                low, high = max(position, offset), min(position + len(data), end)
                if low < high:
                    buffer[low - offset : high - offset] = data[low - position : high - position]


class PendingDevice(ForwardingDevice):
    """Reads as the device will when everything pending is written. Read-only, and does not own the device."""

    def __init__(self, inner: BlockDevice, pending: Pending) -> None:
        traits = replace(inner.traits, writable=False, discard=False, fast_zero=False, fua=False)
        super().__init__(inner, owns=False, traits=traits)
        self._pending = pending

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._inner.read_into(offset, *buffers)
        self._apply(offset, buffers)

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        if not self._inner.read_ready(offset, *buffers):
            return False
        self._apply(offset, buffers)
        return True

    def _apply(self, offset: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            self._pending.apply(offset, buffer)
            offset += len(buffer)

    def _extents(self, offset: int, length: int) -> Iterable[Extent]:
        if self._pending.touches(offset, length):
            return (Extent(offset, length, DATA),)
        return super()._extents(offset, length)

    def _backing(self, offset: int, length: int) -> Backing:
        if self._pending.touches(offset, length):
            return nullcontext(None)
        return super()._backing(offset, length)
