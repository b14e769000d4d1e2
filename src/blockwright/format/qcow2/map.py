"""The address map of a qcow2 image: L1 entries, and the L2 tables that are in memory.

Readers take no lock: a table in memory is found by one look into a dict. What is not there is read, and kept unless a
table was dropped meanwhile, since what was read might be older than what was written by then.

Knows: what entries mean, and which of them break a rule. Refuses to know: allocation.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.device.vector import clear
from blockwright.errors import Corrupt
from blockwright.format.mapped import Kind, Place
from blockwright.format.qcow2 import layout
from blockwright.format.qcow2.layout import (
    COMPRESSED,
    L1_RESERVED,
    L2_RESERVED,
    OFFSET_MASK,
    SPEC,
    SUBCLUSTERS,
    ZERO,
    Geometry,
)
from blockwright.units import MiB

CACHE: Final = 32 * MiB
"""Bytes of L2 tables that are kept: with clusters of 64 KiB they map 256 GiB."""

MIN_TABLES: Final = 16


class ClusterMap:
    """Where the clusters of a disk lie in ``file``.

    ``l1`` are the entries at ``l1_offset``. ``has_zero`` says that bit 0 of an entry means zeros (version 3).
    ``own_data`` says that data lies in ``file`` itself, and not in an external data file.
    """

    def __init__(
        self,
        file: BlockDevice,
        geometry: Geometry,
        l1: array[int],
        l1_offset: int,
        *,
        has_zero: bool,
        own_data: bool = True,
    ) -> None:
        self.file = file
        self.geometry = geometry
        self.l1 = l1
        self.l1_offset = l1_offset
        self.has_zero = has_zero and not geometry.extended
        self.own_data = own_data
        self.tables: dict[int, array[int]] = {}
        self.limit = max(MIN_TABLES, CACHE // geometry.cluster)
        self.drops = 0  # times that a table left the memory
        self._loading = threading.Lock()
        low = (geometry.cluster - 1) & OFFSET_MASK
        self._wrong = L2_RESERVED | low | (0 if self.has_zero else ZERO)

    # -- tables ----------------------------------------------------------------------------------------------

    def table_offset(self, index: int) -> int:
        """Return where L2 table ``index`` lies in the file, 0 where there is none. Raises Corrupt."""
        entry = self.l1[index]
        offset = entry & OFFSET_MASK
        if entry & L1_RESERVED or offset % self.geometry.cluster:
            raise Corrupt(
                f"qcow2 L1 entry {index}: expected a multiple of {self.geometry.cluster}, found {entry:#x}",
                offset=self.l1_offset + 8 * index,
                spec=SPEC,
            )
        return offset

    def table(self, index: int) -> array[int] | None:
        """Return the entries of L2 table ``index``, None where there is no table. Raises Corrupt, OSError."""
        found = self.tables.get(index)
        while found is None:
            drops = self.drops
            offset = self.table_offset(index)
            if not offset:
                return None
            loaded = self._load(index, offset)
            with self._loading:
                if self.drops == drops:
                    found = self.tables.setdefault(index, loaded)
                    if len(self.tables) > self.limit:
                        self._drop_some(index)
        return found

    def _load(self, index: int, offset: int) -> array[int]:
        cluster, size = self.geometry.cluster, self.file.size
        if offset >= size:
            raise Corrupt(
                f"qcow2 L2 table {index}: expected to lie within the {size} bytes of the file, found it at {offset}",
                offset=self.l1_offset + 8 * index,
                spec=SPEC,
            )
        data = bytearray(cluster)
        view = memoryview(data)
        present = min(cluster, size - offset)
        self.file.read_into(offset, view[:present])
        clear(view[present:])
        return layout.entries(data)

    def keeps(self, index: int) -> bool:
        """Whether table ``index`` must stay in memory; nothing need here."""
        return False

    def _drop_some(self, keep: int) -> None:
        """Forget the tables that came first, of those that may go."""
        gone = [each for each in self.tables if each != keep and not self.keeps(each)]
        for index in gone[: max(1, self.limit // 8)]:
            self.drops += 1
            del self.tables[index]

    # -- places ----------------------------------------------------------------------------------------------

    def resolve(self, offset: int, end: int, below: int) -> Iterator[Place]:
        """Yield the places of [offset, end); the device below has ``below`` bytes."""
        span = self.geometry.l2_span
        while offset < end:
            index = offset // span
            stop = min(end, (index + 1) * span)
            table = self.table(index)
            if table is None:
                yield from unallocated(offset, stop, below)
            else:
                yield from self.in_table(table, index, offset, stop, below)
            offset = stop

    def resolve_ready(self, offset: int, end: int, below: int) -> Iterator[Place | None]:
        """Yield as ``resolve`` does, and None where a table is not in memory."""
        span = self.geometry.l2_span
        while offset < end:
            index = offset // span
            stop = min(end, (index + 1) * span)
            table = self.tables.get(index)
            if table is not None:
                yield from self.in_table(table, index, offset, stop, below)
            elif not self.l1[index]:
                yield from unallocated(offset, stop, below)
            else:
                yield None
                return
            offset = stop

    def in_table(self, table: array[int], index: int, offset: int, stop: int, below: int) -> Iterator[Place]:
        """Yield the places of [offset, stop), which table ``index`` maps, with neighbours joined."""
        if not self.geometry.extended:
            yield from self._clusters(table, index, offset, stop, below)
            return
        kind, start, host = Kind.HOLE, offset, 0
        for position, found, place, within in self._subclusters(table, index, offset, stop):
            goes_on = found is not Kind.DATA or place == host + position - start
            if found is kind and found is not Kind.COMPRESSED and position > start and goes_on:
                continue
            if position > start:
                yield from _place(kind, start, position, host, below)
            kind, start, host = found, position, place
            if found is Kind.COMPRESSED:
                cluster_end = min(stop, offset_up(position, self.geometry.cluster))
                yield Place(found, cluster_end - position, place, within)
                start = cluster_end
                kind = Kind.HOLE
        if stop > start:
            yield from _place(kind, start, stop, host, below)

    def _clusters(self, table: array[int], index: int, offset: int, stop: int, below: int) -> Iterator[Place]:
        """Yield as ``in_table`` does without subclusters: this is walked often, so each entry is looked at once."""
        bits, cluster, wrong = self.geometry.cluster_bits, self.geometry.cluster, self._wrong
        slot = (offset >> bits) % self.geometry.l2_entries
        base = offset - (offset & (cluster - 1)) - (slot << bits)
        last = ((stop - 1 - base) >> bits) + 1
        other = COMPRESSED | wrong
        while slot < last:
            entry, number = table[slot], slot
            slot += 1
            kind, host = Kind.BACKING, 0
            if not entry:
                while slot < last and not table[slot]:
                    slot += 1
            elif entry & COMPRESSED:
                kind, host = Kind.COMPRESSED, entry
            elif entry & wrong:
                self.refuse(index, number, entry)
            elif entry & ZERO:
                kind = Kind.ZERO
                while slot < last and table[slot] & ZERO and not table[slot] & other:
                    slot += 1
            elif entry & OFFSET_MASK or not self.own_data:
                kind, host, following = Kind.DATA, entry & OFFSET_MASK, entry + cluster
                while slot < last and table[slot] == following:
                    slot += 1
                    following += cluster
            end = min(stop, base + (slot << bits))
            within = offset - base - (number << bits)
            if kind is Kind.COMPRESSED:
                yield Place(kind, end - offset, host, within)
            else:
                yield from _place(kind, offset, end, host + within, below)
            offset = end

    def _subclusters(
        self, table: array[int], index: int, offset: int, stop: int
    ) -> Iterator[tuple[int, Kind, int, int]]:
        """Yield as ``_clusters`` does, for each subcluster."""
        geometry = self.geometry
        cluster, unit = geometry.cluster, geometry.unit
        position = offset
        while position < stop:
            slot = (position // cluster) % geometry.l2_entries
            entry, bitmap = table[2 * slot : 2 * slot + 2]
            within = position % cluster
            cluster_end = min(stop, position - within + cluster)
            if entry & COMPRESSED:
                yield position, Kind.COMPRESSED, entry, within
                position = cluster_end
                continue
            host = entry & OFFSET_MASK
            allocated, zero = bitmap & layout.ALL_SUBCLUSTERS, bitmap >> SUBCLUSTERS
            placed = host or (entry and not self.own_data)
            if entry & self._wrong or allocated & zero or (allocated and not placed):
                self.refuse(index, slot, entry, bitmap)
            while position < cluster_end:
                bit = 1 << (within // unit)
                if allocated & bit:
                    yield position, Kind.DATA, host + within, 0
                else:
                    yield position, Kind.ZERO if zero & bit else Kind.BACKING, 0, 0
                step = unit - within % unit
                position += step
                within += step

    def refuse(self, index: int, slot: int, entry: int, bitmap: int | None = None) -> None:
        """Raise Corrupt for an L2 entry, naming the byte where it lies."""
        size = 8 if bitmap is None else 16
        found = f"{entry:#x}" if bitmap is None else f"{entry:#x} with subclusters {bitmap:#x}"
        raise Corrupt(
            f"qcow2 L2 entry {slot} of table {index}: expected a multiple of {self.geometry.cluster} and no reserved "
            f"bit, found {found}",
            offset=self.table_offset(index) + size * slot,
            spec=SPEC,
        )


def offset_up(position: int, cluster: int) -> int:
    """Return the end of the cluster that holds the position."""
    return (position // cluster + 1) * cluster


def _place(kind: Kind, start: int, end: int, host: int, below: int) -> Iterator[Place]:
    if kind is Kind.BACKING:
        yield from unallocated(start, end, below)
    else:
        yield Place(kind, end - start, host)


def unallocated(start: int, end: int, below: int) -> Iterator[Place]:
    """Yield the places of a range that the image does not hold: in the device below, and holes behind its end."""
    border = min(max(start, below), end)
    if border > start:
        yield Place(Kind.BACKING, border - start)
    if end > border:
        yield Place(Kind.HOLE, end - border)
