"""Puts files' bytes into clusters.

Knows: runs of clusters, holes, buffers. Refuses to know: who the bytes belong to.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.fs.fat.allocation import Run
from blockwright.fs.fat.geometry import Geometry
from blockwright.tree.content import Content, Runs
from blockwright.units import MiB, align_up

_BUFFER: Final = MiB


class Bodies:
    """Writes contents to the device, holding a buffer of a MiB."""

    def __init__(self, device: BlockDevice, geometry: Geometry) -> None:
        self._device = device
        self._geometry = geometry
        self._buffer = memoryview(bytearray(_BUFFER))

    def write(self, runs: Sequence[Run], content: Content, *, skip: int = 0) -> None:
        """Fill the clusters with the content from byte ``skip`` of it on, and with zeros to the end of a sector.

        ``skip`` is a multiple of the cluster's size. A hole is written as zeros.
        """
        sector, size = self._geometry.sector_size, self._geometry.cluster_size
        data = content.runs()
        starts = [start for start, _ in data]
        offset = skip
        for run in runs:
            position = self._geometry.cluster_start(run.start)
            end = min(offset + run.length * size, content.size)
            while offset < end:
                part = min(_BUFFER, end - offset)
                whole = align_up(part, sector)
                if _is_hole(data, starts, offset, part):
                    self._device.zero(position, whole)
                else:
                    self._buffer[part:whole] = bytes(whole - part)
                    content.read_into(offset, self._buffer[:part])
                    self._device.write(position, self._buffer[:whole])
                position += whole
                offset += part


class Patched(Content):
    """What a device holds with a part changed to a content's bytes, from ``offset`` on; zeros between the two."""

    __slots__ = ("_device", "_offset", "_part")

    def __init__(self, device: BlockDevice, part: Content, offset: int, size: int) -> None:
        super().__init__(size)
        self._device = device
        self._part = part
        self._offset = offset

    def runs(self) -> Runs:
        """Return what the device has, and the part's where that lies behind it."""
        if self._offset < self._device.size:
            return ((0, max(self._device.size, self._offset + self._part.size)),)
        return ((0, self._device.size), *[(self._offset + at, length) for at, length in self._part.runs()])

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Read from both."""
        end = offset + len(buffer)
        old = max(0, min(end, self._device.size) - offset)
        if old:
            self._device.read_into(offset, buffer[:old])
        buffer[old:] = bytes(len(buffer) - old)
        low, high = max(offset, self._offset), min(end, self._offset + self._part.size)
        if low < high:
            self._part.read_into(low - self._offset, buffer[low - offset : high - offset])


def _is_hole(data: Runs, starts: Sequence[int], offset: int, length: int) -> bool:
    """Whether no run of data lies in the range."""
    index = bisect_right(starts, offset) - 1
    if index >= 0 and data[index][0] + data[index][1] > offset:
        return False
    return index + 1 >= len(data) or starts[index + 1] >= offset + length
