"""A sparse extent as a device to read and write.

A grain that the extent holds is written where it lies. Any other gets room behind all that is there, under a
reservation of its range of the disk: what the write leaves of the grain is filled from what it reads as, all is
written, and then the table changes, in memory. ``flush`` brings it to the disk behind the data, the redundant copies
first. Grains are never moved or freed, so a power cut leaves grains that nothing refers to, at worst. Room whose
write failed for want of more is what the next one takes: no table had it, on the disk or in memory.

Knows: allocation, and the order in which tables reach the disk. Refuses to know: descriptors.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.ranges import RangeLock
from blockwright.device.vector import Cutter, total, zeros
from blockwright.errors import BlockwrightError, Corrupt, NoSpace, NotSupported, ReadOnly
from blockwright.format.mapped import Kind
from blockwright.format.vmdk.layout import (
    ENTRIES,
    SPEC,
    TABLE_BYTES,
    TABLE_SECTORS,
    SparseExtentHeader,
    entry_bytes,
)
from blockwright.format.vmdk.map import EMPTY, LIMIT, GrainMap, load_table, read_directory
from blockwright.format.vmdk.room import Room
from blockwright.format.vmdk.sparse import SparseExtent, reading_traits
from blockwright.units import SECTOR, KiB, align_down, align_up

MAX_FILE: Final = SECTOR << 32
"""Where sectors in 32 bits end: 2 TiB."""
_ALIGNMENT: Final = 4 * KiB
_PER_SECTOR: Final = SECTOR // 4
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""How a host says that it has no room."""
_MAX_ZEROS: Final = 16 << 20
"""Bytes of zeros that one allocation holds in a list of views."""


class WritableMap(GrainMap):
    """A map whose tables change. ``redundant`` is the second directory, None where the extent has none.

    ``dirty`` has, by table, the sectors that differ from the disk; ``fresh`` tables that the directories on the disk
    do not refer to.
    """

    def __init__(
        self, file: BlockDevice, header: SparseExtentHeader, directory: array[int], redundant: array[int] | None
    ) -> None:
        super().__init__(file, header, directory)
        self.redundant = redundant
        self.dirty: dict[int, set[int]] = {}
        self.fresh: set[int] = set()

    def keeps(self, index: int) -> bool:
        return index in self.dirty


class WritableSparse(SparseExtent):
    """Reads and writes an extent. Closing it writes what its tables lack."""

    _grains: WritableMap

    def __init__(self, grains: WritableMap, below: BlockDevice | None, *, owns: bool = True) -> None:
        traits = grains.file.traits
        super().__init__(
            grains,
            below,
            traits=replace(
                reading_traits(grains, below), writable=True, discard=traits.discard, fast_zero=traits.fast_zero
            ),
            owns=owns,
        )
        self._ranges = RangeLock()
        self._room = Room(align_up(max(_used(grains), grains.header.overhead), _ALIGNMENT))

    # -- writing ---------------------------------------------------------------------------------------------

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        end, cutter = offset + total(buffers), Cutter(buffers)
        while offset < end:
            place = next(self._grains.resolve(offset, end, self._below_size))
            if place.kind is Kind.DATA:
                self._grow(place.host + place.length)
                self._host.write(place.host, *cutter.take(place.length))
                offset += place.length
            else:
                offset = self._allocating(offset, min(offset + place.length, self._table_end(offset)), cutter)
        if durable:
            self._flush()

    def _table_end(self, offset: int) -> int:
        return align_down(offset, self.header.span) + self.header.span

    def _grow(self, end: int) -> None:
        """Have the file be as long as ``end``, and what is new lie behind that: its last grain may be cut."""
        if self._host.size < end or self._room.end < end:
            with self._grains.lock:
                if isinstance(self._host, ResizableDevice) and self._host.size < end:
                    self._host.resize(end)
                self._room.end = max(self._room.end, align_up(end, SECTOR))

    def _allocating(self, offset: int, end: int, cutter: Cutter | None) -> int:
        """Write to grains that the extent does not hold, as far as nobody else has made some; return how far.

        ``cutter`` gives the bytes, zeros where it is None.
        """
        grain = self.header.grain
        low, high = align_down(offset, grain), align_up(end, grain)
        with self._ranges.exclusive(low, high):
            place = next(self._grains.resolve(offset, end, self._below_size))
            if place.kind is Kind.DATA:
                return offset
            end = min(end, offset + place.length)
            high = align_up(end, grain)
            head, tail = self._filling(low, offset), self._filling(end, min(high, self._size))
            given = zeros(end - offset) if cutter is None else cutter.take(end - offset)
            host = self._reserve(high - low)
            try:
                self._host.write(host, head, *given, tail)
            except (OSError, NoSpace) as error:
                # Who is full has said so: that is over. What was given up may still come, over what is there then.
                if isinstance(error, NoSpace) or error.errno in _FULL:
                    self._give_back(host, high - low)
                raise
            self._refer(low, high, host)
        return end

    def _filling(self, start: int, end: int) -> bytes:
        if end <= start:
            return b""
        block = self._traits.minimum_block
        low, high = align_down(start, block), min(align_up(end, block), self._size)
        data = bytearray(high - low)
        self._read_into(low, [memoryview(data)])
        return bytes(memoryview(data)[start - low : end - low])

    def _reserve(self, length: int) -> int:
        """Return where ``length`` new bytes of the file are."""
        with self._grains.lock:
            spare = self._room.spare(length)
            if spare is not None:
                return spare
            host = self._room.end
            end = host + length
            if end > MAX_FILE:
                raise NoSpace(f"vmdk: expected a file of at most {MAX_FILE} bytes, found it to need {end}")
            if isinstance(self._host, ResizableDevice):
                if self._host.size < end:
                    self._host.resize(end)
            elif end > self._host.size:
                raise NoSpace(f"vmdk: expected a file of at least {end} bytes, found {self._host.size}")
            self._room.end = end
            return host

    def _give_back(self, host: int, length: int) -> None:
        """Have others take what was reserved, and is not referred to."""
        with self._grains.lock:
            self._room.give_back(host, length)

    def _refer(self, low: int, high: int, host: int) -> None:
        """Make the map refer to the grains of [low, high), which one table maps."""
        grains, grain = self._grains, self.header.grain
        index, slot = low // self.header.span, low // grain % ENTRIES
        count = (high - low) // grain
        sector, step = host // SECTOR, grain // SECTOR
        with grains.lock:
            try:
                table, dirty = self._changing(index)
            except BaseException:
                self._give_back(host, high - low)
                raise
            table[slot : slot + count] = array("I", range(sector, sector + count * step, step))
            dirty.update(range(slot // _PER_SECTOR, (slot + count - 1) // _PER_SECTOR + 1))
            if len(grains.dirty) > LIMIT // 2:
                self._sync()

    def _changing(self, index: int) -> tuple[array[int], set[int]]:
        """Return a table that is to be changed, made where there is none, and its dirty sectors."""
        grains = self._grains
        table = grains.table(index)
        dirty = grains.dirty.get(index)
        if table is not None and dirty is not None:
            return table, dirty
        # What can fail comes first: a table half made would be written to sector 0, or be referred to unwritten.
        first = second = 0
        differs = False
        made = array("I", bytes(TABLE_BYTES))
        if table is None:
            first = self._reserve(TABLE_BYTES) // SECTOR
        try:
            if grains.redundant is not None:
                if not grains.redundant[index]:
                    second = self._reserve(TABLE_BYTES) // SECTOR
                else:  # they differ where a cut came between the two copies once
                    differs = load_table(self._host, grains.redundant[index] * SECTOR, index) != (table or EMPTY)
        except BaseException:
            if first:
                self._give_back(first * SECTOR, TABLE_BYTES)
            raise
        if table is None:
            table = grains.tables[index] = made
            grains.directory[index] = first
        if grains.redundant is not None and second:
            grains.redundant[index] = second
        if first or second:
            grains.fresh.add(index)
        dirty = set() if dirty is None else dirty
        if differs or index in grains.fresh:
            dirty.update(range(TABLE_SECTORS))
        grains.dirty[index] = dirty
        return table, dirty

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        end = offset + length
        if fast_only and any(place.kind is Kind.BACKING for place in self.resolve(offset, end)):
            raise NotSupported("zero: no faster way than writing zeros over what the parent holds")
        while offset < end:
            place = next(self._grains.resolve(offset, end, self._below_size))
            if place.kind is Kind.DATA:
                self._grow(place.host + place.length)
                self._host.zero(place.host, place.length, may_unmap=may_unmap, fast_only=fast_only)
                offset += place.length
            elif place.kind is Kind.BACKING:
                stop = min(offset + min(place.length, _MAX_ZEROS), self._table_end(offset))
                offset = self._allocating(offset, stop, None)
            else:
                offset += place.length
        if durable:
            self._flush()

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        for place in self.resolve(offset, offset + length):
            if place.kind is Kind.DATA and place.host + place.length <= self._host.size:
                self._host.discard(place.host, place.length)
        if durable:
            self._flush()

    # -- tables to the disk ----------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._ranges.wait_for_earlier()
        with self._grains.lock:
            self._sync()

    def _sync(self) -> None:
        """Bring data, then tables to the disk: at every cut each table refers to data that is there.

        The redundant tables are always ahead of the others; tables are there before a directory refers to them.
        """
        grains, host = self._grains, self._host
        host.flush()
        if not grains.dirty:
            return
        for index, sectors in grains.dirty.items():
            if grains.redundant is not None:
                self._put(grains.redundant[index], index, sectors)
            if index in grains.fresh:
                self._put(grains.directory[index], index, sectors)
        host.flush()
        if grains.fresh and grains.redundant is not None and self.header.redundant is not None:
            self._put_directory(self.header.redundant, grains.redundant)
            host.flush()
        if grains.fresh:
            self._put_directory(self.header.directory, grains.directory)
        for index, sectors in grains.dirty.items():
            self._put(grains.directory[index], index, sectors)
        host.flush()
        grains.dirty.clear()
        grains.fresh.clear()

    def _put(self, table: int, index: int, sectors: set[int]) -> None:
        """Write sectors of table ``index`` to the copy that begins at sector ``table``."""
        data = memoryview(entry_bytes(self._grains.tables[index]))
        if len(sectors) == TABLE_SECTORS:
            self._host.write(table * SECTOR, data)
            return
        for each in sorted(sectors):
            self._host.write((table + each) * SECTOR, data[each * SECTOR : (each + 1) * SECTOR])

    def _put_directory(self, offset: int, directory: array[int]) -> None:
        """Write the sectors of a directory in which entries of new tables lie."""
        data = memoryview(entry_bytes(directory))
        for each in sorted({index // _PER_SECTOR for index in self._grains.fresh}):
            part = data[each * SECTOR : (each + 1) * SECTOR]
            self._host.write(offset + each * SECTOR, part)

    def _close(self) -> None:
        try:
            with self._grains.lock:
                if self._grains.dirty:
                    self._sync()
                self._shorten()
        finally:
            super()._close()

    def _shorten(self) -> None:
        """End the file where what is in use ends: it is longer where the last write that needed room has failed."""
        if isinstance(self._host, ResizableDevice) and self._host.size > self._room.end:
            with suppress(OSError, BlockwrightError):  # nobody looks there
                self._host.resize(self._room.end)


def _used(grains: WritableMap) -> int:
    """Return where what is in use ends: with the file, unless it cannot grow and is longer than what it holds."""
    if isinstance(grains.file, ResizableDevice):
        return grains.file.size
    end = 0
    for index, sector in enumerate(grains.directory):
        table = grains.table(index)
        if table is not None:
            end = max(end, sector * SECTOR + TABLE_BYTES, max(table) * SECTOR + grains.header.grain)
    for sector in grains.redundant or ():
        end = max(end, sector * SECTOR + TABLE_BYTES)
    return min(end, grains.file.size)


def open_writable(
    file: BlockDevice, header: SparseExtentHeader, directory: array[int], below: BlockDevice | None, *, owns: bool
) -> WritableSparse:
    """Return the extent to write. Raises ReadOnly for one that is compressed, Corrupt for tables over others."""
    if header.compressed:
        raise ReadOnly("vmdk streamOptimized: is written once, as a whole, and not changed: convert it")
    if not file.traits.writable:
        raise ReadOnly("vmdk: expected a file to write to, found one that is read-only")
    redundant = None if header.redundant is None else read_directory(file, header, header.redundant)
    _check_tables(file, header, directory, redundant)
    return WritableSparse(WritableMap(file, header, directory, redundant), below, owns=owns)


def _check_tables(
    file: BlockDevice, header: SparseExtentHeader, directory: array[int], redundant: array[int] | None
) -> None:
    """Raise Corrupt where tables to be written overlap the header, the descriptor, a directory or one another."""
    length = header.tables * 4
    record = header.record
    places = [(0, SECTOR, 0), (header.directory, length, record.gd_offset)]
    places.append((record.descriptor_offset * SECTOR, record.descriptor_size * SECTOR, record.descriptor_offset))
    if header.redundant is not None:
        places.append((header.redundant, length, record.rgd_offset))
    for each in (directory, redundant or ()):
        places += [(entry * SECTOR, TABLE_BYTES, entry) for entry in each if entry]
    end = 0
    for start, size, sector in sorted(places):
        if size and start < end:
            raise Corrupt(
                f"vmdk: expected tables apart, found one at sector {sector} over another", offset=start, spec=SPEC
            )
        end = max(end, start + size)
    if end > file.size:
        raise Corrupt(
            f"vmdk: expected tables within {file.size} bytes of the file, found one to end at {end}", spec=SPEC
        )
