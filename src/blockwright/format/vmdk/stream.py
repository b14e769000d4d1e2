"""What is written becomes a stream-optimized VMDK: compressed grains, by a pool of threads and in order.

The strict form: each grain behind its marker, each grain table behind the grains that it maps, then the directory,
the footer and the end, so that a pipe takes it and a reader finds grains by tables.

Knows: order. Refuses to know: how bytes are compressed (``compressed``).

Source: VMware, Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents".
"""

from __future__ import annotations

import os
import zlib
from array import array
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.errors import NoSpace, UsageError
from blockwright.format.packing import PackingDevice
from blockwright.format.vmdk.compressed import pack
from blockwright.format.vmdk.create import DESCRIPTOR_SECTORS, GRAIN, GRAIN_SECTORS, Options, first_id
from blockwright.format.vmdk.descriptor import STREAM, Descriptor, Extent, next_id, text_of
from blockwright.format.vmdk.layout import (
    AT_END,
    DEFLATE,
    ENTRIES,
    MAX_TABLES,
    NEWLINES,
    TABLE_BYTES,
    TABLE_SECTORS,
    Flag,
    MarkerType,
    SparseHeader,
    entry_bytes,
    metadata_marker,
)
from blockwright.units import SECTOR, align_up, ceil_div

OVERHEAD: Final = 128
"""The sector at which the first grain's marker lies."""
_NO_GRAIN: Final = bytes(GRAIN)
_MAX_SECTOR: Final = (1 << 32) - 1


class _Packed(NamedTuple):
    """Grains of one group: (number of the grain, its bytes) in order, and what their content comes to."""

    grains: list[tuple[int, bytes]]
    checksum: int


class StreamWriter(PackingDevice[_Packed]):
    """Takes a disk of ``size`` bytes in ascending order, and writes the image to ``file`` from byte 0 on.

    ``file`` stays its owner's, and may be one that takes ascending writes only. ``name`` is what the image calls its
    extent. Raises UsageError for a disk that is too large.
    """

    def __init__(
        self, file: BlockDevice, size: int, options: Options, *, name: str = "disk.vmdk", threads: int | None = None
    ) -> None:
        options.check()
        size = align_up(size, SECTOR)
        self._tables = ceil_div(size, GRAIN * ENTRIES)
        if not size or self._tables > MAX_TABLES:
            raise UsageError(f"vmdk: expected a disk of 1 to {MAX_TABLES * ENTRIES * GRAIN} bytes, found {size}")
        super().__init__(file, size, threads=threads)
        self._options = options
        self._name = name
        self._directory = array("I", bytes(self._tables * 4))
        self._table: tuple[int, array[int]] | None = None

    def _pack(self, start: int, data: bytearray) -> _Packed:
        view = memoryview(data)
        grains: list[tuple[int, bytes]] = []
        checksum = 0
        for within in range(0, len(data), GRAIN):
            part = view[within : within + GRAIN]
            if part == _NO_GRAIN[: len(part)]:
                continue
            if not grains:
                checksum = zlib.crc32(part, start + within & 0xFFFFFFFF)
            whole = part if len(part) == GRAIN else memoryview(bytes(part).ljust(GRAIN, b"\0"))
            grains.append(((start + within) // GRAIN, pack(whole, (start + within) // SECTOR, self._options.level)))
        return _Packed(grains, checksum)

    def _append(self, packed: _Packed) -> None:
        grains, checksum = packed
        if grains and not self._end:
            self._begin(checksum)
        for number, data in grains:
            index = number // ENTRIES
            if self._table is None or self._table[0] != index:
                self._end_table()
                self._table = (index, array("I", bytes(TABLE_BYTES)))
            self._table[1][number % ENTRIES] = self._sector()
            self._put(data)

    def _sector(self) -> int:
        sector = self._end // SECTOR
        if sector > _MAX_SECTOR:
            raise NoSpace(f"vmdk: expected a file of at most {_MAX_SECTOR * SECTOR} bytes, found it to need more")
        return sector

    def _begin(self, checksum: int) -> None:
        """Write what stands in front; the id of the content is that of its first part and size."""
        content_id = next_id(first_id(self._size), checksum)
        extent = Extent("RW", self._size, "SPARSE", os.fsencode(self._name))
        text = text_of(Descriptor(content_id, STREAM, (extent,)), self._options.adapter_or_default)
        if len(text) > DESCRIPTOR_SECTORS * SECTOR:
            raise UsageError(f"vmdk: expected a descriptor of {DESCRIPTOR_SECTORS} sectors, found {len(text)} bytes")
        self._put((self._header(AT_END).pack() + text).ljust(OVERHEAD * SECTOR, b"\0"))

    def _header(self, directory: int) -> SparseHeader:
        return SparseHeader(
            version=3,
            flags=(Flag.NEWLINE_TEST | Flag.COMPRESSED | Flag.MARKERS).value,
            capacity=self._size // SECTOR,
            grain_size=GRAIN_SECTORS,
            descriptor_offset=1,
            descriptor_size=DESCRIPTOR_SECTORS,
            gd_offset=directory,
            overhead=OVERHEAD,
            newlines=NEWLINES,
            compress_algorithm=DEFLATE,
        )

    def _end_table(self) -> None:
        if self._table is None:
            return
        index, table = self._table
        self._table = None
        self._put(metadata_marker(MarkerType.TABLE, TABLE_SECTORS))
        self._directory[index] = self._sector()
        self._put(entry_bytes(table))

    def _append_end(self) -> None:
        if not self._end:
            self._begin(0)
        self._end_table()
        data = entry_bytes(self._directory)
        self._put(metadata_marker(MarkerType.DIRECTORY, ceil_div(len(data), SECTOR)))
        directory = self._sector()
        self._put(data.ljust(align_up(len(data), SECTOR), b"\0"))
        self._put(metadata_marker(MarkerType.FOOTER, 1))
        self._put(self._header(directory).pack())
        self._put(metadata_marker(MarkerType.END, 0))
