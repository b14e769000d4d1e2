"""zstd frame by frame: where each lies is told by a seek table, else by the headers of its blocks, without decoding.

Knows: frames, blocks, skippable frames (RFC 8878) and the seek table of zstd's seekable format 0.1.0. Refuses to
know: what is in a block.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, LimitExceeded
from blockwright.format.packed.device import MEMORY, CompressedDevice, PackedDevice, SpooledDevice, reader
from blockwright.tree.decompress import decode
from blockwright.units import KiB, MiB

MAX_FRAMES: Final = 1 << 20
MAX_FRAME: Final = 64 * MiB
"""Bytes of a frame, decoded, up to which it is decoded anew for whoever reads in it."""
MAX_BLOCKS: Final = 1 << 24
_MAGIC: Final = 0xFD2F_B528
_SKIPPABLE: Final = 0x184D_2A50
_TABLE: Final = _SKIPPABLE + 0xE
_TABLE_END: Final = 0x8F92_EAB1
_RLE: Final = 1
_RESERVED: Final = 3


class Frame(NamedTuple):
    """A frame: where it lies in the disk, and in the file."""

    offset: int
    length: int
    at: int
    end: int


def open_zstd(file: BlockDevice) -> CompressedDevice:
    """Return the disk in a file of zstd frames. Raises Corrupt, LimitExceeded."""
    frames = _by_table(file) or _by_headers(file)
    if frames is None:
        return SpooledDevice(file, None, decode(reader(file), "zstd", MEMORY))
    size = frames[-1].offset + frames[-1].length if frames else 0
    if any(each.length > MAX_FRAME for each in frames):
        return SpooledDevice(file, size, decode(reader(file), "zstd", MEMORY))
    places = [each.offset for each in frames]

    def begins(offset: int) -> int:
        return places[bisect_right(places, offset) - 1]

    def start(offset: int) -> Iterator[bytes]:
        frame = frames[bisect_right(places, offset) - 1]
        return decode(reader(file, frame.at, frame.end), "zstd", MEMORY)

    return PackedDevice(file, size, begins, start)


def _by_table(file: BlockDevice) -> list[Frame] | None:
    """Return the frames that a seek table at the file's end names; None where there is none that fits the file."""
    if file.size < 17 or _number(file.read(file.size - 4, 4)) != _TABLE_END:
        return None
    foot = file.read(file.size - 9, 5)
    count, width = _number(foot[:4]), 12 if foot[4] & 0x80 else 8
    length = count * width + 9
    start = file.size - length - 8
    if count > MAX_FRAMES or start < 0:
        return None
    head = file.read(start, 8)
    if (_number(head[:4]), _number(head[4:])) != (_TABLE, length):
        return None
    table, found, offset, at = file.read(start + 8, count * width), [], 0, 0
    for place in range(0, len(table), width):
        packed, size = _number(table[place : place + 4]), _number(table[place + 4 : place + 8])
        if size:
            found.append(Frame(offset, size, at, at + packed))
        offset, at = offset + size, at + packed
    return found if at == start else None


class _Window:
    """Reads few bytes here and there, ascending, by large reads."""

    def __init__(self, file: BlockDevice) -> None:
        self._file = file
        self._start = 0
        self._data = b""

    def read(self, at: int, length: int) -> bytes:
        within = at - self._start
        if not 0 <= within <= len(self._data) - length:
            self._start, within = at, 0
            self._data = self._file.read(at, min(64 * KiB, self._file.size - at)) if at < self._file.size else b""
        found = self._data[within : within + length]
        if len(found) < length:
            raise Corrupt("zstd: expected more of a frame, found the end of the file", offset=at)
        return found


def _by_headers(file: BlockDevice) -> list[Frame] | None:
    """Return the frames as their headers tell them; None where one does not say how much it holds."""
    window, found = _Window(file), list[Frame]()
    offset = at = blocks = 0
    known = True
    while at < file.size:
        start, magic = at, _number(window.read(at, 4))
        if magic & ~0xF == _SKIPPABLE:
            at += 8 + _number(window.read(at + 4, 4))
            if at > file.size:
                raise Corrupt("zstd: expected a skippable frame within the file", offset=start)
            continue
        if magic != _MAGIC:
            raise Corrupt("zstd: expected the end or another frame, found something else", offset=at)
        length, at, checked = _frame_header(window, at + 4)
        last = False
        while not last:
            head = _number(window.read(at, 3))
            last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
            if kind == _RESERVED:
                raise Corrupt("zstd: expected a block of a known kind, found another", offset=at)
            at += 3 + (1 if kind == _RLE else size)
            blocks += 1
            if blocks > MAX_BLOCKS:
                raise LimitExceeded(f"zstd: expected at most {MAX_BLOCKS} blocks, found more")
        at += 4 if checked else 0
        if at > file.size:
            raise Corrupt("zstd: expected a frame within the file, found its end behind", offset=start)
        known = known and length is not None
        if length:
            found.append(Frame(offset, length, start, at))
            offset += length
        if len(found) > MAX_FRAMES:
            raise LimitExceeded(f"zstd: expected at most {MAX_FRAMES} frames, found more")
    return found if known else None


def _frame_header(window: _Window, at: int) -> tuple[int | None, int, bool]:
    """Return the bytes that a frame holds, if it says so, where its blocks begin, and whether a checksum follows."""
    (flags,) = window.read(at, 1)
    single = bool(flags & 0x20)
    at += 1 if single else 2
    at += (0, 1, 2, 4)[flags & 3]
    width = (1 if single else 0, 2, 4, 8)[flags >> 6]
    length = _number(window.read(at, width)) + (256 if width == 2 else 0) if width else None
    return length, at + width, bool(flags & 4)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
