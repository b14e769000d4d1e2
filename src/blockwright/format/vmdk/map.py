"""The address map of a sparse extent: its grain directory, and the grain tables that are in memory.

Readers take no lock to find a table in memory; what is not there is read, one thread at a time.

Knows: what entries mean, and which of them break a rule. Refuses to know: allocation.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt
from blockwright.format.mapped import Kind, Place
from blockwright.format.vmdk.layout import (
    ENTRIES,
    SPEC,
    TABLE_BYTES,
    ZEROED,
    SparseExtentHeader,
    entries,
)
from blockwright.units import SECTOR

LIMIT: Final = 16384
"""Grain tables that are kept: 32 MiB, and with grains of 64 KiB 512 GiB of the disk."""

EMPTY: Final = array("I", bytes(TABLE_BYTES))
"""A table without grains."""


def read_directory(file: BlockDevice, header: SparseExtentHeader, offset: int) -> array[int]:
    """Return the grain directory at ``offset``, whose place ``check_header`` has verified."""
    return entries(file.read(offset, header.tables * 4))


class GrainMap:
    """Where the grains of an extent lie in ``file``; ``directory`` has the sectors of its tables, 0 for none."""

    def __init__(self, file: BlockDevice, header: SparseExtentHeader, directory: array[int]) -> None:
        self.file = file
        self.header = header
        self.directory = directory
        self.tables: dict[int, array[int]] = {}
        self.lock = threading.RLock()
        self._kind = Kind.COMPRESSED if header.compressed else Kind.DATA

    def table(self, index: int) -> array[int] | None:
        """Return the entries of table ``index``, None where there is no table. Raises Corrupt, OSError."""
        found = self.tables.get(index)
        if found is not None or not self.directory[index]:
            return found
        with self.lock:
            found = self.tables.get(index)
            if found is None:
                found = load_table(self.file, self.directory[index] * SECTOR, index)
                if len(self.tables) >= LIMIT:
                    self._drop_some()
                self.tables[index] = found
        return found

    def keeps(self, index: int) -> bool:
        """Whether table ``index`` must stay in memory; nothing need here."""
        return False

    def _drop_some(self) -> None:
        for index in [each for each in self.tables if not self.keeps(each)][: LIMIT // 8]:
            del self.tables[index]

    def resolve(self, offset: int, end: int, below: int) -> Iterator[Place]:
        """Yield the places of [offset, end); the device below has ``below`` bytes. Raises Corrupt."""
        kind, start, host = Kind.HOLE, offset, 0
        for position, found, place in self._grains(offset, end):
            if found is Kind.COMPRESSED:
                if position > start:
                    yield from _place(kind, start, position, host, below)
                stop = min(end, (position // self.header.grain + 1) * self.header.grain)
                yield Place(found, stop - position, place, position % self.header.grain)
                kind, start, host = Kind.HOLE, stop, 0
                continue
            if found is kind and (found is not Kind.DATA or place == host + position - start):
                continue
            if position > start:
                yield from _place(kind, start, position, host, below)
            kind, start, host = found, position, place
        if end > start:
            yield from _place(kind, start, end, host, below)

    def resolve_ready(self, offset: int, end: int, below: int) -> Iterator[Place | None]:
        """Yield as ``resolve`` does, and None where a table is not in memory."""
        span = self.header.span
        while offset < end:
            index = offset // span
            stop = min(end, (index + 1) * span)
            if self.directory[index] and index not in self.tables:
                yield None
                return
            yield from self.resolve(offset, stop, below)
            offset = stop

    def _grains(self, offset: int, end: int) -> Iterator[tuple[int, Kind, int]]:
        """Yield (position, kind, host) for each grain or run of such without data, the first from ``offset`` on.

        Kind.BACKING is a grain that the extent does not hold.
        """
        grain, span, size = self.header.grain, self.header.span, self.file.size
        zeroed = ZEROED if self.header.zeroed else 0
        low = self.header.overhead
        while offset < end:
            index = offset // span
            stop = min(end, (index + 1) * span)
            table = self.table(index)
            if table is None or table == EMPTY:
                yield offset, Kind.BACKING, 0
                offset = stop
                continue
            slot = offset // grain % ENTRIES
            while offset < stop:
                entry, within = table[slot], offset % grain
                if not entry:
                    yield offset, Kind.BACKING, 0
                elif entry == zeroed:
                    yield offset, Kind.ZERO, 0
                else:
                    host = entry * SECTOR
                    if host >= size:
                        size = self.file.size  # which grew before the entry was made
                    if not low <= host < size:
                        self.refuse(index, slot, entry)
                    yield offset, self._kind, host if self.header.compressed else host + within
                offset += grain - within
                slot += 1

    def refuse(self, index: int, slot: int, entry: int) -> None:
        """Raise Corrupt for an entry of a table, naming the byte where it lies."""
        raise Corrupt(
            f"vmdk grain table {index}, entry {slot}: expected a sector from {self.header.record.overhead} on within "
            f"the {self.file.size} bytes of the file, found {entry}",
            offset=self.directory[index] * SECTOR + 4 * slot,
            spec=SPEC,
        )


def load_table(file: BlockDevice, offset: int, index: int) -> array[int]:
    """Return the table at ``offset``. Raises Corrupt where it does not lie within the file."""
    if offset + TABLE_BYTES > file.size:
        raise Corrupt(
            f"vmdk grain table {index}: expected to lie within {file.size} bytes of the file, found it at {offset}",
            offset=offset,
            spec=SPEC,
        )
    return entries(file.read(offset, TABLE_BYTES))


def _place(kind: Kind, start: int, end: int, host: int, below: int) -> Iterator[Place]:
    if kind is not Kind.BACKING:
        yield Place(kind, end - start, host)
        return
    border = min(max(start, below), end)
    if border > start:
        yield Place(Kind.BACKING, border - start)
    if end > border:
        yield Place(Kind.HOLE, end - border)
