"""What formats with one flat table of large blocks have in common: VHD, VHDX and VDI.

A block that is in the file is written where it lies. Any other gets room in the file, is filled from the parent where
there is one, written, and then the table changes, in memory; ``flush`` brings the table to the disk behind the data.
Blocks are never moved or freed, only holes are punched into them, so a power cut leaves at worst blocks that nothing
refers to.

Knows: how a block comes to be. Refuses to know: how tables are written.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from itertools import pairwise
from typing import Final

from blockwright.device.base import BlockDevice, FileRun, PlacingDevice, ResizableDevice, Traits
from blockwright.device.extent import Extent
from blockwright.device.ranges import RangeLock
from blockwright.device.vector import Cutter, total, zeros
from blockwright.errors import Corrupt, NoSpace, NotSupported, UsageError
from blockwright.format.mapped import FLAGS, Kind, MappedDevice, Place
from blockwright.units import SECTOR, KiB, MiB

_PIECE: Final = MiB
_BITS: Final = tuple(bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256))


class State(IntEnum):
    """What the file has of a block."""

    ABSENT = 0
    """Nothing: it is the parent's, zeros where there is none."""
    ZERO = 1
    """Nothing: it is zeros, whatever the parent has."""
    FULL = 2
    PARTIAL = 3
    """Some sectors; the others are the parent's."""


class BlockImage(MappedDevice, ResizableDevice, PlacingDevice):
    """A disk of ``size`` bytes in blocks of ``block`` bytes. ``host`` is the file, ``below`` the parent, if any.

    Both are closed with it, ``host`` unless ``owns`` is False. Closing it writes what its table lacks.
    """

    def __init__(
        self,
        host: BlockDevice,
        below: BlockDevice | None,
        size: int,
        block: int,
        *,
        writable: bool,
        owns: bool = True,
    ) -> None:
        super().__init__(host, below, size, _traits(host, below, writable=writable), unit=block, owns=owns)
        self._block = block
        self._below_size = 0 if below is None else below.size
        self._ranges = RangeLock()
        self._lock = threading.RLock()
        self._begun = False

    @property
    def block_size(self) -> int:
        """The bytes of a block."""
        return self._block

    # -- what a format says ----------------------------------------------------------------------------------

    @abstractmethod
    def _state(self, index: int) -> tuple[State, int]:
        """Return what the file has of block ``index``, and where its first byte is or would be. Raises Corrupt."""

    def _own_sectors(self, index: int) -> tuple[int, bytes]:
        """Return the bytes of a sector, and for each of a PARTIAL block a byte: 1 where it is in the file."""
        raise NotImplementedError

    @abstractmethod
    def _reserve(self, index: int) -> int:
        """Return where block ``index`` goes, which reads as zeros there; the lock is held. Raises NoSpace."""

    @abstractmethod
    def _refer(self, index: int, host: int) -> None:
        """Make the table in memory say that block ``index`` is FULL and at ``host``; the lock is held."""

    @abstractmethod
    def _store(self) -> None:
        """Bring the table to the disk, durably; the data is there, and the lock is held."""

    @abstractmethod
    def _is_dirty(self) -> bool:
        """Whether the table in memory differs from the disk's."""

    def _prepare(self, index: int) -> None:
        """Make ready what is FULL to be written in place."""

    def _begin(self) -> None:
        """Note in the file that it is about to change: once, before anything does; the lock is held."""

    def _grow(self, size: int) -> None:
        """Make the disk larger; nothing is dirty, and the lock is held. Raises UsageError."""
        raise UsageError("resize: the format keeps the size it was made with")

    # -- the map ---------------------------------------------------------------------------------------------

    def resolve(self, offset: int, end: int) -> Iterator[Place]:
        kind, host, length = Kind.HOLE, 0, 0
        for place in self._places(offset, end):
            if length and place.kind is kind and (kind is not Kind.DATA or place.host == host + length):
                length += place.length
                continue
            if length:
                yield Place(kind, length, host)
            kind, host, length = place.kind, place.host, place.length
        if length:
            yield Place(kind, length, host)

    def _places(self, offset: int, end: int) -> Iterator[Place]:
        block = self._block
        while offset < end:
            index, within = divmod(offset, block)
            stop = min(end, offset - within + block)
            state, host = self._state(index)
            if state is State.FULL:
                yield Place(Kind.DATA, stop - offset, host + within)
            elif state is State.ZERO:
                yield Place(Kind.ZERO, stop - offset)
            elif state is State.ABSENT:
                yield from self._from_below(offset, stop)
            else:
                yield from self._partial(index, offset, stop, host)
            offset = stop

    def _from_below(self, offset: int, end: int) -> Iterator[Place]:
        border = min(max(offset, self._below_size), end)
        if border > offset:
            yield Place(Kind.BACKING, border - offset)
        if end > border:
            yield Place(Kind.HOLE, end - border)

    def _partial(self, index: int, offset: int, end: int, host: int) -> Iterator[Place]:
        sector, own = self._own_sectors(index)
        start = index * self._block
        while offset < end:
            first = (offset - start) // sector
            here = own[first : first + 1]
            last = own.find(b"\0" if here == b"\1" else b"\1", first)
            stop = end if last < 0 else min(end, start + last * sector)
            if here == b"\1":
                yield Place(Kind.DATA, stop - offset, host + offset - start)
            else:
                yield from self._from_below(offset, stop)
            offset = stop

    def _resolve_ready(self, offset: int, end: int) -> Iterator[Place | None]:
        if self._below is not None:
            yield None  # to see which sectors are its own may have to wait
        else:
            yield from self.resolve(offset, end)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Tell holes that the file has within blocks as well: blocks are large, and a copy of them would be, too."""
        for place in self.resolve(offset, offset + length):
            if place.kind is Kind.DATA and place.host + place.length <= self._host.size:
                for extent in self._host.extents(place.host, place.length):
                    yield Extent(extent.offset - place.host + offset, extent.length, extent.flags)
            elif place.kind is Kind.BACKING:
                yield from super()._extents(offset, place.length)
            else:
                yield Extent(offset, place.length, FLAGS[place.kind])
            offset += place.length

    # -- writing ---------------------------------------------------------------------------------------------

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        end, cutter = offset + total(buffers), Cutter(buffers)
        self._start()
        while offset < end:
            index, within = divmod(offset, self._block)
            length = min(end - offset, self._block - within)
            self._put(index, within, cutter.take(length))
            offset += length
        if durable:
            self._flush()

    def _start(self) -> None:
        if not self._begun:
            with self._lock:
                if not self._begun:
                    self._begin()
                    self._begun = True

    def _put(self, index: int, within: int, views: Sequence[memoryview]) -> None:
        state, host = self._state(index)
        if state is State.FULL:
            self._in_place(index, host + within, views)
            return
        low = index * self._block
        with self._ranges.exclusive(low, low + self._block):
            state, host = self._state(index)
            if state is State.FULL:  # somebody else was here first
                self._in_place(index, host + within, views)
                return
            if state is not State.PARTIAL:
                with self._lock:
                    host = self._reserve(index)
            if state is State.PARTIAL or (state is State.ABSENT and low < self._below_size):
                end = within + total(views)
                self._fill(low, low + within, host)
                self._fill(low + end, min(low + self._block, self._size), host + end)
            self._host.write(host + within, *views)
            with self._lock:
                self._refer(index, host)

    def _in_place(self, index: int, host: int, views: Sequence[memoryview]) -> None:
        self._prepare(index)
        self._extend(host + total(views))
        self._host.write(host, *views)

    @property
    def places(self) -> bool:
        return self._below is None

    @contextmanager
    def _placing(self, offset: int, length: int) -> Iterator[Sequence[FileRun] | None]:
        """Give room for the part of a block that is not in the file yet, which is zeros but for what is put there."""
        index, within = divmod(offset, self._block)
        low, part = index * self._block, min(length, self._block - within)
        self._start()
        with self._ranges.exclusive(low, low + self._block):
            state, _ = self._state(index)
            if self._below is not None or state in (State.FULL, State.PARTIAL):
                yield None
                return
            with self._lock:
                host = self._reserve(index)
            with self._host.backing(host + within, part) as runs:
                yield runs
            with self._lock:
                self._refer(index, host)

    def _extend(self, end: int) -> None:
        """Have the file be as long as ``end``: its last block may be cut."""
        if self._host.size < end:
            with self._lock:
                if self._host.size < end:
                    if end > self._host.size + self._block or not isinstance(self._host, ResizableDevice):
                        raise Corrupt(
                            f"data: expected at most {self._host.size} bytes of the file, found data up to {end}"
                        )
                    self._host.resize(end)

    def _fill(self, start: int, end: int, host: int) -> None:
        """Copy what [start, end) of the disk reads as to ``host``."""
        while start < end:
            part = bytearray(min(_PIECE, end - start))
            self._read_into(start, [memoryview(part)])
            self._host.write(host, part)
            start += len(part)
            host += len(part)

    def _make_room(self, start: int, end: int) -> None:
        """Have the file be at least ``end`` long and read as zeros in [start, end). Raises NoSpace."""
        host = self._host
        present = host.size
        if end > present:
            if not isinstance(host, ResizableDevice):
                raise NoSpace(f"image: expected a file of at least {end} bytes, found {present}")
            host.resize(end)
        if start < min(end, present):
            host.zero(start, min(end, present) - start)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        end = offset + length
        if fast_only and any(place.kind is Kind.BACKING for place in self.resolve(offset, end)):
            raise NotSupported("zero: no faster way than writing zeros over what the parent holds")
        self._start()
        while offset < end:
            index, within = divmod(offset, self._block)
            part = min(end - offset, self._block - within)
            state, host = self._state(index)
            if state is State.FULL:
                self._prepare(index)
                self._extend(host + within + part)
                self._host.zero(host + within, part, may_unmap=may_unmap, fast_only=fast_only)
            elif state is State.PARTIAL or (state is State.ABSENT and offset < self._below_size):
                self._put(index, within, zeros(part))
            offset += part
        if durable:
            self._flush()

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        self._start()
        for place in self.resolve(offset, offset + length):
            if place.kind is Kind.DATA and place.host + place.length <= self._host.size:
                self._host.discard(place.host, place.length)
        if durable:
            self._flush()

    def _flush(self) -> None:
        if not self._traits.writable:
            return
        self._ranges.wait_for_earlier()
        with self._lock:
            self._sync()

    def _sync(self) -> None:
        self._host.flush()
        if self._is_dirty():
            self._store()

    def _resize(self, size: int) -> None:
        if size < self._size or size % SECTOR:
            raise UsageError(f"resize: expected a multiple of {SECTOR} bytes of at least {self._size}, found {size}")
        if self._below is not None:
            raise UsageError("resize: a differencing disk keeps the size of its parent")
        self._start()
        with self._ranges.exclusive(0, 1 << 63), self._lock:
            self._sync()
            if size > self._size:
                self._clear_edge()
                self._grow(size)

    def _clear_edge(self) -> None:
        """Make zeros of what the last block holds behind the disk's end: others may have left something there."""
        index, within = divmod(self._size, self._block)
        state, host = self._state(index) if within else (State.ABSENT, 0)
        end = min(host + self._block, self._host.size)
        if state is State.FULL and host + within < end:
            self._host.zero(host + within, end - host - within)
            self._host.flush()

    def _settle(self) -> None:
        """Leave the file as one that nobody writes to; the lock is held."""
        if self._is_dirty():
            self._sync()

    def _close(self) -> None:
        try:
            if self._traits.writable:
                with self._lock:
                    self._settle()
        finally:
            super()._close()


def _traits(host: BlockDevice, below: BlockDevice | None, *, writable: bool) -> Traits:
    parts = [host] if below is None else [host, below]
    return Traits(
        writable=writable,
        discard=writable and host.traits.discard,
        fast_zero=writable and host.traits.fast_zero,
        parallelism=min(each.traits.parallelism for each in parts),
        minimum_block=max(each.traits.minimum_block for each in parts),
        preferred_block=64 * KiB,
        waits=max(each.traits.waits for each in parts),
    )


def bits_of(data: bytes, *, high_first: bool) -> bytes:
    """Return a byte, 0 or 1, for each bit of ``data``, whose bytes begin with their highest bit or their lowest."""
    if high_first:
        return b"".join(_BITS[byte][::-1] for byte in data)
    return b"".join(map(_BITS.__getitem__, data))


def apart(starts: Iterable[int], length: int, others: Sequence[tuple[int, int, str]]) -> bool:
    """Whether runs of ``length`` bytes at ``starts``, and some others, share no byte: the quick answer for many."""
    ordered = sorted(starts)
    if any(after - before < length for before, after in pairwise(ordered)):
        return False
    for start, end, _ in others:
        before = bisect_left(ordered, end) - 1
        if before >= 0 and ordered[before] + length > start:
            return False
    return next(overlaps(others), None) is None


def overlaps(places: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, str, str]]:
    """Yield (offset, what, what it lies over) for runs (start, end, what) of a file that share bytes."""
    end, before = 0, ""
    for start, stop, what in sorted(places):
        if start < end and stop > start:
            yield start, what, before
        if stop > end:
            end, before = stop, what


def cut_off(starts: Iterable[tuple[int, int]], block: int, size: int, end: int) -> Iterator[tuple[int, str]]:
    """Yield (index, what is wrong) of blocks (index, first byte) of which a file of ``end`` bytes lacks the end.

    Of the last block of a disk of ``size`` bytes the part that the disk has is enough.
    """
    for index, start in starts:
        wanted = min(block, size - index * block)
        if start <= end < start + wanted:
            yield index, f"block {index}: expected {wanted} bytes of it in the file, found {end - start}"
