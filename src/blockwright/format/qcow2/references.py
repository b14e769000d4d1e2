"""What refers to each cluster of an image: computed anew from all its tables, for those who verify or mend refcounts.

Whatever a reference breaks is noted, and the walk goes on: a wrong entry says nothing about its neighbours.

Knows: every table. Refuses to know: what the stored refcounts are.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import FormatError, LimitExceeded
from blockwright.finding import Finding
from blockwright.format.qcow2 import layout
from blockwright.format.qcow2.bitmap import TABLE_OFFSET, BitmapsExtension, read_bitmaps
from blockwright.format.qcow2.device import read_entries
from blockwright.format.qcow2.layout import (
    ALL_SUBCLUSTERS,
    COMPRESSED,
    L1_RESERVED,
    L2_RESERVED,
    OFFSET_MASK,
    REFCOUNT_OFFSET_MASK,
    SUBCLUSTERS,
    ZERO,
    ExtensionType,
    ImageHeader,
)
from blockwright.format.qcow2.snapshot import read_snapshot_table
from blockwright.units import ceil_div

_PAGE: Final = 1 << 10
_COUNTS: Final = array("I", bytes(_PAGE * array("I").itemsize))
MAX_REFERENCES: Final = (1 << 8 * array("I").itemsize) - 1
"""References to one cluster: more are made by a few tables that refer to one another's places again and again."""
MAX_CLUSTERS: Final = 1 << 32
MAX_STRUCTURES: Final = 1 << 22
"""Clusters of tables whose place is kept, those of L2 tables aside: all of a disk that others write take fewer."""
MAX_FINDINGS: Final = 10_000
"""Findings that are kept; an image with more is not worth a longer list."""


class References:
    """The references to each cluster of ``file``, counted; ``findings`` are the entries that break a rule.

    ``stop`` is the first cluster behind the file. Memory follows what is used.
    """

    def __init__(self, file: BlockDevice, image: ImageHeader) -> None:
        self.file = file
        self.image = image
        self.findings: list[Finding] = []
        self.metadata: dict[int, str] = {}
        """Clusters that hold the image's own structures, and which."""
        self.stop = ceil_div(file.size, image.geometry.cluster)
        if self.stop > MAX_CLUSTERS:
            raise LimitExceeded(f"qcow2: expected at most {MAX_CLUSTERS} clusters in the file, found {self.stop}")
        self._pages: dict[int, array[int]] = {}
        self._structures = 0

    def count(self, cluster: int) -> int:
        """Return the references to a cluster."""
        page = self._pages.get(cluster // _PAGE)
        return 0 if page is None else page[cluster % _PAGE]

    def pages(self) -> Iterator[tuple[int, array[int]]]:
        """Yield (first cluster, counts) of all clusters that may be referred to, ascending."""
        for index in sorted(self._pages):
            yield index * _PAGE, self._pages[index]

    @property
    def end(self) -> int:
        """The first cluster behind all that are referred to."""
        for first, page in reversed(list(self.pages())):
            for within in range(_PAGE - 1, -1, -1):
                if page[within]:
                    return first + within + 1
        return 0

    def note(self, rule: str, message: str, offset: int | None) -> None:
        """Take note of a broken rule."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(rule, message, offset))

    def add(self, cluster: int, times: int = 1) -> None:
        """Count references to a cluster. Raises LimitExceeded."""
        index, within = divmod(cluster, _PAGE)
        page = self._pages.get(index)
        if page is None:
            page = self._pages[index] = _COUNTS[:]
        count = page[within] + times
        if count > MAX_REFERENCES:
            raise LimitExceeded(
                f"qcow2: expected at most {MAX_REFERENCES} references to cluster {cluster}, found {count}"
            )
        page[within] = count

    def structure(self, offset: int, length: int, what: str, at: int) -> bool:
        """Count a structure of the image, and return whether nothing else lies where it does.

        What overlaps another is counted no further: else a few tables could be made to take for ever. Raises
        LimitExceeded.
        """
        cluster = self.image.geometry.cluster
        first, last = offset // cluster, ceil_div(offset + length, cluster)
        self._structures += last - first
        if self._structures > MAX_STRUCTURES:
            raise LimitExceeded(
                f"qcow2: expected at most {MAX_STRUCTURES} clusters of tables, found more: {what} has {last - first}",
                offset=at,
            )
        for each in range(first, last):
            if each in self.metadata:
                self.note(
                    "qcow2.overlap", f"{what} lies where {self.metadata[each]} does (byte {each * cluster})", at
                )
                return False
            self.metadata[each] = what
            self.add(each)
        return True


def compute(file: BlockDevice, image: ImageHeader, *, refcounts: bool = True) -> References:
    """Return the references to all clusters; ``refcounts`` says whether those of the refcount table count.

    What cannot be read at all is a finding. Raises LimitExceeded, OSError.
    """
    found = References(file, image)
    record, cluster = image.record, image.geometry.cluster
    found.structure(0, 1, "the header", 0)
    if refcounts:
        _refcount_structures(found)
    states = [("active", record.l1_table_offset, record.l1_size, 40)]
    try:
        snapshots, length = read_snapshot_table(file, image)
        if length:
            found.structure(record.snapshots_offset, length, "the snapshot table", 64)
        states += [
            (f"snapshot {each.id}", each.l1_offset, each.l1_size, record.snapshots_offset) for each in snapshots
        ]
    except FormatError as error:
        found.note("qcow2.snapshots", str(error.args[0]), error.offset)
    walked = []
    for name, offset, size, at in states:
        if size and found.structure(offset, size * 8, f"the L1 table ({name})", at):
            walked.append((name, offset, size))
    shared: dict[int, int] = {}
    for name, offset, size in walked:
        for index, entry in enumerate(read_entries(file, offset, size)):
            if entry:
                table = _table_of(found, entry, offset + 8 * index, name)
                if table:
                    shared[table] = shared.get(table, 0) + 1
    for table, times in shared.items():
        number = table // cluster
        if number in found.metadata:
            found.note("qcow2.overlap", f"an L2 table lies where {found.metadata[number]} does", table)
        else:
            found.metadata[number] = "an L2 table"
        found.add(number, times)
        _entries_of(found, table, times)
    _bitmaps(found)
    return found


def _refcount_structures(found: References) -> None:
    record, geometry = found.image.record, found.image.geometry
    length = record.refcount_table_clusters * geometry.cluster
    found.structure(record.refcount_table_offset, length, "the refcount table", 48)
    table = read_entries(found.file, record.refcount_table_offset, length // 8)
    for index, entry in enumerate(table):
        at = record.refcount_table_offset + 8 * index
        offset = entry & REFCOUNT_OFFSET_MASK
        if not entry:
            continue
        if entry != offset or offset % geometry.cluster:
            found.note("qcow2.refcount-table.entry", f"entry {index} is {entry:#x}, not a cluster's offset", at)
        elif offset >= found.file.size:
            found.note("qcow2.refcount-table.outside", f"block {index} lies at {offset}, behind the file's end", at)
        else:
            found.structure(offset, geometry.cluster, f"refcount block {index}", at)


def _table_of(found: References, entry: int, at: int, name: str) -> int:
    offset = entry & OFFSET_MASK
    if entry & L1_RESERVED or offset % found.image.geometry.cluster:
        found.note("qcow2.l1.entry", f"the L1 entry ({name}) is {entry:#x}, not a cluster's offset", at)
        return 0
    if offset >= found.file.size:
        found.note("qcow2.l1.outside", f"the L2 table ({name}) lies at {offset}, behind the file's end", at)
        return 0
    return offset


def _entries_of(found: References, table: int, times: int) -> None:
    """Count what the entries of an L2 table refer to; the table itself is referred to ``times`` times."""
    image, geometry = found.image, found.image.geometry
    own = image.data_file is None
    width = 2 if geometry.extended else 1
    wrong = L2_RESERVED | ((geometry.cluster - 1) & OFFSET_MASK)
    if geometry.extended or image.record.version < 3:
        wrong |= ZERO
    values = read_entries(found.file, table, geometry.cluster // 8)
    size = found.file.size
    for number in range(0, len(values), width):
        entry, at = values[number], table + 8 * number
        if not entry and (width == 1 or not values[number + 1]):
            continue
        if entry & COMPRESSED:
            _compressed(found, entry, at, times)
            continue
        offset = entry & OFFSET_MASK
        if entry & wrong:
            found.note("qcow2.l2.entry", f"the L2 entry is {entry:#x}, not a cluster's offset", at)
            continue
        if width == 2:
            bitmap = values[number + 1]
            if bitmap & ALL_SUBCLUSTERS & bitmap >> SUBCLUSTERS or (bitmap & ALL_SUBCLUSTERS and own and not offset):
                found.note("qcow2.l2.subclusters", f"the subclusters {bitmap:#x} of entry {entry:#x} contradict", at)
        if not offset or not own:
            continue
        if offset >= size:
            found.note("qcow2.l2.outside", f"data lies at {offset}, behind the file's end at {size}", at)
            continue
        cluster = offset >> geometry.cluster_bits
        if cluster in found.metadata:
            found.note("qcow2.overlap", f"data lies where {found.metadata[cluster]} does (byte {offset})", at)
        found.add(cluster, times)


def _compressed(found: References, entry: int, at: int, times: int) -> None:
    geometry = found.image.geometry
    offset, length = geometry.compressed(entry)
    if offset >= found.file.size:
        found.note("qcow2.l2.outside", f"compressed data lies at {offset}, behind the file's end", at)
        return
    for cluster in range(offset >> geometry.cluster_bits, ((offset + length - 1) >> geometry.cluster_bits) + 1):
        if cluster in found.metadata:
            found.note("qcow2.overlap", f"compressed data lies where {found.metadata[cluster]} does", at)
        found.add(cluster, times)


def _bitmaps(found: References) -> None:
    image, file = found.image, found.file
    data = image.extension(ExtensionType.BITMAPS)
    if data is None or not image.record.autoclear_features & layout.AUTOCLEAR_BITMAPS:
        return
    try:
        bitmaps = read_bitmaps(file, image)
    except FormatError as error:
        found.note("qcow2.bitmaps", str(error.args[0]), error.offset)
        return
    where = BitmapsExtension.parse(data)
    if where.directory_size:
        found.structure(where.directory_offset, where.directory_size, "the bitmap directory", 0)
    for bitmap in bitmaps:
        if bitmap.table_size:
            found.structure(bitmap.table_offset, bitmap.table_size * 8, f"the table of bitmap {bitmap.name}", 0)
        for index, entry in enumerate(read_entries(file, bitmap.table_offset, bitmap.table_size)):
            offset = entry & TABLE_OFFSET
            if offset and offset < file.size:
                found.structure(offset, 1, f"data of bitmap {bitmap.name}", bitmap.table_offset + 8 * index)
