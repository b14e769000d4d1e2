"""Compressed grains: unpacked, and a few of them kept; packed, for those who write them.

Knows: zlib streams behind a marker. Refuses to know: where grains lie.
"""

from __future__ import annotations

import zlib
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt
from blockwright.format.unpacked import Unpacked, is_noise
from blockwright.format.vmdk.layout import MARKER_HEAD, SPEC, SparseExtentHeader, grain_head
from blockwright.units import SECTOR, align_up

LEVEL: Final = 6


class Unpacker:
    """Unpacks the grains of ``file``. Thread-safe."""

    def __init__(self, file: BlockDevice, header: SparseExtentHeader) -> None:
        self._file = file
        self._header = header
        self._unpacked = Unpacked(header.grain)

    def kept(self, start: int) -> memoryview | None:
        """Return the grain that begins at byte ``start`` of the extent if it is in memory."""
        return self._unpacked.find(start)

    def grain(self, offset: int, start: int) -> memoryview:
        """Return the grain that begins at byte ``start`` of the extent; its marker is at ``offset`` of the file.

        Raises Corrupt, OSError.
        """
        found = self.kept(start)
        if found is not None:
            return found
        return self._unpacked.keep(start, unpack(self._file, self._header, offset, start))


def unpack(file: BlockDevice, header: SparseExtentHeader, offset: int, start: int) -> bytes:
    """Return the bytes of the grain whose marker is at ``offset`` of the file. Raises Corrupt, OSError."""
    grain, size = header.grain, file.size
    # A first read that holds most compressed grains, and no more than there is.
    head = file.read(offset, min(size - offset, grain + SECTOR))
    if len(head) < MARKER_HEAD:
        raise _wrong(offset, f"{MARKER_HEAD} bytes of a marker", len(head))
    value, length = int.from_bytes(head[:8], "little"), int.from_bytes(head[8:12], "little")
    if value * SECTOR != start:
        raise _wrong(offset, f"the marker of sector {start // SECTOR}", f"that of {value}")
    if not 0 < length <= longest(grain) or offset + MARKER_HEAD + length > size:
        raise _wrong(offset + 8, f"1 to {longest(grain)} bytes within the file", length)
    if MARKER_HEAD + length > len(head):
        head += file.read(offset + len(head), MARKER_HEAD + length - len(head))
    decoder = zlib.decompressobj()
    try:
        data = decoder.decompress(memoryview(head)[MARKER_HEAD : MARKER_HEAD + length], grain + 1)
    except zlib.error as error:
        raise Corrupt(f"vmdk compressed grain: {error}", offset=offset, spec=SPEC) from None
    if not decoder.eof or not min(grain, header.size - start) <= len(data) <= grain:
        raise _wrong(offset, f"{grain} bytes", f"{len(data)}{'' if decoder.eof else ' and no end'}")
    return data.ljust(grain, b"\0")


def longest(grain: int) -> int:
    """Return the most bytes that a compressed grain may take: what deflate adds to noise, and something to spare."""
    return grain + grain // 8 + 64


def _wrong(offset: int, expected: str, found: object) -> Corrupt:
    return Corrupt(f"vmdk compressed grain: expected {expected}, found {found}", offset=offset, spec=SPEC)


def pack(data: memoryview, sector: int, level: int | None) -> bytes:
    """Return a grain that begins at ``sector`` as it stands in a stream: marker, data, zeros to whole sectors."""
    if level is None:
        level = 0 if is_noise(data) else LEVEL
    packed = zlib.compress(data, level)
    length = MARKER_HEAD + len(packed)
    return grain_head(sector, len(packed)) + packed + bytes(align_up(length, SECTOR) - length)
