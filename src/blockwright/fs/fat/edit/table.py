"""The allocation table while it is changed: clusters taken and given back, kept in pages until they are written.

A cluster given back that the device still counts as somebody's stays out of use until the entry that refers to it
is gone from the device: nothing may be written there before. So each changed entry is written early (what links new
clusters, which nothing refers to yet) or late (what cuts old ones off).

Knows: entries, pages, which of their changes are early and which late. Refuses to know: what a cluster holds.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.device.extent import ZERO
from blockwright.errors import NoSpace
from blockwright.fs.fat import layout
from blockwright.fs.fat.allocation import PAGE, AllocationTable, Run, masked, unpack
from blockwright.fs.fat.volume import Volume

_NEW: Final = 1
_LATE: Final = 2


@dataclass(slots=True)
class _Page:
    """Entries as they will be, those that are given back marked as bad; and for each _NEW, _LATE or 0."""

    values: array[int]
    flags: bytearray


class EditedTable(AllocationTable):
    """The table in use, and with it the copies that must equal it. ``next_free`` is where a search begins."""

    def __init__(self, device: BlockDevice, volume: Volume) -> None:
        super().__init__(device, volume.geometry, volume.active_fat)
        self._target = device
        self._volume = volume
        self._changed: dict[int, _Page] = {}
        self.next_free = layout.FIRST_CLUSTER
        self.waiting = 0
        self.delta = 0

    @property
    def changed_pages(self) -> int:
        """Pages that differ from the device's."""
        return len(self._changed)

    def _load(self, index: int) -> array[int]:
        page = self._changed.get(index)
        return super()._load(index) if page is None else page.values

    def _page(self, index: int) -> _Page:
        """Return a page that may be changed."""
        page = self._changed.get(index)
        if page is None:
            values = self.page(index)
            page = self._changed[index] = _Page(values, bytearray(len(values)))
        return page

    # -- taking ----------------------------------------------------------------------------------------------

    def allocate(self, count: int) -> list[Run]:
        """Take ``count`` free clusters as one chain; return its runs. Raises NoSpace, with nothing taken.

        The search goes on where the one before it ended, and through the whole table once.
        """
        found: list[Run] = []
        left = count
        for run in self._search(count):
            found.append(Run(run.start, min(run.length, left)))
            left -= found[-1].length
            if not left:
                break
        if left:
            size = self._geometry.cluster_size
            raise NoSpace(f"fat: expected {count} free clusters of {size} bytes, found {count - left}")
        for position, run in enumerate(found):
            following = found[position + 1].start if position + 1 < len(found) else layout.MASK[self._geometry.bits]
            self._take(run, following)
        self.next_free = found[-1].start + found[-1].length
        self.delta -= count
        return found

    def _search(self, most: int) -> Iterator[Run]:
        """Yield free runs of at most so many clusters, from ``next_free`` on and then from the start."""
        begin = self.next_free if self.next_free < self.end else layout.FIRST_CLUSTER
        yield from self._free_runs(begin, self.end, most)
        yield from self._free_runs(layout.FIRST_CLUSTER, begin, most)

    def _free_runs(self, start: int, end: int, most: int) -> Iterator[Run]:
        while start < end:
            index, within = divmod(start, PAGE)
            base = start - within
            # Not kept: a search through a full volume reads all of its table.
            values = self._pages.get(index) or self._load(index)
            stop = min(len(values), end - base)
            while within < stop:
                try:
                    first = values.index(0, within, stop)
                except ValueError:
                    break
                within = first + _zeros(values, first, min(stop, first + most))
                yield Run(base + first, within - first)
            start = base + len(values)

    def _take(self, run: Run, following: int) -> None:
        for index, first, stop, start in _portions(run):
            page = self._page(index)
            page.values[first:stop] = array(page.values.typecode, range(start + 1, start + 1 + stop - first))
            page.flags[first:stop] = bytes((_NEW,)) * (stop - first)
        self._set(run.start + run.length - 1, following)

    def _set(self, cluster: int, value: int) -> None:
        index, within = divmod(cluster, PAGE)
        self._page(index).values[within] = value

    def link(self, cluster: int, following: int) -> None:
        """Have a chain go on at ``following``; ``cluster`` is its last one on the device too."""
        self._set(cluster, following)

    # -- giving back -----------------------------------------------------------------------------------------

    def cut(self, cluster: int) -> None:
        """End a chain at ``cluster``."""
        index, within = divmod(cluster, PAGE)
        page = self._page(index)
        page.values[within] = layout.MASK[self._geometry.bits]
        if not page.flags[within]:
            page.flags[within] = _LATE

    def free(self, runs: Sequence[Run]) -> None:
        """Give clusters back: those that were taken since the last commit at once, others with the next."""
        for run in runs:
            for index, first, stop, _ in _portions(run):
                self._free_within(self._page(index), first, stop)
            self.delta += run.length

    def _free_within(self, page: _Page, first: int, stop: int) -> None:
        count = stop - first
        fresh = page.flags.count(_NEW, first, stop)
        if fresh == count:
            page.values[first:stop] = array(page.values.typecode, bytes(count * page.values.itemsize))
            page.flags[first:stop] = bytes(count)
        elif not fresh:
            page.values[first:stop] = array(page.values.typecode, [self.bad]) * count
            page.flags[first:stop] = bytes((_LATE,)) * count
            self.waiting += count
        else:
            for each in range(first, stop):
                self._free_within(page, each, each + 1)

    def is_new(self, cluster: int) -> bool:
        """Whether a cluster was taken since the last commit."""
        page = self._changed.get(cluster // PAGE)
        return page is not None and page.flags[cluster % PAGE] == _NEW

    # -- counting --------------------------------------------------------------------------------------------

    def count_free(self) -> int:
        """Return how many clusters the device's table has free, whatever is pending."""
        start = self._geometry.fat_start(self._volume.active_fat)
        free = -super()._load(0)[: layout.FIRST_CLUSTER].count(0)
        for index in range(self._page_count):
            size = min(PAGE, self.end - index * PAGE)
            span = self._span(index)
            if all(extent.flags & ZERO for extent in self._target.extents(start + span.start, len(span))):
                free += size
            elif self._geometry.bits == 32:
                free += size - _used32(self.raw_page(index)[: size * 4])
            else:
                free += super()._load(index).count(0)
        return free

    @property
    def _page_count(self) -> int:
        return -(-self.end // PAGE)

    def _span(self, index: int) -> range:
        """Return the bytes of its FAT that a page lies in, whole sectors."""
        first, sector = self.page_offset(index), self._geometry.sector_size
        bits = min(PAGE, self.end - index * PAGE) * self._geometry.bits
        return range(first, first + -(-bits // (8 * sector)) * sector)

    # -- writing ---------------------------------------------------------------------------------------------

    def write(self, *, late: bool) -> None:
        """Write what changed: without ``late`` all but what cuts old clusters off, with it that too.

        Only sectors that differ are written, to each copy of the table.
        """
        for index, page in sorted(self._changed.items()):
            old = self.raw_page(index)
            new = self._encode(self._image(page, old, late=late), old)
            for start, data in self._differences(old, new):
                self._write_copies(self.page_offset(index) + start, data)

    def settle(self) -> None:
        """Take what was written for what is there: clusters that were given back may be used from now on."""
        for index, page in self._changed.items():
            if self.waiting and _LATE in page.flags:
                for within in _marked(page.flags):
                    if page.values[within] == self.bad:
                        page.values[within] = 0
            self._pages[index] = page.values
        self._changed.clear()
        self.waiting = self.delta = 0

    def set_clean(self, clean_bit: int, *, clean: bool) -> None:
        """Set or clear a bit of entry 1, at once, in each copy."""
        page = self.page(1 // PAGE)
        value = page[1] | clean_bit if clean else page[1] & ~clean_bit
        page[1] = value
        width = self._geometry.bits // 8
        sector = self._geometry.sector_size
        data = bytearray(self._target.read(self._start, sector))
        kept = int.from_bytes(data[width : 2 * width], "little") & ~layout.MASK[self._geometry.bits]
        data[width : 2 * width] = (value | kept).to_bytes(width, "little")
        self._write_copies(0, bytes(data))

    def _write_copies(self, offset: int, data: bytes) -> None:
        volume = self._volume
        copies = range(self._geometry.fats) if volume.mirrored else (volume.active_fat,)
        for copy in copies:
            self._target.write(self._geometry.fat_start(copy) + offset, data)

    def _image(self, page: _Page, old: bytes, *, late: bool) -> array[int]:
        """Return the entries of a page as one of the two writings leaves them."""
        if _LATE not in page.flags:
            return page.values
        bits = self._geometry.bits
        values = array(page.values.typecode, page.values)
        before = None if late else masked(unpack(old, bits, len(values)), bits)
        for within in _marked(page.flags):
            if before is not None:
                values[within] = before[within]
            elif values[within] == self.bad:
                values[within] = 0
        return values

    def _encode(self, values: array[int], old: bytes) -> bytes:
        """Return a page's bytes; the bits beside its entries stay as they are in ``old``."""
        bits = self._geometry.bits
        if bits == 12:
            return _pack12(values, old)
        packed = array(values.typecode, values)
        if bits == 32:
            before = array("I")
            before.frombytes(old[: len(values) * 4])
            if sys.byteorder == "big":
                before.byteswap()
            if max(before) > layout.MASK[32]:
                packed = array(
                    "I", [value | kept & ~layout.MASK[32] for value, kept in zip(values, before, strict=True)]
                )
        if sys.byteorder == "big":
            packed.byteswap()
        data = packed.tobytes()
        return data + old[len(data) :]

    def _differences(self, old: bytes, new: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) of the runs of sectors in which the two differ."""
        sector = self._geometry.sector_size
        start = None
        for offset in range(0, len(new) + sector, sector):
            differs = old[offset : offset + sector] != new[offset : offset + sector]
            if differs and start is None:
                start = offset
            elif not differs and start is not None:
                yield start, new[start:offset]
                start = None


def _portions(run: Run) -> Iterator[tuple[int, int, int, int]]:
    """Yield (page, first entry in it, end in it, cluster of the first) of a run."""
    start, end = run.start, run.start + run.length
    while start < end:
        index, within = divmod(start, PAGE)
        count = min(PAGE - within, end - start)
        yield index, within, within + count, start
        start += count


def _zeros(values: array[int], first: int, stop: int) -> int:
    """Return how many entries from ``first`` on, which is 0, are 0."""
    count, step = 1, 1
    while first + count < stop:
        step = min(step, stop - first - count)
        if values[first + count : first + count + step].tobytes().strip(b"\0"):
            if step == 1:
                return count
            step >>= 1
            continue
        count += step
        step *= 2
    return count


def _marked(flags: bytearray) -> Iterator[int]:
    """Yield the entries whose change is late."""
    at = flags.find(_LATE)
    while at >= 0:
        yield at
        at = flags.find(_LATE, at + 1)


def _used32(raw: bytes) -> int:
    """Return how many of the 32-bit entries are not 0 in their lower 28 bits, by adding to all of them at once."""
    count = len(raw) // 4
    most = int.from_bytes(b"\xff\xff\xff\x0f" * count, "little")
    carried = int.from_bytes(b"\x00\x00\x00\x10" * count, "little")
    return ((int.from_bytes(raw, "little") & most) + most & carried).bit_count()


def _pack12(values: Sequence[int], old: bytes) -> bytes:
    """Return entries of 12 bits packed over the bytes that held them."""
    data = bytearray(old)
    for index, value in enumerate(values):
        at = index * 3 // 2
        pair = int.from_bytes(data[at : at + 2], "little")
        pair = pair & 0x000F | value << 4 if index & 1 else pair & 0xF000 | value
        data[at : at + 2] = pair.to_bytes(2, "little")
    return bytes(data)
