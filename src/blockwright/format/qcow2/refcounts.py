"""Refcounts of clusters, and which clusters are free.

Blocks of refcounts are kept in memory once they were looked at; what changed is noted as spans, for whoever writes
it. A refcount in memory never is lower than what the disk's tables need: it is raised before a cluster is used, and
lowered when nothing on the disk refers to the cluster any more.

A block that is missing is made where it counts itself, as the first cluster of those that it counts: so making one
needs no second. A table that is too short moves behind the clusters that the old one counts.

Knows: counts. Refuses to know: what clusters hold, and when changes are written. Callers hold the image's lock.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, LimitExceeded, NotSupported
from blockwright.format.qcow2 import layout
from blockwright.format.qcow2.layout import (
    MAX_REFCOUNT_TABLE_BYTES,
    REFCOUNT_OFFSET_MASK,
    SPEC,
    Geometry,
    new_refcounts,
    pack_refcounts,
    unpack_refcounts,
)
from blockwright.units import MiB, align_down, align_up, ceil_div

CACHE: Final = 32 * MiB
"""Bytes of blocks that are kept in memory: with 64 KiB they count 1 TiB."""
MIN_BLOCKS: Final = 16


class Write(NamedTuple):
    """Bytes that belong at ``offset`` of the file."""

    offset: int
    data: bytes


class Refcounts:
    """The refcounts of ``file``, whose table is ``table`` at ``table_offset``.

    ``reserve`` is called with the end in bytes of what was allocated, before it is. ``move`` is called with the new
    offset and clusters of a table that moved, when all it refers to is written: it makes the header say so.
    """

    def __init__(
        self,
        file: BlockDevice,
        geometry: Geometry,
        table: array[int],
        table_offset: int,
        reserve: Callable[[int], None],
        move: Callable[[int, int], None],
    ) -> None:
        self._file = file
        self._geometry = geometry
        self._table = table
        self._table_offset = table_offset
        self._reserve = reserve
        self._move = move
        self._blocks: dict[int, array[int]] = {}
        self._dirty: dict[int, tuple[int, int]] = {}
        self._writing: dict[int, tuple[int, int]] = {}
        self._limit = max(MIN_BLOCKS, CACHE // geometry.cluster)
        self._owners: dict[int, int] = {}  # which block was found at an offset
        self._dirty_table: set[int] = set()
        self._fresh: set[int] = set()  # blocks that the table on the disk may not name yet
        self._hint = 0
        self.left: list[int] = []
        """Clusters that nothing refers to any more, for the caller to give back when nobody writes there."""
        self.end = 0
        """The first cluster behind all that were allocated since the image was opened."""

    # -- looking ---------------------------------------------------------------------------------------------

    def get(self, cluster: int) -> int:
        """Return the refcount of a cluster."""
        index, within = divmod(cluster, self._geometry.refcounts)
        block = self._block(index)
        return 0 if block is None else block[within]

    def _block(self, index: int) -> array[int] | None:
        found = self._blocks.get(index)
        if found is not None:
            return found
        entry = self._table[index] if index < len(self._table) else 0
        offset = entry & REFCOUNT_OFFSET_MASK
        if not offset:
            return None
        cluster, size = self._geometry.cluster, self._file.size
        where = f"a multiple of {cluster} below {size}, once"
        if offset % cluster or offset >= size or entry != offset or self._owners.setdefault(offset, index) != index:
            raise Corrupt(
                f"qcow2 refcount table entry {index}: expected {where}, found {entry:#x}",
                offset=self._table_offset + 8 * index,
                spec=SPEC,
            )
        data = self._file.read(offset, min(cluster, size - offset)).ljust(cluster, b"\0")
        if len(self._blocks) >= self._limit:
            self._forget()
        found = self._blocks[index] = unpack_refcounts(data, self._geometry.refcount_order)
        return found

    def _forget(self) -> None:
        """Forget the older half of the blocks that are on the disk as they are in memory."""
        for index in list(self._blocks)[: self._limit // 2]:
            if index not in self._dirty and index not in self._writing and index not in self._fresh:
                del self._blocks[index]

    def structures(self) -> Iterator[int]:
        """Yield the clusters of the table and of the blocks that were there when the image was opened."""
        bits = self._geometry.cluster_bits
        first = self._table_offset >> bits
        yield from range(first, first + self._geometry.clusters(8 * len(self._table)))
        for index, entry in enumerate(self._table):
            if entry and index not in self._fresh:
                yield (entry & REFCOUNT_OFFSET_MASK) >> bits

    # -- changing --------------------------------------------------------------------------------------------

    def add(self, clusters: Iterable[int], change: int) -> list[int]:
        """Change each cluster's refcount, and return those that became 0. Raises Corrupt below 0, LimitExceeded."""
        free = []
        for cluster in clusters:
            index, within = divmod(cluster, self._geometry.refcounts)
            block = self._made_block(index)
            count = block[within] + change
            if count < 0:
                raise Corrupt(
                    f"qcow2 refcount of cluster {cluster}: expected at least {-change}, found {block[within]}"
                )
            if count > self._geometry.max_refcount:
                most = self._geometry.max_refcount
                raise LimitExceeded(f"qcow2 refcount of cluster {cluster}: expected at most {most}, found {count}")
            block[within] = count
            self._changed(index, within, within + 1)
            if not count:
                free.append(cluster)
                self._hint = min(self._hint, cluster)
        return free

    def allocate(self, wanted: int) -> tuple[int, int]:
        """Return (first, count) of 1 to ``wanted`` free clusters in a row, which are in use from now on."""
        each = self._geometry.refcounts
        while True:
            index, within = divmod(self._hint, each)
            block = self._made_block(index)
            try:
                start = block.index(0, within)
            except ValueError:
                self._hint = (index + 1) * each
                continue
            stop = min(start + wanted, each)
            end = start + 1
            while end < stop and not block[end]:
                end += 1
            first = index * each + start
            self._use(first + end - start)
            for within in range(start, end):
                block[within] = 1
            self._changed(index, start, end)
            self._hint = first + end - start
            return first, end - start

    def allocate_run(self, wanted: int) -> int:
        """Return the first of exactly ``wanted`` free clusters in a row. Raises NotSupported for very long runs."""
        if wanted >= self._geometry.refcounts:
            raise NotSupported(
                f"qcow2: expected a run of at most {self._geometry.refcounts - 1} clusters, found one of {wanted}: "
                "the clusters are too small for a disk of this size"
            )
        hint = self._hint
        while True:
            first, count = self.allocate(wanted)
            if count == wanted:
                self._hint = min(hint, first)
                return first
            self.add(range(first, first + count), -1)
            self._hint = first + count

    def _use(self, end: int) -> None:
        self._reserve(end << self._geometry.cluster_bits)
        self.end = max(self.end, end)

    def _changed(self, index: int, low: int, high: int) -> None:
        span = self._dirty.get(index)
        self._dirty[index] = (low, high) if span is None else (min(low, span[0]), max(high, span[1]))

    def _made_block(self, index: int) -> array[int]:
        block = self._block(index)
        if block is not None:
            return block
        if index >= len(self._table):
            self._grow(index)
            return self._made_block(index)
        first = index * self._geometry.refcounts
        self._use(first + 1)
        block = self._blocks[index] = new_refcounts(self._geometry)
        block[0] = 1
        self._table[index] = first << self._geometry.cluster_bits
        self._dirty_table.add(index)
        self._fresh.add(index)
        self._changed(index, 0, len(block))
        return block

    def _grow(self, index: int) -> None:
        """Move the table to where it can have entry ``index``, half as long again, and write it at once."""
        geometry = self._geometry
        base = len(self._table) * geometry.refcounts
        wanted = max(index + 1, len(self._table) * 3 // 2 + 1)
        blocks = tables = 0
        while True:
            tables = ceil_div(max(wanted, len(self._table) + blocks), geometry.table_entries)
            needed = ceil_div(blocks + tables, geometry.refcounts)
            if needed <= blocks:
                break
            blocks = needed
        if tables * geometry.cluster > max(MAX_REFCOUNT_TABLE_BYTES, geometry.cluster):
            raise LimitExceeded(f"qcow2 refcount table: expected at most 8 MiB, found {tables * geometry.cluster}")
        self._use(base + blocks + tables)
        for each in self._fresh:  # what is in memory may be written at any time
            self._file.write(self._table[each], self._packed(self._blocks[each]))
        old, old_offset = len(self._table), self._table_offset
        table = self._table[:]
        table.extend([0] * (tables * geometry.table_entries - old))
        made = {}
        for number in range(blocks):
            block = new_refcounts(geometry)
            used = min(geometry.refcounts, blocks + tables - number * geometry.refcounts)
            for within in range(used):
                block[within] = 1
            table[old + number] = (base + number) << geometry.cluster_bits
            made[old + number] = block
            self._file.write((base + number) << geometry.cluster_bits, self._packed(block))
        offset = (base + blocks) << geometry.cluster_bits
        self._file.write(offset, layout.entry_bytes(table))
        self._file.flush()
        self._move(offset, tables)
        self._table, self._table_offset = table, offset
        self._blocks.update(made)
        first = old_offset >> geometry.cluster_bits
        # Somebody may be writing entries of the old table still.
        self.left += range(first, first + ceil_div(old * 8, geometry.cluster))

    # -- writing ---------------------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """Whether there is something to write."""
        return bool(self._dirty)

    def take(self) -> tuple[list[Write], list[Write], dict[int, tuple[int, int]], set[int]]:
        """Return what changed as (blocks, table entries, and both as ``give_back`` takes them); it counts as written.

        Blocks have to be durable before table entries are written.
        """
        spans, entries = self._dirty, self._dirty_table
        self._dirty, self._dirty_table = {}, set()
        self._writing = spans
        return (
            [self._span(*item) for item in sorted(spans.items())],
            [self._entry(each) for each in sorted(entries)],
            spans,
            entries,
        )

    def written(self, entries: set[int]) -> None:
        """Take note that what ``take`` returned is durable."""
        self._writing = {}
        self._fresh -= entries

    def give_back(self, spans: dict[int, tuple[int, int]], entries: set[int]) -> None:
        """Take note that what ``take`` returned was not written."""
        self._writing = {}
        for index, (low, high) in spans.items():
            self._changed(index, low, high)
        self._dirty_table |= entries

    def _packed(self, block: array[int]) -> bytes:
        return pack_refcounts(block, self._geometry.refcount_order)

    def _span(self, index: int, span: tuple[int, int]) -> Write:
        """Return the sectors of a block that hold the span."""
        sector = (layout.SECTOR * 8) >> self._geometry.refcount_order
        low, high = align_down(span[0], sector), align_up(span[1], sector)
        offset = (self._table[index] & REFCOUNT_OFFSET_MASK) + ((low << self._geometry.refcount_order) >> 3)
        return Write(offset, self._packed(self._blocks[index][low:high]))

    def _entry(self, index: int) -> Write:
        return Write(self._table_offset + 8 * index, self._table[index].to_bytes(8, "big"))
