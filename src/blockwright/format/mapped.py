"""What every image format has in common: one address map, from which all of a device derives.

``resolve`` says, for a range of the disk, where its bytes are: nowhere, known to be zeros, in the file, compressed in
the file, or in the backing device. Reading, extents, hints and what the kernel may move follow from it.

Knows: the kinds of places. Refuses to know: how a format keeps its map.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Final, NamedTuple

from blockwright.device.base import Backing, BlockDevice, FileRun, Traits, Waits
from blockwright.device.extent import DATA, HOLE, ZERO, Extent
from blockwright.device.vector import Cutter, clear, total
from blockwright.errors import Corrupt
from blockwright.format.describe import Described


class Kind(IntEnum):
    """Where bytes are."""

    HOLE = 0
    """Nowhere: they read as zeros."""
    ZERO = 1
    """Known to be zeros, whether or not the file has room for them."""
    DATA = 2
    """In the file, at ``host``."""
    COMPRESSED = 3
    """In the cluster that ``host`` describes, from byte ``within`` of it on."""
    BACKING = 4
    """In the device below, at the same offset."""


class Place(NamedTuple):
    """``length`` bytes, in order of the disk."""

    kind: Kind
    length: int
    host: int = 0
    within: int = 0


FLAGS: Final = {Kind.HOLE: HOLE | ZERO, Kind.ZERO: ZERO, Kind.DATA: DATA, Kind.COMPRESSED: DATA}


class MappedDevice(BlockDevice, Described):
    """A disk of ``size`` bytes whose map is ``resolve``; ``host`` holds its data, ``below`` what it lacks.

    ``unit`` is what the format allocates at once. Both devices are closed with it, ``host`` unless ``owns`` is False.
    ``_uses`` has one entry for each call that may use places of the map: an implementer that frees places swaps it,
    and takes one again when the old one is empty.
    """

    def __init__(
        self, host: BlockDevice, below: BlockDevice | None, size: int, traits: Traits, *, unit: int, owns: bool = True
    ) -> None:
        super().__init__(size, traits)
        self._unit = unit
        self._owns = owns
        self._host = host
        self._below = below
        self._uses: deque[None] = deque()

    @abstractmethod
    def resolve(self, offset: int, end: int) -> Iterator[Place]:
        """Yield places that cover [offset, end) in order. Raises Corrupt."""

    def _unpack(self, place: Place) -> memoryview:
        """Return all bytes of a compressed cluster. Raises Corrupt."""
        raise NotImplementedError

    def _unpacked(self, place: Place) -> memoryview | None:
        """Return the bytes of a compressed cluster where that does not wait, else None."""
        raise NotImplementedError

    def _begin_flush(self) -> None:
        """Leave the tables alone: their order matters to whoever flushes."""
        self._host.begin_flush()

    # -- reading ---------------------------------------------------------------------------------------------

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        uses = self._uses
        uses.append(None)
        try:
            cutter = Cutter(buffers)
            for place in self.resolve(offset, offset + total(buffers)):
                self._fetch(place, offset, cutter.take(place.length))
                offset += place.length
        finally:
            uses.pop()

    def _fetch(self, place: Place, offset: int, views: Sequence[memoryview]) -> None:
        """Fill the views with the bytes of one place, which is at ``offset`` of the disk."""
        if place.kind is Kind.DATA:
            self._read_host(place.host, offset, views)
        elif place.kind is Kind.BACKING:
            assert self._below is not None, "resolve says so"
            self._below.read_into(offset, *views)
        elif place.kind is Kind.COMPRESSED:
            copy_out(self._unpack(place)[place.within :], views)
        else:
            for view in views:
                clear(view)

    def _read_host(self, host: int, offset: int, views: Sequence[memoryview]) -> None:
        """Read from the file, whose last cluster may be cut: what is missing of it are zeros.

        A cluster that begins behind the file's end was lost, also where it is the last one of a long read.
        """
        length, size = total(views), self._host.size
        if host + length <= size:
            self._host.read_into(host, *views)
            return
        last = max(0, length - 1 - (offset + length - 1) % self._unit) + host
        if last >= size:
            raise Corrupt(f"data: expected at most {size} bytes of the file, found data at {last}", offset=last)
        cutter = Cutter(views)
        self._host.read_into(host, *cutter.take(size - host))
        for view in cutter.take(host + length - size):
            clear(view)

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        if self._traits.waits is Waits.NEVER:
            self._read_into(offset, buffers)
            return True
        uses = self._uses
        uses.append(None)
        try:
            cutter = Cutter(buffers)
            for place in self._resolve_ready(offset, offset + total(buffers)):
                if place is None or not self._fetch_ready(place, offset, cutter.take(place.length)):
                    return False
                offset += place.length
            return True
        finally:
            uses.pop()

    @abstractmethod
    def _resolve_ready(self, offset: int, end: int) -> Iterator[Place | None]:
        """Yield as ``resolve`` does while that does not wait, and None where it would."""

    def _fetch_ready(self, place: Place, offset: int, views: Sequence[memoryview]) -> bool:
        if place.kind is Kind.DATA:
            return place.host + place.length <= self._host.size and self._host.read_ready(place.host, *views)
        if place.kind is Kind.BACKING:
            assert self._below is not None, "resolve says so"
            return self._below.read_ready(offset, *views)
        if place.kind is Kind.COMPRESSED:
            data = self._unpacked(place)
            if data is None:
                return False
            copy_out(data[place.within :], views)
            return True
        for view in views:
            clear(view)
        return True

    # -- what follows from the map ---------------------------------------------------------------------------

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Tell data where the file has room for it: to ask the host for its holes can cost more than it saves."""
        for place in self.resolve(offset, offset + length):
            if place.kind is Kind.BACKING:
                assert self._below is not None, "resolve says so"
                yield from self._below.extents(offset, place.length)
            else:
                yield Extent(offset, place.length, FLAGS[place.kind])
            offset += place.length

    def _prefetch(self, offset: int, length: int) -> None:
        for place in self.resolve(offset, offset + length):
            if place.kind is Kind.DATA and place.host + place.length <= self._host.size:
                self._host.prefetch(place.host, place.length)
            elif place.kind is Kind.BACKING:
                assert self._below is not None, "resolve says so"
                self._below.prefetch(offset, place.length)
            offset += place.length

    def _cancel(self) -> None:
        self._host.cancel()
        if self._below is not None:
            self._below.cancel()

    def _backing(self, offset: int, length: int) -> Backing:
        return self._leading_run(offset, length)

    @contextmanager
    def _leading_run(self, offset: int, length: int) -> Iterator[Sequence[FileRun] | None]:
        """Answer for the first place, where it is data in a file; to be read only, for writing changes the map."""
        uses = self._uses
        uses.append(None)
        try:
            place = next(self.resolve(offset, offset + length))
            if place.kind is Kind.DATA and place.host + place.length <= self._host.size:
                with self._host.backing(place.host, place.length) as runs:
                    yield runs and [run._replace(writable=False) for run in runs]
            else:
                yield None
        finally:
            uses.pop()

    def _close(self) -> None:
        try:
            if self._owns:
                self._host.close()
        finally:
            if self._below is not None:
                self._below.close()


def copy_out(data: memoryview, views: Sequence[memoryview]) -> None:
    """Fill the views with the first bytes of ``data``."""
    position = 0
    for view in views:
        view[:] = data[position : position + len(view)]
        position += len(view)
