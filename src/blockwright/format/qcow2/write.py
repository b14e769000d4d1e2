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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from blockwright.device.base import BlockDevice, FileRun, PlacingDevice, ResizableDevice
from blockwright.device.checkpoint import Checkpoint
from blockwright.device.ranges import RangeLock
from blockwright.device.vector import Cutter, total, zeros
from blockwright.errors import Corrupt, NotSupported
from blockwright.format.mapped import Kind
from blockwright.format.qcow2.device import Qcow2Device, writing_traits
from blockwright.format.qcow2.layout import (
    ALL_SUBCLUSTERS,
    AUTOCLEAR_BITMAPS,
    AUTOCLEAR_RAW_DATA,
    COMPRESSED,
    COPIED,
    OFFSET_MASK,
    SECTOR,
    SUBCLUSTERS,
    ZERO,
    ImageHeader,
    Rewritten,
    with_backing,
    with_bitmaps,
)
from blockwright.format.qcow2.recording import Recording
from blockwright.format.qcow2.resize import grow_l1
from blockwright.format.qcow2.update import Updates, WritableMap
from blockwright.format.qcow2.ways import Run, Way, find_run, subcluster_bits
from blockwright.units import MiB, align_down, align_up

_NOTHING: Final = memoryview(b"")
HEADER_END: Final = 104
"""What of the header is written as one sector when a field changes."""
_ZERO_PIECE: Final = 16 * MiB


class WritableQcow2(Qcow2Device, ResizableDevice, PlacingDevice):
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
        self._beginning = threading.Lock()
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
        self._recording: Recording | None = None
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
        self.changing(0, self._size)
        self._clusters.replace_l1(l1, offset)
        self.put_header(l1_size=len(l1), l1_table_offset=offset)

    # -- writing ---------------------------------------------------------------------------------------------

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        if not self._begun or self._recording is not None:
            self.changing(offset, total(buffers))
        if not self._write_in_place(offset, buffers):
            self._put(offset, buffers)
        if durable:
            self._updates.sync()

    def _write_in_place(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        """Write within one cluster that is this state's alone, and say whether that could be done: the short way."""
        length = len(buffers[0]) if len(buffers) == 1 else total(buffers)
        bits = self._bits
        cluster = offset >> bits
        if not self._plain or (offset + length - 1) >> bits != cluster:
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
        uses = self._uses
        uses.append(None)
        try:
            cutter = Cutter(buffers)
            while offset < end:
                run = find_run(self._clusters, offset, end)
                if run.way is Way.PLACE:
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

    def changing(self, offset: int, length: int) -> None:
        """Take note that the range is about to change; before the first change the header says what holds no more."""
        if not self._begun:
            self._begin()
        if self._recording is not None:
            self._recording.mark(offset, length)

    def _begin(self) -> None:
        """Have the image say that its bitmaps are in use, and that what we know nothing of holds no more."""
        with self._beginning:
            if self._begun:
                return
            record = self._image.record
            found = Recording.of(self._file, self._image)
            if found is not None:
                found.begin()
            keep = record.autoclear_features & (AUTOCLEAR_RAW_DATA | (AUTOCLEAR_BITMAPS if found else 0))
            if record.version >= 3 and record.autoclear_features != keep:
                self.put_header(autoclear_features=keep)
            self._recording, self._begun = found, True

    def change_bitmaps(self, change: Callable[[Recording], None]) -> None:
        """Have ``change`` change the image's bitmaps, and store them. Raises what it raises, FormatError, OSError."""
        self.flush()
        found = self._recording or Recording(self._file, self._image)
        change(found)
        found.store(self)
        if self._begun:
            found.begin()
            self._recording = found

    def _bitmap_names(self) -> list[str]:
        if not self._begun:
            return super()._bitmap_names()
        kept = self._recording.kept if self._recording is not None else []
        return [each.bitmap.name for each in kept if each.marks is not None]

    def marks(self, name: str) -> Checkpoint:
        kept = None if self._recording is None else self._recording.find(name)
        return super().marks(name) if kept is None or kept.marks is None else kept.marks

    def put_bitmaps(self, extension: bytes | None) -> None:
        """Have the header name another directory of bitmaps, or none, by one sector. Raises NotSupported."""
        with self._header_lock:
            self._put_rewritten(with_bitmaps(self._image, self._file.read(0, SECTOR), extension))

    def put_backing(self, name: bytes | None, form: str | None) -> None:
        """Have the header name another backing file, or none; this disk goes on with the one it has.

        Raises NotSupported where the header has no room.
        """
        with self._header_lock:
            self._put_rewritten(with_backing(self._image, self._file.read(0, SECTOR), name, form))

    def _put_rewritten(self, new: Rewritten) -> None:
        if new.early is not None:
            self._file.write(*new.early)
            self._file.flush()
        self._file.write(0, new.sector)
        self._file.flush()
        self._image = new.image

    # -- allocating ------------------------------------------------------------------------------------------

    def _allocating(self, position: int, end: int, cutter: Cutter) -> int:
        """Write [position, end), or the first clusters of it, and return how far that went."""
        cluster = self._image.geometry.cluster
        with self._ranges.exclusive(align_down(position, cluster), align_up(end, cluster)):
            run = find_run(self._clusters, position, end)
            if run.way is Way.PLACE:  # somebody else was here first
                self._host_write(run.host, cutter.take(run.end - position))
                return run.end
            if run.way is Way.FILL:
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

    @property
    def places(self) -> bool:
        return self._plain

    @contextmanager
    def _placing(self, offset: int, length: int) -> Iterator[Sequence[FileRun] | None]:
        """Give new clusters for whole ones of the disk that are not this state's alone yet."""
        cluster, end = self._image.geometry.cluster, offset + length
        if end != self._size:
            end = align_down(end, cluster)
        if not self._plain or offset % cluster or end <= offset:
            yield None
            return
        self.changing(offset, length)
        uses = self._uses
        uses.append(None)
        try:
            with self._ranges.exclusive(offset, align_up(end, cluster)):
                run = find_run(self._clusters, offset, end)
                if run.way is Way.NEW:
                    with self._placed(offset, run.end) as runs:
                        yield runs
                else:
                    yield None
        finally:
            uses.pop()
        self.bound()

    @contextmanager
    def _placed(self, start: int, end: int) -> Iterator[Sequence[FileRun] | None]:
        geometry, updates = self._image.geometry, self._updates
        with updates.lock:
            host, count, fresh = updates.allocate(geometry.clusters(end - start))
        end = min(end, start + count * geometry.cluster)
        mapped = False
        try:
            tail = -end % geometry.cluster
            if tail and not fresh:
                self._host_write(host + end - start, zeros(tail))
            with self._host.backing(host, end - start) as runs:
                whole = runs is not None and sum(run.length for run in runs if run.writable) == end - start
                yield runs if whole else None
            if whole:
                with updates.lock:
                    self._map_new(start, host, count, start, end)
                    mapped = True
        finally:
            if not mapped:
                with updates.lock:
                    updates.give_back(host, count)

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

    def _map_new(self, start: int, host: int, count: int, low: int, high: int) -> None:
        """Make the map say that clusters from ``start`` on lie at ``host``, and hold [low, high)."""
        geometry = self._image.geometry
        index, within = divmod(start, geometry.l2_span)
        slot = within >> geometry.cluster_bits
        table = self._updates.table(index)
        if geometry.extended:
            for number in range(count):
                first = start + number * geometry.cluster
                wanted = subcluster_bits(max(0, low - first), min(geometry.cluster, high - first), geometry.unit)
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

    def _fill(self, position: int, run: Run, views: Sequence[memoryview]) -> None:
        """Write to subclusters of a cluster that is allocated; those that hold nothing are filled."""
        geometry = self._image.geometry
        index, within = divmod(position, geometry.l2_span)
        slot = within >> geometry.cluster_bits
        table = self._clusters.table(index)
        assert table is not None, "_run has looked at it"
        bitmap, skip = table[2 * slot + 1], position % geometry.cluster
        stop = skip + run.end - position
        low, high = position, run.end
        if not bitmap & subcluster_bits(skip, skip + 1, geometry.unit):
            low = align_down(position, geometry.unit)
        if not bitmap & subcluster_bits(stop - 1, stop, geometry.unit):
            high = align_up(run.end, geometry.unit)
        head = self._content(low, position, skip_zeros=False)
        tail = self._content(run.end, high, skip_zeros=False)
        self._host_write(run.host - len(head), [head, *views, tail])
        wanted = subcluster_bits(skip, stop, geometry.unit)
        with self._updates.lock:
            table = self._updates.table(index)
            table[2 * slot + 1] = (table[2 * slot + 1] | wanted) & ~(wanted << SUBCLUSTERS)
            self._clusters.changed(index, 2 * slot, 2 * slot + 2)

    # -- zeros -----------------------------------------------------------------------------------------------

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        """Mark whole clusters as zeros and write zeros at the edges; all are written where space must be kept."""
        if length:
            self.changing(offset, length)
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
                self.changing(low, high - low)
                self._mark(low, high)
        if durable:
            self._updates.sync()

    def hide(self, offset: int, length: int) -> None:
        """Make whole clusters zeros, whatever device may come to be below. Raises NotSupported before version 3."""
        if not self._marks_zero or not self._own_data:
            raise NotSupported("qcow2: has no zeros that are marked, or may not use them")
        self.changing(offset, length)
        self._mark(*self._whole_clusters(offset, offset + length), hidden=1 << 63)

    def forget(self) -> None:
        """Free all clusters, so that the disk reads as the device below does, which reads the same."""
        self.changing(0, 0)
        if self._size:
            self._mark(0, self._size, hidden=0)

    def _mark(self, low: int, high: int, *, hidden: int | None = None) -> None:
        """Free whole clusters, one table at a time; they become marked zeros below ``hidden``, else nothing.

        By default that is as far as the device below may have others.
        """
        hidden = self._below_size if hidden is None else hidden
        span = self._image.geometry.l2_span
        with self._ranges.exclusive(low, high):
            while low < high:
                stop = min(high, (low // span + 1) * span)
                with self._updates.lock:
                    self._mark_in_table(low, stop, hidden)
                self.bound()
                low = stop

    def _mark_in_table(self, low: int, high: int, hidden: int) -> None:
        geometry = self._image.geometry
        index, within = divmod(low, geometry.l2_span)
        if not self._clusters.l1[index] and low >= hidden:
            return  # nothing is there, here or below
        slot, stop = within >> geometry.cluster_bits, (high - 1 - low + within >> geometry.cluster_bits) + 1
        width = 2 if geometry.extended else 1
        table = self._updates.table(index)
        for number in range(slot, stop):
            entry = table[number * width]
            covered = low + ((number - slot) << geometry.cluster_bits) < hidden
            new = [ZERO if covered else 0]
            if geometry.extended:
                new = [0, ALL_SUBCLUSTERS << SUBCLUSTERS if covered else 0]
            self._updates.loosen_entry(entry)
            table[number * width : (number + 1) * width] = array("Q", new)
        self._clusters.changed(index, slot * width, stop * width)

    # -- the rest --------------------------------------------------------------------------------------------

    def _resize(self, size: int) -> None:
        """Set the disk's size; its bytes behind the smaller one of both sizes are zeros from then on."""
        self.changing(0, 0)
        old, cluster = self._size, self._image.geometry.cluster
        if size < old:
            edge = min(old, align_up(size, cluster))
            self._write_zeros(size, edge)
            if edge < old:
                self._mark(edge, old, hidden=0)
        else:
            grow_l1(self._file, self._updates, self._image.geometry, size, self.put_header)
            self._grow_to(old, size)
        self._updates.sync()
        self.put_header(size=size)
        if self._recording is not None:
            self._recording.resized(old, size)

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
            try:
                if self._recording is not None:
                    self._recording.store(self)
            finally:
                self._updates.finish()
        finally:
            super()._close()
