"""xz with its index: each block can be decoded by itself, as a stream of one block made around it.

Knows: streams, their footers and indexes, and padding (The .xz File Format 1.2.1). Refuses to know: LZMA.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, LimitExceeded
from blockwright.format.packed.device import MEMORY, CompressedDevice, PackedDevice, SpooledDevice, reader
from blockwright.tree.decompress import decode
from blockwright.units import MiB, align_up

HEADER: Final = 12
MAX_INDEX: Final = 16 * MiB
"""Bytes of one stream's index."""
MAX_BLOCKS: Final = 1 << 20
MAX_STREAMS: Final = 1 << 12
MAX_PADDING: Final = 1 << 30
MAX_BLOCK: Final = 64 * MiB
"""Bytes of a block, decoded, up to which it is decoded anew for whoever reads in it."""
_MAGIC: Final = b"\xfd7zXZ\0"
_END: Final = b"YZ"


class Block(NamedTuple):
    """A block: where it lies in the disk and in the file, its sizes as the index has them, its stream's flags."""

    offset: int
    length: int
    at: int
    unpadded: int
    flags: bytes


def open_xz(file: BlockDevice) -> CompressedDevice:
    """Return the disk in a file of xz streams. Raises Corrupt, LimitExceeded."""
    blocks = read_blocks(file)
    size = blocks[-1].offset + blocks[-1].length if blocks else 0
    if any(each.length > MAX_BLOCK for each in blocks):
        return SpooledDevice(file, size, decode(reader(file), "xz", MEMORY))
    places = [each.offset for each in blocks]

    def begins(offset: int) -> int:
        return places[bisect_right(places, offset) - 1]

    def start(offset: int) -> Iterator[bytes]:
        return _decoded(file, blocks[bisect_right(places, offset) - 1])

    return PackedDevice(file, size, begins, start)


def read_blocks(file: BlockDevice) -> list[Block]:
    """Return all blocks that hold anything, in order, from the indexes. Raises Corrupt, LimitExceeded."""
    streams: list[list[tuple[int, int, int, bytes]]] = []
    end, count = file.size, 0
    while end:
        end = _without_padding(file, end)
        records, end = _stream(file, end)
        streams.append(records)
        count += len(records)
        if count > MAX_BLOCKS or len(streams) > MAX_STREAMS:
            raise LimitExceeded(f"xz: expected at most {MAX_BLOCKS} blocks in {MAX_STREAMS} streams, found more")
    found, offset = [], 0
    for at, unpadded, length, flags in chain.from_iterable(reversed(streams)):
        if length:
            found.append(Block(offset, length, at, unpadded, flags))
        offset += length
    return found


def _without_padding(file: BlockDevice, end: int) -> int:
    """Return where the zeros begin that end there, which are a multiple of 4 bytes. Raises Corrupt, LimitExceeded."""
    position = end
    while position:
        part = min(MiB, position)
        left = len(file.read(position - part, part).rstrip(b"\0"))
        position -= part - left
        if end - position > MAX_PADDING:
            raise LimitExceeded(f"xz: expected at most {MAX_PADDING} bytes of padding, found more", offset=position)
        if left:
            break
    if not position or (end - position) % 4:
        raise Corrupt("xz: expected a stream and a multiple of 4 bytes of padding, found others", offset=position)
    return position


def _stream(file: BlockDevice, end: int) -> tuple[list[tuple[int, int, int, bytes]], int]:
    """Return (at, unpadded size, length, flags) of the blocks of the stream that ends there, and where it begins."""
    footer = file.read(end - HEADER, HEADER) if end >= 2 * HEADER else b""
    if footer[10:] != _END or zlib.crc32(footer[4:10]) != int.from_bytes(footer[:4], "little"):
        raise Corrupt("xz: expected the footer of a stream, found another", offset=max(0, end - HEADER))
    length = (int.from_bytes(footer[4:8], "little") + 1) * 4
    start = end - HEADER - length
    if length > MAX_INDEX:
        raise LimitExceeded(f"xz index: expected at most {MAX_INDEX} bytes, found {length}", offset=end - 8)
    if start < HEADER:
        raise Corrupt(f"xz index: expected to lie within the file, found {length} bytes", offset=end - 8)
    records = _records(file.read(start, length), start)
    begin = start - sum(align_up(unpadded, 4) for unpadded, _ in records) - HEADER
    if begin < 0 or file.read(begin, 8) != _MAGIC + footer[8:10]:
        raise Corrupt("xz: expected a stream as long as its index says, found another", offset=max(0, begin))
    found, at = [], begin + HEADER
    for unpadded, size in records:
        found.append((at, unpadded, size, footer[8:10]))
        at += align_up(unpadded, 4)
    return found, begin


def _records(index: bytes, at: int) -> list[tuple[int, int]]:
    """Return (unpadded size, decoded size) of each block."""
    if index[0] or zlib.crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        raise Corrupt("xz index: its checksum does not hold", offset=at)
    count, position = _number(index, 1, at)
    if count > min(MAX_BLOCKS, len(index)):
        raise LimitExceeded(f"xz index: expected at most {MAX_BLOCKS} blocks, found {count}", offset=at)
    found = []
    for _ in range(count):
        unpadded, position = _number(index, position, at)
        size, position = _number(index, position, at)
        if unpadded < 5:
            raise Corrupt(f"xz index: expected a block of at least 5 bytes, found {unpadded}", offset=at)
        found.append((unpadded, size))
    return found


def _number(data: bytes, position: int, at: int) -> tuple[int, int]:
    """Return a variable-length number, and where it ends."""
    value = shift = 0
    while position < len(data) - 4 and shift < 63:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if not byte & 0x80:
            return value, position
    raise Corrupt("xz index: a number has no end", offset=at + position)


def _decoded(file: BlockDevice, block: Block) -> Iterator[bytes]:
    """Yield what a block holds, and nothing where its sizes or its check are others than the index says."""
    header = _MAGIC + block.flags + zlib.crc32(block.flags).to_bytes(4, "little")
    index = b"\0\x01" + _packed(block.unpadded) + _packed(block.length)
    index = index.ljust(align_up(len(index), 4), b"\0")
    index += zlib.crc32(index).to_bytes(4, "little")
    last = (len(index) // 4 - 1).to_bytes(4, "little") + block.flags
    tail = index + zlib.crc32(last).to_bytes(4, "little") + last + _END
    body = reader(file, block.at, min(file.size, block.at + align_up(block.unpadded, 4)))
    parts = chain((header,), iter(lambda: body(MiB), b""), (tail,))
    return decode(lambda _: next(parts, b""), "xz", MEMORY)


def _packed(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
