"""Reads allocation tables: which cluster follows which.

Knows: entries of 12, 16 and 32 bits, runs, loops. Refuses to know: what a chain holds.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt
from blockwright.fs.fat import layout
from blockwright.fs.fat.geometry import Geometry
from blockwright.units import align_up, ceil_div

PAGE: Final = 16384
"""Entries that are read and kept together."""
MAX_PAGES: Final = 256
"""Pages that are kept: at the most 16 MiB."""
_GALLOP: Final = 4096


class Run(NamedTuple):
    """``length`` clusters from ``start`` on, one behind the other."""

    start: int
    length: int


class AllocationTable:
    """One FAT of a volume. Entries are masked; a chain's next cluster is not checked by ``get`` but by ``runs``."""

    def __init__(self, device: BlockDevice, geometry: Geometry, copy: int = 0) -> None:
        self._device = device
        self._geometry = geometry
        self._start = geometry.fat_start(copy)
        self._pages: dict[int, array[int]] = {}
        self.end = geometry.end_cluster
        self.eoc = layout.EOC[geometry.bits]
        self.bad = layout.BAD[geometry.bits]

    def page(self, index: int) -> array[int]:
        """Return the entries from ``index * PAGE`` on, PAGE of them or to the end of the volume's clusters."""
        values = self._pages.get(index)
        if values is None:
            values = self._load(index)
            if len(self._pages) >= MAX_PAGES:
                self._pages.clear()
            self._pages[index] = values
        return values

    def _load(self, index: int) -> array[int]:
        bits = self._geometry.bits
        first, end = index * PAGE, min((index + 1) * PAGE, self.end)
        data = self.raw_page(index)
        values = unpack(data, bits, self.end)[first:end] if bits == 12 else unpack(data, bits, end - first)
        return masked(values, bits)

    def page_offset(self, index: int) -> int:
        """Return where a page begins in its FAT, in bytes; with 12 bits there is one only."""
        return index * PAGE * self._geometry.bits // 8

    def raw_page(self, index: int) -> bytes:
        """Return the bytes that a page lies in, in whole sectors."""
        bits, sector = self._geometry.bits, self._geometry.sector_size
        first, end = index * PAGE, min((index + 1) * PAGE, self.end)
        length = align_up(ceil_div((end - first) * bits, 8), sector)
        return self._device.read(self._start + self.page_offset(index), length)

    def get(self, cluster: int) -> int:
        """Return the entry of a cluster below ``end``."""
        index, within = divmod(cluster, PAGE)
        return self.page(index)[within]

    def pages(self) -> Iterator[tuple[int, array[int]]]:
        """Yield (first cluster, entries) of the whole table, without keeping them."""
        for index in range(-(-self.end // PAGE)):
            yield index * PAGE, self._pages.get(index) or self._load(index)

    def runs(self, start: int, limit: int, *, whole: bool) -> list[Run]:
        """Return the runs of the chain that begins at ``start``, cut off at ``limit`` clusters.

        With ``whole`` the chain must end within the limit, without it reach that far. Raises Corrupt for a chain
        that does not, that loops, or that leads out of the volume or to a cluster that is free or bad.
        """
        runs: list[Run] = []
        cluster, left, check_at = start, limit, 2
        while left > 0:
            if not layout.FIRST_CLUSTER <= cluster < self.end:
                raise self._corrupt(f"expected a cluster from 2 to {self.end - 1}, found {cluster}", start)
            count = self.run_length(cluster, left)
            runs.append(Run(cluster, count))
            left -= count
            if len(runs) == check_at:
                self._check_loop(runs, start)
                check_at *= 2
            following = self.get(cluster + count - 1)
            if following >= self.eoc:
                break
            cluster = following
        else:
            if whole:
                raise self._corrupt(f"expected an end within {limit} clusters, found none", start)
        if not whole and left:
            raise self._corrupt(f"expected {limit} clusters, found {limit - left}", start)
        self._check_loop(runs, start)
        return runs

    def run_length(self, cluster: int, limit: int) -> int:
        """Return how many clusters from ``cluster`` on follow one another, at most ``limit``."""
        count, step = 1, 1
        while count < limit:
            position = cluster + count - 1
            index, within = divmod(position, PAGE)
            values = self.page(index)
            step = min(step, limit - count, len(values) - within, self.end - 1 - position)
            if step <= 1:
                if step == 0 or values[within] != position + 1:
                    return count
            elif values[within : within + step] != array(values.typecode, range(position + 1, position + 1 + step)):
                step = step >> 1
                continue
            count += step
            step = min(2 * step, _GALLOP)
        return count

    def _check_loop(self, runs: list[Run], start: int) -> None:
        """Raise Corrupt where two runs share a cluster."""
        for before, behind in pairwise(sorted(runs)):
            if before.start + before.length > behind.start:
                raise self._corrupt(f"cluster {behind.start} is in it twice", start)

    def _corrupt(self, message: str, start: int) -> Corrupt:
        offset = self._start + start * self._geometry.bits // 8
        return Corrupt(f"fat chain from cluster {start}: {message}", offset=offset, spec=layout.SPEC)


def unpack(data: bytes, bits: int, count: int) -> array[int]:
    """Return the first ``count`` entries in the bytes of a FAT, the upper four of 32 bits as they are."""
    if bits == 12:
        return array("H", _unpack12(data, count))
    values = array("H" if bits == 16 else "I")
    values.frombytes(data[: count * bits // 8])
    if sys.byteorder == "big":
        values.byteswap()
    return values


def masked(values: array[int], bits: int) -> array[int]:
    """Return entries without the upper four of 32 bits, which are nobody's."""
    mask = layout.MASK[bits]
    return array("I", [value & mask for value in values]) if bits == 32 and max(values) > mask else values


def _unpack12(data: bytes, count: int) -> list[int]:
    """Return the first ``count`` entries of 12 bits."""
    values = []
    for index in range(count):
        pair = int.from_bytes(data[index * 3 // 2 : index * 3 // 2 + 2], "little")
        values.append(pair >> 4 if index & 1 else pair & 0xFFF)
    return values
