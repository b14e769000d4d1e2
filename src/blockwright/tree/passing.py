"""Bodies that stream past once and are kept nowhere: what they were is told by a fingerprint.

Whoever can have the stream twice learns on its second pass where a body differs from what it is compared with.

Knows: fingerprints that do not depend on where holes lie. Refuses to know: trees, and where streams come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from blockwright.errors import SourceChanged
from blockwright.tree.content import Content, Fill, Runs
from blockwright.units import MiB

CHUNK: Final = MiB
_ZEROS: Final = bytes(CHUNK)
_SHOWN: Final = 16
_Read = Callable[[int, memoryview], None]


class PassedContent(Content):
    """A body that has gone by: its size, its place among the bodies of its stream, and its fingerprint."""

    __slots__ = ("digest", "number")

    def __init__(self, size: int, number: int, digest: bytes) -> None:
        super().__init__(size)
        self.number = number
        self.digest = digest

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Refuse: nobody kept it."""
        raise SourceChanged("a body that passed once cannot be read again")


class Fingerprints:
    """A place that keeps of each body its fingerprint, 32 bytes."""

    def __init__(self) -> None:
        self._count = 0

    def place(self, size: int, runs: Runs, fill: Fill, /) -> PassedContent:
        """Read the body, and return what it was."""
        number, self._count = self._count, self._count + 1
        return PassedContent(size, number, _digest(size, runs, lambda _offset, part: fill(part)))


def fingerprint(content: Content) -> bytes:
    """Return the fingerprint of a content that can be read. Raises what reading it does."""
    return _digest(content.size, content.runs(), content.read_into)


class Pinpoint:
    """A place that compares some bodies of a stream, by their numbers, with what they should be.

    ``found`` has the first byte that differs of each, with up to 16 bytes from there on as they passed.
    """

    def __init__(self, wanted: Mapping[int, Content]) -> None:
        self._wanted = wanted
        self._count = 0
        self.found: dict[int, tuple[int, bytes]] = {}

    def place(self, size: int, runs: Runs, fill: Fill, /) -> Content:
        """Read the body, and note where it differs."""
        number, self._count = self._count, self._count + 1
        other = self._wanted.get(number)
        if other is not None and other.size != size:
            other = None  # the stream is another one than at first
        for offset, buffer in _chunks(size, runs, lambda _offset, part: fill(part)):
            if other is not None and number not in self.found:
                self._compare(number, other, offset, buffer)
        if other is not None:
            self._compare_holes(number, other, runs)
        return PassedContent(size, number, b"")

    def _compare(self, number: int, other: Content, offset: int, buffer: bytearray) -> None:
        mine, theirs = bytes(buffer), other.read(offset, len(buffer))
        if mine != theirs:
            at = next(index for index in range(len(mine)) if mine[index] != theirs[index])
            self.found[number] = offset + at, mine[at : at + _SHOWN]

    def _compare_holes(self, number: int, other: Content, runs: Runs) -> None:
        """Look for data of the other one in chunks that no run of the body touches."""
        touched = {chunk for start, length in runs for chunk in range(start // CHUNK, -(-(start + length) // CHUNK))}
        for offset, buffer in _chunks(other.size, other.runs(), other.read_into):
            if number in self.found and offset > self.found[number][0]:
                return
            if offset // CHUNK not in touched and buffer != _ZEROS[: len(buffer)]:
                at = offset + next(index for index, byte in enumerate(buffer) if byte)
                self.found[number] = at, bytes(min(_SHOWN, other.size - at))
                return


def _digest(size: int, runs: Runs, read: _Read) -> bytes:
    """Return a hash over every chunk that is not all zeros, each with its offset, and over the size."""
    state = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=32)
    for offset, buffer in _chunks(size, runs, read):
        if buffer != _ZEROS[: len(buffer)]:
            state.update(offset.to_bytes(8, "little"))
            state.update(buffer)
    return state.digest()


def _chunks(size: int, runs: Runs, read: _Read) -> Iterator[tuple[int, bytearray]]:
    """Yield (offset, bytes) of each chunk of a body that a run touches, zeros where none does.

    The last one ends with the body, of ``size`` bytes, so that small ones cost little. The buffer may be reused.
    ``read(offset, buffer)`` is called with ascending ranges, and for all bytes of the runs.
    """
    buffer, current, filled = bytearray(min(CHUNK, size)), -1, 0
    for start, length in runs:
        position, end = start, start + length
        while position < end:
            chunk, within = divmod(position, CHUNK)
            if chunk != current:
                if current >= 0:
                    buffer[filled:] = _ZEROS[filled : len(buffer)]
                    yield current * CHUNK, buffer
                current, filled = chunk, 0
                if len(buffer) != min(CHUNK, size - chunk * CHUNK):
                    buffer = bytearray(size - chunk * CHUNK)
            part = min(CHUNK - within, end - position)
            if within > filled:
                buffer[filled:within] = _ZEROS[filled:within]
            read(position, memoryview(buffer)[within : within + part])
            position, filled = position + part, within + part
    if current >= 0:
        buffer[filled:] = _ZEROS[filled : len(buffer)]
        yield current * CHUNK, buffer
