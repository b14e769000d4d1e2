"""A file as it is once its log is replayed: the log's sectors over the file, which stays as it is.

Knows: sectors over bytes. Refuses to know: what is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.vector import total
from blockwright.errors import Corrupt
from blockwright.format.vhdx.layout import SPEC
from blockwright.format.vhdx.log import SECTOR, Replay
from blockwright.units import MiB, align_up

MAX_GROWTH = 1 << 40
"""Bytes that a replay may add to a file, as holes."""


class Replayed(BlockDevice):
    """``file``, to read only, as ``log`` has it. Closing it closes ``file``, unless ``owns`` is False."""

    def __init__(self, file: BlockDevice, log: Replay, *, owns: bool) -> None:
        super().__init__(size_after(file, log), replace(file.traits, writable=False, minimum_block=1))
        self._file = file
        self._sectors = log.sectors
        self._owns = owns

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        if len(buffers) != 1:
            for view in buffers:
                self._read_into(offset, [view])
                offset += len(view)
            return
        view, length = buffers[0], total(buffers)
        present = max(0, min(length, self._file.size - offset))
        if present:
            self._file.read_into(offset, view[:present])
        view[present:] = bytes(length - present)
        for number in range(offset // SECTOR, (offset + length - 1) // SECTOR + 1):
            if number not in self._sectors:
                continue
            data = self._sectors[number] or bytes(SECTOR)
            low, high = max(offset, number * SECTOR), min(offset + length, (number + 1) * SECTOR)
            view[low - offset : high - offset] = data[low - number * SECTOR : high - number * SECTOR]

    def _close(self) -> None:
        if self._owns:
            self._file.close()


def size_after(file: BlockDevice, log: Replay) -> int:
    """Return how large the file is once the log is replayed. Raises Corrupt where it was cut short since."""
    size = file.size
    if size < log.flushed_size:
        raise Corrupt(f"vhdx: expected a file of at least {log.flushed_size} bytes, found {size}", spec=SPEC)
    end = max(log.last_size, (max(log.sectors, default=-1) + 1) * SECTOR)
    if end > size + MAX_GROWTH:
        raise Corrupt(f"vhdx log: expected a file of at most {size + MAX_GROWTH} bytes, found {end}", spec=SPEC)
    return max(size, align_up(end, MiB)) if end > size else size


def replay(file: BlockDevice, log: Replay) -> None:
    """Bring what the log says to the file, durably. A power cut leaves the log, so it can be done again."""
    size = size_after(file, log)
    if size > file.size:
        if not isinstance(file, ResizableDevice):
            raise Corrupt(f"vhdx log: expected a file of {size} bytes, found {file.size}", spec=SPEC)
        file.resize(size)
    for number in sorted(log.sectors):
        file.write(number * SECTOR, log.sectors[number] or bytes(SECTOR))
    file.flush()
