"""A qcow2 image as a disk to write.

A write to a cluster that is this state's alone goes to where the cluster lies, without any lock. Any other allocates
new clusters, under a reservation of their range of the disk: what the write leaves of the first and the last one is
filled from what they read as, all is written at once, and only then the map changes. So whatever fails on the way,
bytes outside the written range are what they were.

Knows: what a write needs. Refuses to know: the order in which tables reach the disk (``update``).
"""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice, ResizableDevice, Traits
from blockwright.device.ranges import RangeLock
from blockwright.device.vector import Cutter, total, zeros
from blockwright.errors import Corrupt, NotSupported
from blockwright.format.mapped import Kind
from blockwright.format.qcow2.device import Qcow2Device, reading_traits
from blockwright.format.qcow2.layout import (
    ALL_SUBCLUSTERS,
    COMPRESSED,
    COPIED,
    OFFSET_MASK,
    SUBCLUSTERS,
    ZERO,
    ImageHeader,
)
from blockwright.format.qcow2.resize import grow_l1
from blockwright.format.qcow2.update import Updates, WritableMap
from blockwright.units import MiB, align_down, align_up

_NOTHING: Final = memoryview(b"")
HEADER_END: Final = 104
"""What of the header is written as one sector when a field changes."""
_ZERO_PIECE: Final = 16 * MiB


class _Way(Enum):
    """How a run of the disk can be written."""

    PLACE = 1
    """Where it lies."""
    FILL = 2
    """Where its cluster lies, in subclusters that hold nothing yet."""
    NEW = 3
    """Into new clusters."""


class _Run(NamedTuple):
    """[position, end) of the disk is written in one way; ``host`` is where the first byte goes."""

    way: _Way
    end: int
    host: int = 0


class WritableQcow2(Qcow2Device, ResizableDevice):
    """Reads and writes the active state of an image. Closing it writes what its tables lack."""

    _clusters: WritableMap

    def __init__(
        self,
        file: BlockDevice,
        image: ImageHeader,
        clusters: WritableMap,
        counts: array[int],
        *,
        data_file: BlockDevice | None = None,
        below: BlockDevice | None = None,
        owns: bool = True,
    ) -> None:
        super().__init__(
            file,
            image,
            clusters,
            image.record.size,
            data_file=data_file,
            below=below,
            traits=writing_traits(image, file, data_file, below),
            owns=owns,
        )
        table_offset = image.record.refcount_table_offset
        self._header_lock = threading.Lock()
        data = [file] if data_file is None else [data_file]
        self._updates = Updates(
            file,
            image.geometry,
            clusters,
            counts,
            table_offset,
            data,
            self._move_counts,
            self._retire,
            self._unpacker.forget,
        )
        self._ranges = RangeLock()
        self._marks_zero = image.record.version >= 3
        self._own_data = data_file is None
        self._begun = False
        self._unchecked = self._host.unchecked()
        geometry = image.geometry
        self._bits = geometry.cluster_bits
        self._within = geometry.cluster - 1
        self._table_bits = (geometry.l2_entries - 1).bit_length()
        self._slots = geometry.l2_entries - 1
        self._plain = not geometry.extended and data_file is None

    def _retire(self) -> deque[None]:
        old, self._uses = self._uses, deque()
        return old

    @property
    def updates(self) -> Updates:
        """The image's tables, for those who change more than a disk's bytes."""
        return self._updates

    def put_header(self, **values: int) -> None:
        """Change fields of the header, durably and at once; they lie within its first 112 bytes."""
        with self._header_lock:
            record = self._image.record.replace(**values)
            self._file.write(24, record.pack()[24 : min(record.header_length, HEADER_END)])
            self._file.flush()
            self._image = replace(self._image, record=record)

    def _move_counts(self, offset: int, clusters: int) -> None:
        self.put_header(refcount_table_offset=offset, refcount_table_clusters=clusters)

    def use_l1(self, l1: array[int], offset: int) -> None:
        """Make the table at ``offset``, which is on the disk, the active one; all of the old one must be, too."""
        self._clusters.replace_l1(l1, offset)
        self.put_header(l1_size=len(l1), l1_table_offset=offset)

    # -- writing ---------------------------------------------------------------------------------------------

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        if not self._write_in_place(offset, buffers):
            self._put(offset, buffers)
        if durable:
            self._updates.sync()

    def _write_in_place(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        """Write within one cluster that is this state's alone, and say whether that could be done: the short way."""
        length = len(buffers[0]) if len(buffers) == 1 else total(buffers)
        bits = self._bits
        cluster = offset >> bits
        if not self._begun or not self._plain or (offset + length - 1) >> bits != cluster:
            return False
        uses = self._uses
        uses.append(None)
        try:
            index = cluster >> self._table_bits
            table = self._clusters.tables.get(index)
            if table is None or not self._clusters.l1[index] & COPIED:
                return False
            entry = table[cluster & self._slots]
            host = entry ^ COPIED
            # Above every offset where the mark is missing; with low bits where it is no plain data.
            if not 0 < host <= OFFSET_MASK or host & self._within:
                return False
            host += offset & self._within
            if host + length > self._host.size:
                return False
            self._unchecked.write(host, buffers, durable=False)
            return True
        finally:
            uses.pop()

    def _put(self, offset: int, buffers: Sequence[memoryview]) -> None:
        end = offset + total(buffers)
        if end == offset:
            return
        if not self._begun:
            self._begin()
        uses = self._uses
        uses.append(None)
        try:
            cutter = Cutter(buffers)
            while offset < end:
                run = self._run(offset, end)
                if run.way is _Way.PLACE:
                    self._host_write(run.host, cutter.take(run.end - offset))
                    offset = run.end
                else:
                    offset = self._allocating(offset, run.end, cutter)
        finally:
            uses.pop()
        self.bound()

    def bound(self) -> None:
        """Keep the tables that must stay in memory within half of what memory there is for them."""
        if len(self._clusters.dirty) > self._clusters.limit // 2:
            self._updates.sync()

    def _begin(self) -> None:
        """Make the header say that nobody who does not know may trust what he noted of the content before."""
        with self._updates.lock:
            record = self._image.record
            keep = record.autoclear_features & 2
            if record.version >= 3 and record.autoclear_features != keep:
                self.put_header(autoclear_features=keep)
            self._begun = True

    def _run(self, position: int, end: int) -> _Run:
        """Return how the disk can be written from ``position`` on, and how far that goes; not past one L2 table."""
        geometry = self._image.geometry
        index, within = divmod(position, geometry.l2_span)
        end = min(end, position - within + geometry.l2_span)
        if not self._clusters.l1[index] & COPIED:
            return _Run(_Way.NEW, end)
        table = self._clusters.table(index)
        if table is None:
            return _Run(_Way.NEW, end)
        if geometry.extended:
            return self._extended_run(table, position, end)
        bits = geometry.cluster_bits
        slot, last = within >> bits, (end - 1 - position + within) >> bits
        entry = table[slot]
        skip = position & (geometry.cluster - 1)
        if not self._is_place(entry):
            stop = slot + 1
            while stop <= last and not self._is_place(table[stop]):
                stop += 1
            return _Run(_Way.NEW, min(end, position - skip + ((stop - slot) << bits)))
        if entry & OFFSET_MASK & (geometry.cluster - 1):
            self._clusters.refuse(index, slot, entry)
        stop, following = slot + 1, entry
        while stop <= last:
            following += geometry.cluster
            if table[stop] != following:
                break
            stop += 1
        return _Run(_Way.PLACE, min(end, position - skip + ((stop - slot) << bits)), (entry & OFFSET_MASK) + skip)

    def _is_place(self, entry: int) -> bool:
        """Whether the cluster is this state's alone and holds data."""
        return (
            bool(entry & COPIED)
            and not entry & (COMPRESSED | ZERO)
            and (bool(entry & OFFSET_MASK) or not self._own_data)
        )

    def _extended_run(self, table: array[int], position: int, end: int) -> _Run:
        """Return as ``_run``, for one cluster with subclusters."""
        geometry = self._image.geometry
        slot = (position // geometry.cluster) % geometry.l2_entries
        entry, bitmap = table[2 * slot : 2 * slot + 2]
        skip = position % geometry.cluster
        end = min(end, position - skip + geometry.cluster)
        if not self._is_place(entry):
            return _Run(_Way.NEW, end)
        host = (entry & OFFSET_MASK) + skip
        wanted = _bits(skip, skip + end - position, geometry.unit)
        return _Run(_Way.PLACE if bitmap & wanted == wanted else _Way.FILL, end, host)

    # -- allocating ------------------------------------------------------------------------------------------

    def _allocating(self, position: int, end: int, cutter: Cutter) -> int:
        """Write [position, end), or the first clusters of it, and return how far that went."""
        cluster = self._image.geometry.cluster
        with self._ranges.exclusive(align_down(position, cluster), align_up(end, cluster)):
            run = self._run(position, end)
            if run.way is _Way.PLACE:  # somebody else was here first
                self._host_write(run.host, cutter.take(run.end - position))
                return run.end
            if run.way is _Way.FILL:
                self._fill(position, run, cutter.take(run.end - position))
                return run.end
            return self._write_new(position, run.end, cutter)

    def _write_new(self, position: int, end: int, cutter: Cutter) -> int:
        geometry = self._image.geometry
        start = align_down(position, geometry.cluster)
        wanted = geometry.clusters(end - start)
        if self._own_data:
            with self._updates.lock:
                host, count, fresh = self._updates.allocate(wanted)
        else:
            host, count, fresh = start, wanted, False
        try:
            end = min(end, start + count * geometry.cluster)
            low, high = self._filled(position, end)
            head = self._content(low, position, skip_zeros=fresh)
            tail = self._content(end, high, skip_zeros=fresh)
            at = host + position - start - len(head)
            self._host_write(at, [head, *cutter.take(end - position), tail])
        except BaseException:
            if self._own_data:
                with self._updates.lock:
                    self._updates.give_back(host, count)
            raise
        with self._updates.lock:
            self._map_new(start, host, count, low, high)
        return end

    def _host_write(self, at: int, buffers: Sequence[memoryview]) -> None:
        """Write to where data lies; an external data file may have to grow, and end before its last cluster does."""
        end = at + total(buffers)
        if end > self._host.size:
            if self._own_data:
                raise Corrupt(
                    f"qcow2: expected at most {self._host.size} bytes of the file, found data at {at}", offset=at
                )
            if isinstance(self._host, ResizableDevice):
                self._host.resize(end)
        self._host.write(at, *buffers)

    def _filled(self, position: int, end: int) -> tuple[int, int]:
        """Return the range that must be written so that new clusters hold what [position, end) lies in."""
        geometry = self._image.geometry
        low, high = align_down(position, geometry.unit), align_up(end, geometry.unit)
        if not self._own_data:
            return low, max(end, min(high, self._size))  # behind the disk's end the file has nothing
        if geometry.extended:
            # Of a cluster that has one already all is copied: its subclusters cannot lie in two places.
            if self._entry(position) & (OFFSET_MASK | COMPRESSED):
                low = align_down(position, geometry.cluster)
            if self._entry(end - 1) & (OFFSET_MASK | COMPRESSED):
                high = align_up(end, geometry.cluster)
        return low, high

    def _entry(self, position: int) -> int:
        geometry = self._image.geometry
        index, within = divmod(position, geometry.l2_span)
        table = self._clusters.table(index)
        if table is None:
            return 0
        return table[(within >> geometry.cluster_bits) * (2 if geometry.extended else 1)]

    def _content(self, low: int, high: int, *, skip_zeros: bool) -> memoryview:
        """Return what [low, high) reads as, zeros behind the disk's end; nothing where that is zeros all through."""
        if low >= high:
            return _NOTHING
        end = max(low, min(high, self._size))
        places = list(self.resolve(low, end)) if low < end else []
        if skip_zeros and all(place.kind in (Kind.HOLE, Kind.ZERO) for place in places):
            return _NOTHING
        content = memoryview(bytearray(high - low))
        cutter = Cutter([content])
        position = low
        for place in places:
            self._fetch(place, position, cutter.take(place.length))
            position += place.length
        return content

    def write_packed(self, offset: int, data: bytes | bytearray) -> None:
        """Put compressed bytes into the file, where clusters were allocated for them."""
        self._host_write(offset, [memoryview(data)])

    def map_compressed(self, cells: Sequence[tuple[int, int]]) -> None:
        """Make the map say that clusters, by their offsets, are what compressed entries describe."""
        geometry = self._image.geometry
        width = 2 if geometry.extended else 1
        with self._updates.lock:
            for offset, entry in cells:
                index, within = divmod(offset, geometry.l2_span)
                slot = (within >> geometry.cluster_bits) * width
                table = self._updates.table(index)
                self._updates.loosen_entry(table[slot])
                table[slot : slot + width] = array("Q", [entry, 0][:width])
                self._clusters.changed(index, slot, slot + width)
        self.bound()

    def _map_new(self, start: int, host: int, count: int, low: int, high: int) -> None:
        """Make the map say that clusters from ``start`` on lie at ``host``, and hold [low, high)."""
        geometry = self._image.geometry
        index, within = divmod(start, geometry.l2_span)
        slot = within >> geometry.cluster_bits
        table = self._updates.table(index)
        if geometry.extended:
            for number in range(count):
                first = start + number * geometry.cluster
                wanted = _bits(max(0, low - first), min(geometry.cluster, high - first), geometry.unit)
                entry, bitmap = table[2 * (slot + number) : 2 * (slot + number) + 2]
                self._updates.loosen_entry(entry)
                kept = 0 if entry & COMPRESSED else bitmap & ~(wanted | wanted << SUBCLUSTERS)
                pair = [(host + number * geometry.cluster) | COPIED, kept | wanted]
                table[2 * (slot + number) : 2 * (slot + number) + 2] = array("Q", pair)
            self._clusters.changed(index, 2 * slot, 2 * (slot + count))
            return
        for entry in table[slot : slot + count]:
            if entry & ~ZERO:
                self._updates.loosen_entry(entry)
        new = range(host | COPIED, (host | COPIED) + count * geometry.cluster, geometry.cluster)
        table[slot : slot + count] = array("Q", new)
        self._clusters.changed(index, slot, slot + count)

    def _fill(self, position: int, run: _Run, views: Sequence[memoryview]) -> None:
        """Write to subclusters of a cluster that is allocated; those that hold nothing are filled."""
        geometry = self._image.geometry
        index, within = divmod(position, geometry.l2_span)
        slot = within >> geometry.cluster_bits
        table = self._clusters.table(index)
        assert table is not None, "_run has looked at it"
        bitmap, skip = table[2 * slot + 1], position % geometry.cluster
        stop = skip + run.end - position
        low, high = position, run.end
        if not bitmap & _bits(skip, skip + 1, geometry.unit):
            low = align_down(position, geometry.unit)
        if not bitmap & _bits(stop - 1, stop, geometry.unit):
            high = align_up(run.end, geometry.unit)
        head = self._content(low, position, skip_zeros=False)
        tail = self._content(run.end, high, skip_zeros=False)
        self._host_write(run.host - len(head), [head, *views, tail])
        wanted = _bits(skip, stop, geometry.unit)
        with self._updates.lock:
            table = self._updates.table(index)
            table[2 * slot + 1] = (table[2 * slot + 1] | wanted) & ~(wanted << SUBCLUSTERS)
            self._clusters.changed(index, 2 * slot, 2 * slot + 2)

    # -- zeros -----------------------------------------------------------------------------------------------

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        """Mark whole clusters as zeros and write zeros at the edges; all are written where space must be kept."""
        if not may_unmap or not self._own_data or not self._can_mark(offset, offset + length):
            if fast_only and length:
                raise NotSupported("zero: qcow2 has no faster way of keeping space, or of hiding a backing file")
            self._write_zeros(offset, offset + length)
        elif length:
            end = offset + length
            low, high = self._whole_clusters(offset, end)
            if low >= high:
                if fast_only:
                    raise NotSupported("zero: qcow2 has no faster way for less than a cluster")
                self._write_zeros(offset, end)
            else:
                self._write_zeros(offset, low)
                self._mark(low, high)
                self._write_zeros(high, end)
        if durable:
            self._updates.sync()

    def _can_mark(self, offset: int, end: int) -> bool:
        return self._marks_zero or offset >= self._below_size

    def _whole_clusters(self, offset: int, end: int) -> tuple[int, int]:
        """Return the whole clusters of the range; its last one counts as whole at the disk's end."""
        cluster = self._image.geometry.cluster
        return align_up(offset, cluster), end if end == self._size else align_down(end, cluster)

    def _write_zeros(self, offset: int, end: int) -> None:
        """Write zeros where there are others."""
        while offset < end:
            part = min(_ZERO_PIECE, end - offset)
            stop = offset + part
            if not all(place.kind in (Kind.HOLE, Kind.ZERO) for place in self.resolve(offset, stop)):
                self._put(offset, zeros(part))
            offset = stop

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        """Free whole clusters, where that does not bring a backing file's bytes to light."""
        end = offset + length
        if self._own_data and self._can_mark(offset, end):
            low, high = self._whole_clusters(offset, end)
            if low < high:
                self._mark(low, high)
        if durable:
            self._updates.sync()

    def _mark(self, low: int, high: int, *, hide: bool = True) -> None:
        """Free whole clusters, one table at a time; ``hide`` makes them zeros where a device below has others."""
        if not self._begun:
            self._begin()
        span = self._image.geometry.l2_span
        with self._ranges.exclusive(low, high):
            while low < high:
                stop = min(high, (low // span + 1) * span)
                with self._updates.lock:
                    self._mark_in_table(low, stop, hide=hide)
                self.bound()
                low = stop

    def _mark_in_table(self, low: int, high: int, *, hide: bool) -> None:
        geometry = self._image.geometry
        index, within = divmod(low, geometry.l2_span)
        if not self._clusters.l1[index] and (low >= self._below_size or not hide):
            return  # nothing is there, here or below
        slot, stop = within >> geometry.cluster_bits, (high - 1 - low + within >> geometry.cluster_bits) + 1
        width = 2 if geometry.extended else 1
        table = self._updates.table(index)
        for number in range(slot, stop):
            entry = table[number * width]
            covered = hide and low + ((number - slot) << geometry.cluster_bits) < self._below_size
            new = [ZERO if covered else 0]
            if geometry.extended:
                new = [0, ALL_SUBCLUSTERS << SUBCLUSTERS if covered else 0]
            self._updates.loosen_entry(entry)
            table[number * width : (number + 1) * width] = array("Q", new)
        self._clusters.changed(index, slot * width, stop * width)

    # -- the rest --------------------------------------------------------------------------------------------

    def _resize(self, size: int) -> None:
        """Set the disk's size; its bytes behind the smaller one of both sizes are zeros from then on."""
        old, cluster = self._size, self._image.geometry.cluster
        if size < old:
            edge = min(old, align_up(size, cluster))
            self._write_zeros(size, edge)
            if edge < old:
                self._mark(edge, old, hide=False)
        else:
            grow_l1(self._file, self._updates, self._image.geometry, size, self.put_header)
            self._grow_to(old, size)
        self._updates.sync()
        self.put_header(size=size)

    def _grow_to(self, old: int, size: int) -> None:
        """Make zeros of what would come to light behind the old end: in the last cluster, and in the device below."""
        self._size = size
        try:
            edge = min(size, align_up(old, self._image.geometry.cluster))
            self._write_zeros(old, edge)
            shown = min(size, self._below_size)
            if edge < shown:
                self._zero(edge, shown - edge, may_unmap=True, fast_only=False, durable=False)
        except BaseException:
            self._size = old
            raise

    def _flush(self) -> None:
        self._ranges.wait_for_earlier()
        self._updates.sync()

    def _close(self) -> None:
        try:
            self._updates.finish()
        finally:
            super()._close()


def _bits(low: int, high: int, unit: int) -> int:
    """Return a bit for each subcluster that [low, high) of a cluster touches."""
    first, last = low // unit, -(-high // unit)
    return ((1 << last) - 1) & ~((1 << first) - 1) if last > first else 0


def writing_traits(
    image: ImageHeader, file: BlockDevice, data_file: BlockDevice | None, below: BlockDevice | None
) -> Traits:
    """Return what a device over these can do that is written to."""
    marks = image.record.version >= 3 or below is None
    traits = reading_traits(image, file, data_file, below)
    own = data_file is None
    return replace(traits, writable=True, discard=own, fast_zero=own and marks)
