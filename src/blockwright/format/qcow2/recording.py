"""The bitmaps of an image while it is written: in memory, brought up to date, and stored when it is closed.

Before the first change each is marked as in use, so whoever finds one so knows that its changes were lost. They are
stored beside what is there: tables first, then a directory, then one sector of the header names it; what was there
before is free then. So a power cut leaves the bitmaps in use, or stored, and never half of each.

Knows: marks, and their way to the disk. Refuses to know: who writes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from blockwright.device.base import BlockDevice
from blockwright.device.blockmap import PAGE
from blockwright.device.checkpoint import MAX_BLOCKS, Checkpoint, bits_of, states_of
from blockwright.errors import FormatError, LimitExceeded
from blockwright.format.qcow2.bitmap import (
    ALL_ONES,
    AUTO,
    IN_USE,
    TABLE_OFFSET,
    Bitmap,
    BitmapsExtension,
    bitmap_ranges,
    read_bitmaps,
)
from blockwright.format.qcow2.device import read_entries
from blockwright.format.qcow2.layout import AUTOCLEAR_BITMAPS, ExtensionType, ImageHeader, entry_bytes
from blockwright.units import ceil_div

if TYPE_CHECKING:  # which records
    from blockwright.format.qcow2.write import WritableQcow2

MAX_RECORDED: Final = 64
"""Bitmaps that are kept while an image is written: each costs every write a look."""
_BITS: Final = PAGE // 8


class Kept:
    """One bitmap as it is on the disk, and its marks in memory; None for one that is left as it is."""

    def __init__(self, bitmap: Bitmap, marks: Checkpoint | None) -> None:
        self.bitmap = bitmap
        self.marks = marks
        self.changed = False


class Recording:
    """The bitmaps of ``file``, an image of a disk of ``size`` bytes."""

    def __init__(self, file: BlockDevice, image: ImageHeader) -> None:
        """Read them all, the marks of the first ones that can be kept. Raises FormatError, OSError."""
        self._file = file
        found = read_bitmaps(file, image) if image.record.autoclear_features & AUTOCLEAR_BITMAPS else []
        holding = [each for each in found if each.consistent]
        self.crowded = len(holding) > MAX_RECORDED
        """Whether there are more than can be kept: they can be removed, and the image not be changed otherwise."""
        loaded = {each.at: load(file, image, each) for each in holding[:MAX_RECORDED]}
        self.kept = [Kept(each, loaded.get(each.at)) for each in found]
        self._gone: list[Bitmap] = []
        self._choose()

    @classmethod
    def of(cls, file: BlockDevice, image: ImageHeader) -> Recording | None:
        """Return the bitmaps of an image that is about to be written; None where there are none that hold.

        Raises LimitExceeded for more of them than can be kept.
        """
        if image.extension(ExtensionType.BITMAPS) is None or not image.record.autoclear_features & AUTOCLEAR_BITMAPS:
            return None
        try:
            found = cls(file, image)
        except FormatError:
            return None  # as every writer does that knows nothing of them: they count as not kept
        if found.crowded:
            raise LimitExceeded(
                f"qcow2: expected at most {MAX_RECORDED} bitmaps to be kept up to date, found more: remove some"
            )
        return found

    def _choose(self) -> None:
        self._recorded = tuple(each for each in self.kept if each.marks is not None and each.bitmap.flags & AUTO)

    def begin(self) -> None:
        """Mark all as in use, durably."""
        for each in self.kept:
            if not each.bitmap.flags & IN_USE and (each.marks is not None or each.bitmap.flags & AUTO):
                self._file.write(each.bitmap.at + 12, (each.bitmap.flags | IN_USE).to_bytes(4, "big"))
                if each.marks is None:
                    each.bitmap = replace(each.bitmap, flags=each.bitmap.flags | IN_USE)
        self._file.flush()

    def mark(self, offset: int, length: int) -> None:
        """Take note that the range changes."""
        for each in self._recorded:
            if each.marks is not None:
                each.changed = True
                each.marks.mark(offset, length)

    def resized(self, old: int, size: int) -> None:
        """Take note of another size: what was added has changed."""
        for each in self.kept:
            if each.marks is not None:
                each.changed = True
                each.marks.make_room(size)
        if size > old:
            self.mark(old, size - old)

    def add(self, bitmap: Bitmap, size: int) -> None:
        """Add one in which nothing is marked. Raises LimitExceeded."""
        if sum(each.marks is not None for each in self.kept) >= MAX_RECORDED:
            raise LimitExceeded(f"bitmaps: expected at most {MAX_RECORDED}")
        added = Kept(bitmap, Checkpoint("bitmap", size, block=bitmap.granularity))
        added.changed = True
        self.kept.append(added)
        self._choose()

    def find(self, name: str) -> Kept | None:
        """Return the bitmap of that name, None where there is none."""
        return next((each for each in self.kept if each.bitmap.name == name), None)

    def replace(self, kept: Kept, bitmap: Bitmap, marks: Checkpoint | None) -> None:
        """Make a bitmap that is kept another one, in the same place."""
        kept.bitmap, kept.marks, kept.changed = bitmap, marks, marks is not None
        self._choose()

    def remove(self, kept: Kept) -> None:
        """Forget one."""
        self.kept.remove(kept)
        self._gone.append(kept.bitmap)
        self._choose()

    # -- storing ---------------------------------------------------------------------------------------------

    def store(self, disk: WritableQcow2) -> None:
        """Put all on the disk, whole and not in use any more, and free what they took before. Raises OSError."""
        updates, bits = disk.updates, disk.image.geometry.cluster_bits
        gone = list(_clusters(self._file, disk.image, self._gone))
        gone += _directory_clusters(disk.image)
        for each in self.kept:
            if each.marks is not None and each.changed:
                gone += _clusters(self._file, disk.image, [each.bitmap])
                each.bitmap = self._put_marks(disk, each.bitmap, each.marks)
                each.changed = False
        data = b"".join(each.bitmap.pack() for each in self.kept)
        extension = None
        if data:
            count = disk.image.geometry.clusters(len(data))
            with updates.lock:
                offset = updates.counts.allocate_run(count) << bits
            self._file.write(offset, data.ljust(count << bits, b"\0"))
            for each in self.kept:
                each.bitmap = replace(each.bitmap, at=offset)
                offset += len(each.bitmap.pack())
            extension = BitmapsExtension(
                count=len(self.kept), directory_size=len(data), directory_offset=offset - len(data)
            ).pack()
        updates.sync()
        disk.put_bitmaps(extension)
        with updates.lock:
            updates.loosen(gone)
        updates.sync()
        self._gone = []

    def _put_marks(self, disk: WritableQcow2, bitmap: Bitmap, marks: Checkpoint) -> Bitmap:
        """Write a table and what it refers to, and return the bitmap that lies there."""
        updates, cluster = disk.updates, disk.image.geometry.cluster
        bits = ceil_div(disk.size, marks.block)
        count = max(1, ceil_div(ceil_div(bits, 8), cluster))
        table = array("Q", bytes(8 * count))
        for number, data in _packed(marks, cluster, bits):
            within = min(8 * cluster, bits - number * 8 * cluster)
            if int.from_bytes(data, "little") == (1 << within) - 1:
                table[number] = ALL_ONES
                continue
            with updates.lock:
                table[number], _, _ = updates.allocate(1)
            self._file.write(table[number], data)
        length = disk.image.geometry.clusters(8 * count)
        with updates.lock:
            offset = updates.counts.allocate_run(length) << disk.image.geometry.cluster_bits
        self._file.write(offset, entry_bytes(table).ljust(length * cluster, b"\0"))
        return replace(
            bitmap, granularity=marks.block, flags=bitmap.flags & ~IN_USE, table_offset=offset, table_size=count
        )


def load(file: BlockDevice, image: ImageHeader, bitmap: Bitmap) -> Checkpoint:
    """Return the marks of a bitmap that is consistent; in larger blocks where there are too many. Raises Corrupt."""
    size, cluster = image.record.size, image.geometry.cluster
    marks = Checkpoint("bitmap", size, block=bitmap.granularity)
    if marks.block != bitmap.granularity or cluster % _BITS:
        for offset, length in bitmap_ranges(file, image, bitmap):
            marks.mark(offset, length)
        return marks
    most = ceil_div(min(MAX_BLOCKS, ceil_div(size, bitmap.granularity)), PAGE)
    each = cluster // _BITS
    for number, entry in enumerate(read_entries(file, bitmap.table_offset, bitmap.table_size)):
        offset, first = entry & TABLE_OFFSET, number * each
        if first >= most or not entry:
            continue
        if not offset:
            if entry & ALL_ONES:
                marks.mark(first * PAGE * marks.block, min(each, most - first) * PAGE * marks.block)
            continue
        data = file.read(offset, max(0, min(cluster, file.size - offset))).ljust(cluster, b"\0")
        for page in range(min(each, most - first)):
            part = data[page * _BITS : (page + 1) * _BITS]
            if any(part):
                marks.put_page(first + page, states_of(part))
    return marks


def _packed(marks: Checkpoint, cluster: int, bits: int) -> Iterator[tuple[int, bytes]]:
    """Yield (number, bytes) of the clusters of a bitmap in which something is marked; none behind ``bits``."""
    span = 8 * cluster
    parts: dict[int, bytearray] = {}
    for index, states in marks.pages():
        data = bits_of(states if isinstance(states, bytes) else bytes([states]) * PAGE)
        for at in range(0, len(data), min(cluster, len(data))):
            number, within = divmod(index * _BITS + at, cluster)
            for done in [each for each in parts if each < number]:
                yield from _cut(done, parts.pop(done), bits - done * span)
            if number * span < bits:
                part = data[at : at + cluster]
                parts.setdefault(number, bytearray(cluster))[within : within + len(part)] = part
    for done, last in parts.items():
        yield from _cut(done, last, bits - done * span)


def _cut(number: int, data: bytearray, bits: int) -> Iterator[tuple[int, bytes]]:
    """Yield the cluster with nothing marked from ``bits`` on, if that leaves anything."""
    if bits < 8 * len(data):
        kept = int.from_bytes(data, "little") & ((1 << bits) - 1)
        data[:] = kept.to_bytes(len(data), "little")
    if any(data):
        yield number, bytes(data)


def _clusters(file: BlockDevice, image: ImageHeader, bitmaps: list[Bitmap]) -> Iterator[int]:
    """Yield the clusters of the bitmaps' tables and of what these refer to."""
    bits = image.geometry.cluster_bits
    for each in bitmaps:
        if not each.table_size:
            continue
        first = each.table_offset >> bits
        yield from range(first, first + image.geometry.clusters(8 * each.table_size))
        for entry in read_entries(file, each.table_offset, each.table_size):
            if entry & TABLE_OFFSET:
                yield (entry & TABLE_OFFSET) >> bits


def _directory_clusters(image: ImageHeader) -> range:
    data = image.extension(ExtensionType.BITMAPS)
    if data is None or not image.record.autoclear_features & AUTOCLEAR_BITMAPS:
        return range(0)
    where = BitmapsExtension.parse(data)
    first = where.directory_offset >> image.geometry.cluster_bits
    return range(first, first + image.geometry.clusters(where.directory_size))
