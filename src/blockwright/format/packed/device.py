"""Compressed raw images as disks to read: decoded from the nearest place where that can begin, or kept aside.

``PackedDevice`` keeps what was decoded last. ``SpooledDevice`` is for streams in which decoding can only begin in
front: what was decoded lies in a temporary file without a name, its zeros as holes.

Knows: caching and order. Refuses to know: how any format is decoded.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from blockwright.device import hostfile
from blockwright.device.base import BlockDevice, Traits
from blockwright.device.blockmap import BlockMap
from blockwright.device.extent import DATA, HOLE, ZERO, Extent
from blockwright.device.vector import Cutter, clear, total
from blockwright.errors import Cancelled, Corrupt, LimitExceeded
from blockwright.format.describe import Described
from blockwright.tree.rules import DEFAULT_RULES
from blockwright.units import GiB, KiB, TiB

PIECE: Final = 256 * KiB
"""Bytes that are kept together."""
KEPT: Final = 64
"""Pieces that are kept: 16 MiB."""
MAX_DISK: Final = 16 * TiB
"""Bytes of a disk, so that decoding ends."""
MAX_SPOOL: Final = 256 * GiB
"""Bytes of data in a temporary file."""
BLOCK: Final = 64 * KiB
"""Bytes of which it is known whether they are zeros."""
MEMORY: Final = DEFAULT_RULES.memory
"""Bytes that a decoder may take for its window."""

_ZEROS: Final = bytes(BLOCK)
Pieces = Iterator[bytes]
"""What a decoder gives, in pieces of any length."""


class DataMap:
    """Which blocks of BLOCK bytes of a stream hold anything."""

    def __init__(self) -> None:
        self._map = BlockMap(0)

    def note(self, offset: int, data: bytes | memoryview) -> None:
        """Take note of bytes at a multiple of BLOCK."""
        for at in range(0, len(data), BLOCK):
            part = data[at : at + BLOCK]
            if part != _ZEROS[: len(part)]:
                block = (offset + at) // BLOCK
                self._map.set(block, block + 1, 1)

    def extents(self, offset: int, end: int) -> Iterator[Extent]:
        """Yield extents that cover [offset, end)."""
        for low, high, state in self._map.runs(offset // BLOCK, -(-end // BLOCK)):
            start, stop = max(offset, low * BLOCK), min(end, high * BLOCK)
            yield Extent(start, stop - start, DATA if state else HOLE | ZERO)


class _Position:
    """A decoder that has given everything before ``at``."""

    def __init__(self, at: int, pieces: Pieces) -> None:
        self.at = at
        self._pieces = pieces
        self._left = memoryview(b"")

    def look_ahead(self) -> bool:
        """Decode what follows, with the checks at the end of a block, and return whether anything does."""
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        return bool(self._left)

    def take(self, length: int) -> bytes:
        """Return up to ``length`` bytes, fewer at the end only."""
        parts, wanted = [], length
        while wanted:
            if not self._left:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._left = memoryview(piece)
            parts.append(self._left[:wanted])
            self._left = self._left[wanted:]
            wanted -= len(parts[-1])
        self.at += length - wanted
        return b"".join(parts)


class CompressedDevice(BlockDevice, Described):
    """A disk of ``size`` bytes in a compressed ``file``, which it owns. One call at a time."""

    def __init__(self, file: BlockDevice, size: int) -> None:
        if size > MAX_DISK:
            raise LimitExceeded(f"compressed image: expected at most {MAX_DISK} bytes when decoded, found {size}")
        super().__init__(size, Traits(preferred_block=PIECE))
        self._file = file

    def _close(self) -> None:
        self._file.close()


class PackedDevice(CompressedDevice):
    """Decodes what is asked for. ``start`` gives, for a position, where decoding can begin before it, and that.

    ``data`` tells what holds anything, None where nobody knows.
    """

    def __init__(
        self,
        file: BlockDevice,
        size: int,
        begins: Callable[[int], int],
        start: Callable[[int], Pieces],
        data: DataMap | None = None,
    ) -> None:
        super().__init__(file, size)
        self._begins = begins
        self._start = start
        self._data = data
        self._decoder: _Position | None = None
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        cutter, end = Cutter(buffers), offset + total(buffers)
        while offset < end:
            number, within = divmod(offset, PIECE)
            part = min(PIECE - within, end - offset)
            source = memoryview(self._piece(number))[within : within + part]
            for view in cutter.take(part):
                view[:] = source[: len(view)]
                source = source[len(view) :]
            offset += part

    def _piece(self, number: int) -> bytes:
        found = self._kept.get(number)
        if found is not None:
            self._kept.move_to_end(number)
            return found
        offset = number * PIECE
        wanted = min(PIECE, self._size - offset)
        found = self._decode(offset, wanted)
        self._kept[number] = found
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    def _decode(self, offset: int, length: int) -> bytes:
        parts = b""
        decoder = self._decoder
        self._decoder = None  # whatever fails has no place to go on from
        while length:
            begin = self._begins(offset)
            fresh = decoder is None or not begin <= decoder.at <= offset
            if decoder is None or fresh:
                decoder = _Position(begin, self._start(begin))
            while decoder.at < offset and decoder.take(min(PIECE, offset - decoder.at)):
                pass
            part = decoder.take(length) if decoder.at == offset else b""
            if not part:
                if fresh:
                    raise Corrupt(f"compressed image: expected {self._size} bytes, found an end at {decoder.at}")
                decoder = None  # it ended where another one begins
                continue
            parts += part
            offset += len(part)
            length -= len(part)
            if offset == self._size or self._begins(offset) == offset:
                more = decoder.look_ahead()  # which raises where a check does not hold
                if more and offset == self._size:
                    raise Corrupt(f"compressed image: expected {self._size} bytes, found more")
        self._decoder = decoder
        return parts

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        if self._data is None:
            yield Extent(offset, length, DATA)
        else:
            yield from self._data.extents(offset, offset + length)


class SpooledDevice(CompressedDevice):
    """Decodes from the front on, into a temporary file. ``size`` None is found out by decoding all at once.

    What could not be decoded or kept is raised for each read that goes on from there.
    """

    def __init__(self, file: BlockDevice, size: int | None, pieces: Pieces) -> None:
        """Raises FormatError, OSError where the temporary file cannot be written."""
        super().__init__(file, size or 0)
        self._spool = tempfile.TemporaryFile(prefix="blockwright-", buffering=0)  # noqa: SIM115 - closed with the device
        self._decoder = _Position(0, pieces)
        self._data = DataMap()
        self._used = 0
        self._kept = 0  # the end of what is in the temporary file
        self._trouble: Exception | None = None
        self._whole = size is not None
        if size is None:
            try:
                self._decode(MAX_DISK + 1)
            except BaseException:
                self._spool.close()
                raise
            self._size = self._decoder.at
            self._whole = True

    def _decode(self, end: int) -> None:
        """Have the bytes before ``end`` in the temporary file, or all there are."""
        while self._kept < end:
            if self._trouble is not None:
                raise self._trouble
            try:
                data = self._decoder.take(PIECE)
                self._keep(data)
            except BaseException as error:
                stopped = Cancelled("compressed image: was stopped while it was decoded")
                self._trouble = error if isinstance(error, Exception) else stopped
                raise
            self._kept += len(data)
            if len(data) < PIECE:
                break

    def _keep(self, data: bytes) -> None:
        """Keep what was decoded last. Raises FormatError where it is not what there should be, OSError."""
        offset, end = self._kept, self._decoder.at
        if end > (self._size if self._whole else MAX_DISK):
            raise LimitExceeded(f"compressed image: expected at most {self._size or MAX_DISK} bytes, found more")
        self._data.note(offset, data)
        for extent in self._data.extents(offset, end):
            if not extent.flags:
                self._used += extent.length
                if self._used > MAX_SPOOL:
                    raise LimitExceeded(f"compressed image: expected at most {MAX_SPOOL} bytes of data")
                part = memoryview(data)[extent.offset - offset : extent.end - offset]
                hostfile.write_full(self._spool.fileno(), extent.offset, [part])
        if self._whole and end == self._size and self._decoder.look_ahead():
            raise Corrupt(f"compressed image: expected {self._size} bytes, found more")
        if self._whole and len(data) < PIECE and end < self._size:
            raise Corrupt(f"compressed image: expected {self._size} bytes, found {end}")

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._decode(min(self._size, offset + total(buffers)))
        for view in buffers:
            found = hostfile.read_full(self._spool.fileno(), offset, [view])
            clear(view[found:])  # zeros at the end were never written
            offset += len(view)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        known = max(offset, min(offset + length, self._kept // BLOCK * BLOCK))
        if known > offset:
            yield from self._data.extents(offset, known)
        if known < offset + length:
            yield Extent(known, offset + length - known, DATA)

    def _close(self) -> None:
        try:
            self._spool.close()
        finally:
            super()._close()


def reader(file: BlockDevice, start: int = 0, end: int | None = None) -> Callable[[int], bytes]:
    """Return a function that gives the bytes of [start, end) of a file, up to so many at each call."""
    position, stop = start, file.size if end is None else end

    def read(length: int) -> bytes:
        nonlocal position
        data = file.read(position, max(0, min(length, stop - position)))
        position += len(data)
        return data

    return read
