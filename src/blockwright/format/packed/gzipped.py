"""gzip with places to begin at: the decoder's state, copied now and then while all is decoded once.

That once tells the size, which nothing in the file does, and which parts are zeros. The states are no more than
MAX_STATES: where there would be more, every second one is dropped, and the distance between them doubles.

Knows: RFC 1952's members, one behind the other. Refuses to know: deflate.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, LimitExceeded
from blockwright.format.packed.device import BLOCK, MAX_DISK, DataMap, PackedDevice
from blockwright.units import KiB, MiB

if TYPE_CHECKING:
    _Decoder = Any  # zlib does not name its class

INPUT: Final = 16 * KiB
FIRST_INPUT: Final = 512
"""Bytes read first of a member behind a short one: what lies behind a member's end is read again for the next."""
DISTANCE: Final = 4 * MiB
"""Bytes of the disk between two states at first."""
MAX_STATES: Final = 256
"""States, of 50 KiB each."""
_WBITS: Final = 31
_MAGIC: Final = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class State:
    """The decoder has given everything before ``position``, and goes on with the bytes of the file from ``at`` on."""

    position: int
    at: int
    decoder: _Decoder


@dataclass(slots=True)
class _States:
    """The states so far, and how far apart they are."""

    distance: int = DISTANCE
    found: list[State] = field(default_factory=list)

    def note(self, position: int, at: int, decoder: _Decoder) -> None:
        if self.found and position < self.found[-1].position + self.distance:
            return
        self.found.append(State(position, at, decoder.copy()))
        if len(self.found) > MAX_STATES:
            self.found = self.found[::2]
            self.distance *= 2


def open_gzip(file: BlockDevice) -> PackedDevice:
    """Return the disk in a file of gzip members, all of which were decoded once. Raises Corrupt, LimitExceeded."""
    states, data = _States(), DataMap()
    position, rest = 0, b""
    for piece in _decoded(file, State(0, 0, zlib.decompressobj(_WBITS)), states):
        rest += piece
        whole = len(rest) // BLOCK * BLOCK
        data.note(position - position % BLOCK, memoryview(rest)[:whole])
        position, rest = position - position % BLOCK + whole + (len(rest) - whole), rest[whole:]
        if position > MAX_DISK:
            raise LimitExceeded(f"gzip: expected at most {MAX_DISK} bytes when decoded, found more")
    data.note(position - len(rest), rest)
    places = [each.position for each in states.found]

    def begins(offset: int) -> int:
        return places[bisect_right(places, offset) - 1]

    def start(offset: int) -> Iterator[bytes]:
        state = states.found[places.index(offset)]
        return _decoded(file, State(offset, state.at, state.decoder.copy()), None)

    return PackedDevice(file, position, begins, start, data)


def _decoded(file: BlockDevice, state: State, states: _States | None) -> Iterator[bytes]:
    """Yield what the file holds from a state on, and keep states on the way."""
    position, at, decoder = state.position, state.at, state.decoder
    member, length = at, INPUT
    while True:
        data = file.read(at, min(length, file.size - at))
        if not data:
            raise Corrupt("gzip: expected more of a member, found the end of the file", offset=at)
        end = at + len(data)
        while data:
            if states is not None:
                states.note(position, end - len(data), decoder)
            try:
                piece = decoder.decompress(data, MiB)
            except zlib.error as error:
                raise Corrupt(f"gzip: {error}", offset=at) from None
            position += len(piece)
            if piece:
                yield piece
            if decoder.eof:
                break
            data = decoder.unconsumed_tail
        at, length = end, min(2 * length, INPUT)
        if decoder.eof:
            at -= len(decoder.unused_data)
            length = min(max(FIRST_INPUT, 2 * (at - member)), INPUT)
            member = at = _next_member(file, at)
            if at == file.size:
                return
            decoder = zlib.decompressobj(_WBITS)


def _next_member(file: BlockDevice, at: int) -> int:
    """Return where the next member begins, behind padding; the file's end where none does. Raises Corrupt."""
    length = FIRST_INPUT
    while at < file.size:
        data = file.read(at, min(length, file.size - at))
        length = min(2 * length, INPUT)
        left = data.lstrip(b"\0")
        at += len(data) - len(left)
        if left:
            if file.read(at, min(2, file.size - at)) != _MAGIC:
                raise Corrupt("gzip: expected the end or another member, found something else", offset=at)
            return at
    return at
