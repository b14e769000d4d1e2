"""What a writable image keeps of its tables, and the order in which changes of them reach the disk.

Whatever a power cut leaves has clusters that are counted and not used, and nothing worse: a cluster is counted before
a table refers to it, a new table is whole before one refers to it, and a cluster is counted less only when no table
on the disk refers to it any more. ``sync`` writes in that order, with a flush between each two steps.

A freed cluster is free for others when, besides, every call has ended that may have found it in the map before.

Knows: order. Refuses to know: which clusters a write needs.
"""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.errors import Corrupt, NoSpace
from blockwright.format.qcow2 import layout
from blockwright.format.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, Geometry
from blockwright.format.qcow2.map import ClusterMap
from blockwright.format.qcow2.refcounts import Refcounts, Write
from blockwright.units import MiB, align_down, align_up

GROWTH = 16 * MiB
"""Bytes by which the file grows at once; what was not used is cut off when it is closed."""


class WritableMap(ClusterMap):
    """A map some of whose tables are newer in memory. Changed under the image's lock only."""

    def __init__(self, *args: object, **options: bool) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # as its base takes them
        self.dirty: dict[int, tuple[int, int]] = {}
        """By table: the span of entries that are not on the disk."""
        self.dirty_l1: set[int] = set()
        """L1 entries that are not on the disk; nor is what their tables hold."""
        self.writing: set[int] = set()

    def keeps(self, index: int) -> bool:
        return index in self.dirty or index in self.writing

    def changed(self, index: int, low: int, high: int) -> None:
        """Take note that entries [low, high) of a table, in numbers of 8 bytes, are newer in memory."""
        span = self.dirty.get(index)
        if span is None or span[0] == span[1]:
            self.dirty[index] = (low, high)
        else:
            self.dirty[index] = (min(low, span[0]), max(high, span[1]))

    def hold(self, index: int, table: array[int]) -> bool:
        """Keep ``table``, if it still is the table ``index`` in memory, there until its changes are written."""
        with self._loading:
            if self.tables.get(index) is not table:
                return False
            self.dirty.setdefault(index, (0, 0))
            return True

    def replace_l1(self, l1: array[int], offset: int) -> None:
        """Map what other tables say. Nothing of the present ones may be unwritten."""
        with self._loading:
            self.drops += 1
            self.tables.clear()
            self.l1, self.l1_offset = l1, offset

    def put(self, index: int, table: array[int], offset: int) -> None:
        """Make ``table``, which is to lie at ``offset``, the table ``index``."""
        self.dirty_l1.add(index)
        self.changed(index, 0, len(table))
        with self._loading:
            self.drops += 1  # what somebody reads just now is older
            self.tables[index] = table
            self.l1[index] = offset | COPIED
            if len(self.tables) > self.limit:
                self._drop_some(index)


def _clusters() -> array[int]:
    """Return room for numbers of clusters, of which there may be as many as a disk has."""
    return array("Q")


@dataclass(slots=True)
class _Work:
    """What one ``sync`` writes: (first the counts and new tables, then the table of counts, then what refers)."""

    first: list[Write] = field(default_factory=list)
    counts: list[Write] = field(default_factory=list)
    last: list[Write] = field(default_factory=list)
    loose: array[int] = field(default_factory=_clusters)
    tables: dict[int, tuple[int, int]] = field(default_factory=dict)
    l1: set[int] = field(default_factory=set)
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    entries: set[int] = field(default_factory=set)


class Updates:
    """The changes of one image. ``lock`` guards map and counts; it is held for no I/O but that of a missing table.

    ``data`` are the devices that hold data, made durable before a table refers to it. ``move_counts`` has the header
    say where the refcount table is. ``retire`` returns the uses that are going on, and makes the device count new
    ones apart; ``freed`` is called when clusters become free.
    """

    def __init__(
        self,
        file: BlockDevice,
        geometry: Geometry,
        clusters: WritableMap,
        table: array[int],
        table_offset: int,
        data: Sequence[BlockDevice],
        move_counts: Callable[[int, int], None],
        retire: Callable[[], deque[None]],
        freed: Callable[[], None],
    ) -> None:
        self.lock = threading.Lock()
        self.map = clusters
        self.geometry = geometry
        self.counts = Refcounts(file, geometry, table, table_offset, self._reserve, move_counts)
        self._file = file
        self._data = data
        self._retire = retire
        self._freed = freed
        self._flushing = threading.Lock()
        self._loose = _clusters()
        self._retired: list[tuple[deque[None], array[int]]] = []
        self._whole = file.size
        self._structures: set[int] | None = None
        self.rounds = 0
        """How often clusters became free again."""
        self._added = align_up(file.size, geometry.cluster) if isinstance(file, ResizableDevice) else 1 << 62
        """Where the file is extended from: what was never allocated behind it is zeros."""

    # -- under the lock --------------------------------------------------------------------------------------

    def allocate(self, wanted: int) -> tuple[int, int, bool]:
        """Return (offset, clusters, whether they are zeros) of new clusters in a row."""
        used = self.counts.end
        first, count = self.counts.allocate(wanted)
        if self._structures is None:
            self._structures = self._find_structures()
        taken = self._structures.intersection(range(first, first + count))
        offset = first << self.geometry.cluster_bits
        if taken:
            raise Corrupt(
                f"qcow2 refcount of cluster {min(taken)}: expected at least 1 for one of the image's own structures, "
                "found 0: check --repair mends it",
                offset=min(taken) << self.geometry.cluster_bits,
            )
        return offset, count, offset >= self._added and first >= used

    def _find_structures(self) -> set[int]:
        """Return the clusters of the image's own structures: whatever their counts say, they are not free."""
        bits, clusters = self.geometry.cluster_bits, self.map
        found = {0, *self.counts.structures()}
        first = clusters.l1_offset >> bits
        found.update(range(first, first + self.geometry.clusters(8 * len(clusters.l1))))
        old = (entry for index, entry in enumerate(clusters.l1) if entry and index not in clusters.dirty_l1)
        found.update((entry & OFFSET_MASK) >> bits for entry in old)
        return found

    def give_back(self, offset: int, count: int) -> None:
        """Free clusters that no table ever referred to."""
        first = offset >> self.geometry.cluster_bits
        self.counts.add(range(first, first + count), -1)

    def loosen(self, clusters: Iterable[int]) -> None:
        """Free clusters as soon as no table on the disk refers to them, nor a call in flight."""
        self._loose.extend(clusters)

    def loosen_entry(self, entry: int) -> None:
        """Free what an L2 entry referred to."""
        self._loose.extend(self.clusters_of(entry))

    def clusters_of(self, entry: int) -> range:
        """Return the clusters that an L2 entry refers to."""
        bits = self.geometry.cluster_bits
        if entry & COMPRESSED:
            offset, length = self.geometry.compressed(entry)
            return range(offset >> bits, ((offset + length - 1) >> bits) + 1)
        offset = entry & OFFSET_MASK
        if not offset or not self.map.own_data:
            return range(0)
        return range(offset >> bits, (offset >> bits) + 1)

    def table(self, index: int) -> array[int]:
        """Return L2 table ``index``, in memory and this state's own, to be changed and noted as ``changed``."""
        clusters = self.map
        while True:
            table = clusters.table(index)
            if table is not None and clusters.l1[index] & COPIED:
                if clusters.hold(index, table):
                    return table
                continue
            old = clusters.table_offset(index)
            new = array("Q", bytes(self.geometry.cluster)) if table is None else table[:]
            offset, _, _ = self.allocate(1)
            clusters.put(index, new, offset)
            if old:
                self._loose.append(old >> self.geometry.cluster_bits)
            return new

    def _reserve(self, end: int) -> None:
        """Make the file long enough."""
        size = self._file.size
        if end <= size:
            return
        if not isinstance(self._file, ResizableDevice):
            raise NoSpace(f"qcow2: expected room for {end} bytes, found {size}")
        self._file.resize(align_up(end, GROWTH))

    # -- writing ---------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether tables or counts in memory are newer than on the disk."""
        return bool(self.map.dirty or self.map.dirty_l1 or self.counts.changed or self._loose)

    def sync(self) -> None:
        """Make durable all data and what refers to it, as it was when the call began."""
        with self._flushing:
            self._sync()

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Hold the lock while no L1 entry is newer in memory, and nothing is being written."""
        with self._flushing:
            while True:
                self._sync()
                self.lock.acquire()
                if not self.map.dirty_l1:
                    break
                self.lock.release()  # somebody was quicker
            try:
                yield
            finally:
                self.lock.release()

    def _sync(self) -> None:
        self._reap()
        with self.lock:
            work = self._take() if self.pending else None
        if work is None:
            self._flush_data()
            return
        try:
            self._write(work)
        except BaseException:
            with self.lock:
                self._untake(work)
            raise
        with self.lock:
            self.map.writing.clear()
            self.counts.written(work.entries)
            if work.loose:
                self._retired.append((self._retire(), work.loose))
        self._reap()

    def _take(self) -> _Work:
        work, clusters, cluster = _Work(), self.map, self.geometry.cluster
        work.first, work.counts, work.spans, work.entries = self.counts.take()
        for index, span in sorted(clusters.dirty.items()):
            table, offset = clusters.tables[index], clusters.table_offset(index)
            if index in clusters.dirty_l1:
                work.first.append(Write(offset, layout.entry_bytes(table)))
                continue
            step = min(cluster, layout.SECTOR) // 8
            low, high = align_down(span[0], step), align_up(span[1], step)
            if low < high:
                work.last.append(Write(offset + 8 * low, layout.entry_bytes(table[low:high])))
        for index in sorted(clusters.dirty_l1):
            work.last.append(Write(clusters.l1_offset + 8 * index, clusters.l1[index].to_bytes(8, "big")))
        work.loose, self._loose = self._loose, _clusters()
        work.loose.extend(self.counts.left)
        self.counts.left = []
        work.tables, work.l1 = clusters.dirty, clusters.dirty_l1
        clusters.writing = set(work.tables)  # first: at no time may one of them be dropped
        clusters.dirty, clusters.dirty_l1 = {}, set()
        return work

    def _untake(self, work: _Work) -> None:
        for index, (low, high) in work.tables.items():
            self.map.changed(index, low, high)
        self.map.writing.clear()
        self.map.dirty_l1 |= work.l1
        self.counts.give_back(work.spans, work.entries)
        self._loose.extend(work.loose)

    def _write(self, work: _Work) -> None:
        for step in (work.first, work.counts, work.last):
            for offset, data in step:
                self._file.write(offset, data)
            if step is work.first:
                self._flush_data()
            elif step:
                self._file.flush()

    def _flush_data(self) -> None:
        for device in self._data:
            device.flush()
        if self._file not in self._data:
            self._file.flush()

    def _reap(self) -> None:
        """Lower the counts of clusters that nobody uses any more, and give back the space of those that are free."""
        while self._retired and not self._retired[0][0]:
            loose = self._retired[0][1]
            with self.lock:
                done = array("Q", (each for each in loose if self.counts.get(each) == 1))
            self._give_space_back(sorted(done))
            del self._retired[0]
            self._freed()
            self.rounds += 1
            with self.lock:
                free = self.counts.add(loose, -1)
                if self._structures is not None:
                    self._structures.difference_update(free)

    def _give_space_back(self, clusters: Sequence[int]) -> None:
        if not self._file.traits.discard:
            return
        bits = self.geometry.cluster_bits
        start = end = -1
        for each in chain(clusters, (-1,)):
            if each not in (end, end - 1):  # one may be there twice
                if end > start >= 0:
                    length = min(end << bits, self._file.size) - (start << bits)
                    if length > 0:
                        self._file.discard(start << bits, length)
                start = each
            end = each + 1

    def finish(self) -> None:
        """Write all, and cut off what the file was extended by and does not use. Nobody else uses the image."""
        if self.pending or self._retired:
            self.sync()
            self._reap()
            if self.pending:
                self.sync()
        if isinstance(self._file, ResizableDevice):
            used = max(self._whole, self.counts.end << self.geometry.cluster_bits)
            if used < self._file.size:
                self._file.resize(used)
