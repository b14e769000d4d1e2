"""A device that keeps an ordered list of writes, and answers what a disk could hold after a power cut.

The rules are those of a disk with a volatile cache: what was flushed, or written durably, is there. Of what came
after the last flush any part may be there, in whole sectors, whatever the order in which it was written.

Knows: the list and the rules. Refuses to know: what makes a disk's content good.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

from blockwright.device.base import Backing, BlockDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.overlay import Overlay
from blockwright.units import SECTOR


class Event(NamedTuple):
    """A write of ``data``, or zeros for ``length`` bytes where that is None; a flush where ``length`` is None too."""

    offset: int = 0
    data: bytes | None = None
    length: int | None = None
    durable: bool = False

    @property
    def is_flush(self) -> bool:
        """Whether it makes what came before durable, and changes nothing."""
        return self.length is None


class CrashDevice(ForwardingDevice):
    """Reads as ``before`` with all writes since; ``before`` itself is never written to.

    ``events`` is the list. A discard counts as zeros that may or may not arrive, which is what disks do.
    """

    def __init__(self, before: BlockDevice, *, owns: bool = True) -> None:
        super().__init__(Overlay(before, owns=False))
        self._before = before
        self._owns_before = owns
        self._order = threading.Lock()
        self.events: list[Event] = []

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        data = b"".join(buffers)
        with self._order:
            super()._write(offset, buffers, durable=durable)
            self.events.append(Event(offset, data, len(data), durable))

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        with self._order:
            super()._zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)
            self.events.append(Event(offset, None, length, durable))

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        with self._order:
            super()._zero(offset, length, may_unmap=True, fast_only=False, durable=durable)
            self.events.append(Event(offset, None, length, durable))

    def _flush(self) -> None:
        with self._order:
            super()._flush()
            self.events.append(Event())

    def _backing(self, offset: int, length: int) -> Backing:
        return nullcontext(None)

    def _close(self) -> None:
        super()._close()
        if self._owns_before:
            self._before.close()

    # -- after a power cut -----------------------------------------------------------------------------------

    def cut(self, count: int) -> Overlay:
        """Return the disk where power failed behind the first ``count`` events, all of which arrived."""
        return self._disk(self.events[:count])

    def torn(self, count: int, chance: random.Random) -> Overlay:
        """Return a disk where power failed behind the first ``count`` events, by the rules of the module.

        What was flushed or durable arrived, and of the rest a random part, of one write only its first sectors.
        Writes to one sector never change places: a disk's cache is coherent.
        """
        events = self.events[:count]
        flushed = max((index + 1 for index, event in enumerate(events) if event.is_flush), default=0)
        arrived = [event for event in events[flushed:] if event.durable or chance.random() < 0.5]
        loose = [index for index, event in enumerate(arrived) if event.data is not None and not event.durable]
        if loose:
            index = chance.choice(loose)
            arrived[index] = _first_sectors(arrived[index], chance)
        return self._disk([*events[:flushed], *arrived])

    def cuts(self, chance: random.Random, torn_for_each: int = 2) -> Iterator[tuple[str, Overlay]]:
        """Yield (what happened, the disk then) for a cut behind every event, in order and torn."""
        for count in range(len(self.events) + 1):
            yield f"power cut behind event {count} of {len(self.events)}", self.cut(count)
            for number in range(torn_for_each):
                yield f"power cut behind event {count} of {len(self.events)}, torn {number}", self.torn(count, chance)

    def _disk(self, events: Sequence[Event]) -> Overlay:
        disk = Overlay(self._before, owns=False)
        for event in events:
            if event.data is not None:
                disk.write(event.offset, event.data)
            elif event.length is not None:
                disk.zero(event.offset, event.length)
        return disk


def _first_sectors(event: Event, chance: random.Random) -> Event:
    """Return the write cut at a multiple of the device's sectors."""
    assert event.data is not None, "only a write can be torn"
    end = event.offset + len(event.data)
    sectors = range(event.offset // SECTOR * SECTOR + SECTOR, end, SECTOR)
    if not sectors:
        return event
    data = event.data[: chance.choice(sectors) - event.offset]
    return event._replace(data=data, length=len(data))
