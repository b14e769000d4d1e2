"""A disk becomes a gzip or zstd file: pieces of it, compressed by a pool of threads, one behind the other.

Each piece is a member (gzip) or a frame (zstd) of its own, which every reader takes for one file.

Knows: the two compressions. Refuses to know: what the disk holds.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Final

from blockwright.codec import zstd
from blockwright.device.base import BlockDevice
from blockwright.format.packing import GROUP, PackingDevice

GZIP_LEVEL: Final = 6
ZSTD_LEVEL: Final = 3
_GZIP: Final = 31
"""zlib's window for a gzip header, in which it leaves the time out."""


class CompressedRaw(PackingDevice[tuple[int, bytes]]):
    """Writes a disk of ``size`` bytes, compressed as ``compression`` (gzip or zstd) says, to ``file``."""

    def __init__(
        self, file: BlockDevice, size: int, compression: str, *, level: int | None = None, threads: int | None = None
    ) -> None:
        super().__init__(file, size, threads=threads)
        self._compression = compression
        self._level = level
        self._next = 0  # the start of the piece whose turn it is

    def _pack(self, start: int, data: bytearray) -> tuple[int, bytes]:
        return start, compress(data, self._compression, self._level)

    def _append(self, packed: tuple[int, bytes]) -> None:
        start, data = packed
        self._append_zeros(start)
        self._put(data)
        self._next = min(start + GROUP, self._size)

    def _append_zeros(self, end: int) -> None:
        while self._next < end:
            length = min(GROUP, end - self._next)
            self._put(_compressed_zeros(length, self._compression, self._level))
            self._next += length
            if self._pending_bytes >= GROUP:
                self._store()

    def _append_end(self) -> None:
        self._append_zeros(self._size)
        if not self._size:
            self._put(compress(b"", self._compression, self._level))


def compress(data: bytes | bytearray, compression: str, level: int | None) -> bytes:
    """Return a gzip member or a zstd frame of the data."""
    if compression == "zstd":
        packed: bytes = zstd.library().compress(data, ZSTD_LEVEL if level is None else level)
        return packed
    packer = zlib.compressobj(GZIP_LEVEL if level is None else level, zlib.DEFLATED, _GZIP, 9)
    return packer.compress(data) + packer.flush()


@lru_cache(maxsize=4)
def _compressed_zeros(length: int, compression: str, level: int | None) -> bytes:
    return compress(bytes(length), compression, level)
