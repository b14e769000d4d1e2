"""Compressed clusters: unpacked, and a few of them kept; packed, for those who write them.

Knows: raw deflate and zstd frames. Refuses to know: where clusters lie.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from blockwright.codec import zstd
from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt
from blockwright.format.qcow2.layout import SPEC, Compression, Geometry
from blockwright.format.unpacked import Unpacked, is_noise

WINDOW: Final = -12
"""zlib's window for what is written: 4 KiB, without a header, as readers of old expect."""
_WIDEST: Final = -15

MAX_FRAMES: Final = 256
"""Frames of zstd that one cluster takes: writers make one, and frames of nothing would be decoded one by one."""

ZLIB_LEVEL: Final = 6
ZSTD_LEVEL: Final = 3


class Unpacker:
    """Unpacks the compressed clusters of ``file``. Thread-safe; keyed by the L2 entry that describes a cluster."""

    def __init__(self, file: BlockDevice, geometry: Geometry, compression: int) -> None:
        self._file = file
        self._geometry = geometry
        self._unpack: Callable[[bytes, int], bytes] = _inflate if compression == Compression.ZLIB else _unzstd
        self._unpacked = Unpacked(geometry.cluster)

    def kept(self, entry: int) -> memoryview | None:
        """Return the cluster's bytes if they are in memory."""
        return self._unpacked.find(entry)

    def cluster(self, entry: int) -> memoryview:
        """Return the bytes of the cluster that the L2 entry describes. Raises Corrupt, OSError."""
        found = self.kept(entry)
        if found is not None:
            return found
        offset, length = self._geometry.compressed(entry)
        size = self._file.size
        if offset >= size:
            raise Corrupt(
                f"qcow2 compressed cluster: expected to lie within {size} bytes of the file, found it at {offset}",
                offset=offset,
                spec=SPEC,
            )
        packed = self._file.read(offset, min(length, size - offset))
        try:
            data = self._unpack(packed, self._geometry.cluster)
        except zlib.error as error:
            raise Corrupt(f"qcow2 compressed cluster: {error}", offset=offset, spec=SPEC) from None
        if len(data) != self._geometry.cluster:
            raise Corrupt(
                f"qcow2 compressed cluster: expected {self._geometry.cluster} bytes, found {len(data)}",
                offset=offset,
                spec=SPEC,
            )
        return self._unpacked.keep(entry, data)

    def forget(self) -> None:
        """Forget what is kept: an entry may come to describe another cluster."""
        self._unpacked.clear()


def _inflate(packed: bytes, size: int) -> bytes:
    return zlib.decompressobj(_WIDEST).decompress(packed, size)


def _unzstd(packed: bytes, size: int) -> bytes:
    """Return up to ``size`` bytes of frame behind frame; what lies behind the last one needed is padding.

    Raises zlib.error, as what inflates does; that there are more than MAX_FRAMES is told by it, too.
    """
    library = zstd.library()
    data, rest = bytearray(), memoryview(packed)
    for _ in range(MAX_FRAMES):
        decoder = library.ZstdDecompressor()
        try:
            data += decoder.decompress(rest, size - len(data))
        except library.ZstdError as error:
            raise zlib.error(str(error)) from None
        rest = rest[len(rest) - len(decoder.unused_data) :]
        if len(data) == size or not decoder.eof or not rest:
            return bytes(data)
    raise zlib.error(f"expected at most {MAX_FRAMES} frames, found more")


def pack(data: memoryview, compression: int, level: int | None) -> bytes | memoryview:
    """Return the cluster compressed. What is not shorter is worth nothing, and is for the caller to notice."""
    if compression == Compression.ZSTD:
        packed: bytes = zstd.library().compress(data, ZSTD_LEVEL if level is None else level)
        return packed
    if is_noise(data):
        return data
    packer = zlib.compressobj(ZLIB_LEVEL if level is None else level, zlib.DEFLATED, WINDOW, 9)
    return packer.compress(data) + packer.flush()
