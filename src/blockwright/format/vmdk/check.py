"""Verifies the structures of a VMDK image: directories, tables, their copies, and where grains lie.

Knows: which rules hold between structures. Refuses to know: what the disk holds.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import pairwise
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt
from blockwright.finding import Finding
from blockwright.format.vmdk.compressed import longest
from blockwright.format.vmdk.layout import (
    ENTRIES,
    MARKER_HEAD,
    TABLE_SECTORS,
    ZEROED,
    SparseExtentHeader,
    SparseHeader,
)
from blockwright.format.vmdk.map import EMPTY, load_table, read_directory
from blockwright.format.vmdk.open import SPARSE_MARK, Opener, read_descriptor, read_embedded
from blockwright.format.vmdk.sparse import read_header
from blockwright.units import SECTOR, align_up

LEAK: Final = "vmdk.leak"
MAX_FINDINGS: Final = 1000
"""Findings that are told of one extent; a last one says that there are more."""

_BITS: Final = 16
"""Bits of the sectors of a grain, of which the longest takes 36866."""

_Run = tuple[int, int, str]
"""(start, end, what) of a structure in the file."""


def check(file: BlockDevice, files: Opener) -> Iterator[Finding]:
    """Yield what is wrong with each sparse extent of the disk in ``file``; offsets are bytes of the extent's file.

    Raises FormatError where header or descriptor do not hold, and what ``files`` raises.
    """
    mark = file.read(0, min(4, file.size))
    if mark == SPARSE_MARK:
        read_embedded(file)
        yield from check_extent(file)
        return
    descriptor, _ = read_descriptor(file)
    for extent in descriptor.extents:
        if extent.kind == "ZERO":
            continue
        with files.part(extent.name, "extent") as part:
            if extent.kind == "SPARSE":
                name = extent.name.decode("utf-8", "replace")
                yield from (_named(each, name) for each in check_extent(part))


def _named(finding: Finding, name: str) -> Finding:
    return Finding(finding.rule, f"{name}: {finding.message}", finding.offset, finding.repairable)


def check_extent(file: BlockDevice) -> Iterator[Finding]:
    """Yield what is wrong with the extent in ``file``. Raises FormatError where its header does not hold."""
    header = read_header(file)
    for count, finding in enumerate(_Checker(file, header).findings()):
        if count == MAX_FINDINGS:
            yield Finding("vmdk.more", f"more than {MAX_FINDINGS} findings: the rest is not told")
            return
        yield finding


class _Checker:
    """Walks one extent once, table by table, and notes where everything lies."""

    def __init__(self, file: BlockDevice, header: SparseExtentHeader) -> None:
        self._file = file
        self._header = header
        self._runs: list[_Run] = []
        self._places = array("Q")  # of grains: the first sector and, in the low bits, how many
        self._tables = array("Q")  # the same of grain tables
        self._shared: frozenset[int] = frozenset()  # sectors at which several entries have a table
        self._seen: set[int] = set()
        self._ahead = 0

    def findings(self) -> Iterator[Finding]:
        header = self._header
        record = header.record
        directory = read_directory(self._file, header, header.directory)
        self._note(0, SparseHeader.SIZE, "header")
        self._note(record.descriptor_offset * SECTOR, record.descriptor_size * SECTOR, "descriptor")
        self._note(header.directory, header.tables * 4, "grain directory")
        redundant = None
        if header.redundant is not None:
            self._note(header.redundant, header.tables * 4, "redundant grain directory")
            redundant = read_directory(self._file, header, header.redundant)
        self._shared = _repeated(directory, redundant)
        for index in range(header.tables):
            table, problem = self._table(directory[index], index, "")
            yield from problem
            if redundant is not None:
                copy, problem = self._table(redundant[index], index, "redundant ")
                yield from problem
                if table is not None and copy is not table and copy != table:
                    yield from self._differences(index, table, copy, directory[index])
            if table is not None and table is not EMPTY:
                yield from self._grains(index, table, directory[index] * SECTOR)
        yield from self._layout()

    def _note(self, start: int, length: int, what: str) -> None:
        if length:
            self._runs.append((start, start + length, what))

    def _table(self, sector: int, index: int, what: str) -> tuple[array[int] | None, Iterable[Finding]]:
        if not sector:
            return None, ()
        if sector in self._shared:  # not walked once for each entry of a directory
            if sector in self._seen:
                message = f"{what}grain table {index}: expected a place of its own, found that of another"
                return None, (Finding("vmdk.overlap", message, sector * SECTOR),)
            self._seen.add(sector)
        try:
            table = load_table(self._file, sector * SECTOR, index)
        except Corrupt as error:
            return None, (Finding(f"vmdk.{what.strip() or 'grain'}-table", str(error.args[0]), sector * SECTOR),)
        self._tables.append(sector << _BITS | TABLE_SECTORS)
        return EMPTY if table == EMPTY else table, ()

    def _differences(self, index: int, table: array[int], copy: array[int] | None, sector: int) -> Iterator[Finding]:
        """Tell where the redundant table differs. Where it alone has an entry, a cut came before the other's turn."""
        if copy is None:
            if any(table):
                yield Finding(
                    "vmdk.copies", f"grain table {index}: expected a redundant copy, found none", sector * SECTOR
                )
            return
        for slot in range(ENTRIES):
            one, other = table[slot], copy[slot]
            if one == other:
                continue
            if not one:
                self._ahead += 1
                continue
            yield Finding(
                "vmdk.copies",
                f"grain table {index}, entry {slot}: expected {one} in the redundant copy, found {other}",
                sector * SECTOR + 4 * slot,
            )

    def _grains(self, index: int, table: array[int], offset: int) -> Iterator[Finding]:
        header, size = self._header, self._file.size
        first = index * ENTRIES
        for slot, entry in enumerate(table):
            if not entry or (entry == ZEROED and header.zeroed):
                continue
            start = entry * SECTOR
            where = f"grain table {index}, entry {slot}"
            if (first + slot) * header.grain >= header.size:
                yield Finding(
                    "vmdk.grain", f"{where}: expected none behind the disk's end, found {entry}", offset + 4 * slot
                )
                continue
            if not header.overhead <= start < size:
                message = (
                    f"{where}: expected a sector from {header.record.overhead} on in {size} bytes, found {entry}"
                )
                yield Finding("vmdk.grain", message, offset + 4 * slot)
                continue
            length = header.grain
            if header.compressed:
                head = self._file.read(start, min(MARKER_HEAD, size - start)).ljust(MARKER_HEAD, b"\0")
                number, packed = int.from_bytes(head[:8], "little"), int.from_bytes(head[8:], "little")
                wanted = (first + slot) * (header.grain // SECTOR)
                if number != wanted or not 0 < packed <= longest(header.grain) or start + MARKER_HEAD + packed > size:
                    message = f"{where}: expected the marker of sector {wanted}, found {number} with {packed} bytes"
                    yield Finding("vmdk.marker", message, start)
                    continue
                length = align_up(MARKER_HEAD + packed, SECTOR)
            elif start + min(length, header.size - (first + slot) * length) > size:
                yield Finding("vmdk.grain", f"{where}: expected it to end within {size} bytes", offset + 4 * slot)
            self._places.append(entry << _BITS | length // SECTOR)

    def _layout(self) -> Iterator[Finding]:
        """Tell what lies over something else, and room that nothing refers to."""
        end, last, unused = self._header.overhead, "header", 0
        covered = 0
        for start, stop, what in merge(
            sorted(self._runs), _runs_of(self._tables, "grain table"), _runs_of(self._places, "grain")
        ):
            if start < covered:
                yield Finding("vmdk.overlap", f"{what}: expected it apart, found it in the {last} before it", start)
            if start - end >= self._header.grain:
                unused += start - end
            if stop > covered:
                covered, last = stop, what
            end = max(end, stop)
        unused += max(0, self._file.size - end)
        if not self._header.compressed and unused >= self._header.grain:
            yield Finding(LEAK, f"expected all of the file to be referred to, found {unused} bytes that nothing does")
        elif self._ahead:
            yield Finding(LEAK, f"expected all grains in both tables, found {self._ahead} in redundant ones only")


def _repeated(*directories: array[int] | None) -> frozenset[int]:
    """Return the sectors that more than one entry of the directories has."""
    every = sorted(sector for directory in directories if directory is not None for sector in directory if sector)
    return frozenset(one for one, other in pairwise(every) if one == other)


def _runs_of(packed: array[int], what: str) -> Iterator[_Run]:
    """Yield structures in order of the file, of which ``packed`` has the first sector and how many."""
    for each in sorted(packed):
        start = (each >> _BITS) * SECTOR
        yield start, start + (each & (1 << _BITS) - 1) * SECTOR, what
