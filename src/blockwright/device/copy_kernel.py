"""Bytes that the kernel copies from file to file, which never pass through this process.

Where zeros are looked for, a few bytes of a block tell most that hold something; only what may be zeros is read.

Knows: which files hold a range, and copy_file_range. Refuses to know: the order of a copy, and formats.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final

from blockwright.device import hostfile
from blockwright.device.base import BlockDevice, FileRun, PlacingDevice
from blockwright.device.copy_runs import CHUNK, MIN_HOLE, Run
from blockwright.units import MiB

MIN_KERNEL_RUN: Final = MiB
"""Bytes in one file that are worth asking the kernel to copy."""

KERNEL_STEP: Final = 32 * MiB
"""Bytes the kernel is asked to copy at once, between which a cancelled copy ends."""

WINDOW: Final = 4 * MiB
"""Bytes in which zeros are looked for at once."""

MAX_REFUSED: Final = 2
"""How often a target may say that its files are not to be written to: a first write can change that."""

_PROBE: Final = 512
"""Bytes of a block that are looked at first."""
_ZEROS: Final = bytes(_PROBE)


class KernelCopy:
    """Copies between two devices by the kernel where files hold both. ``plan`` and ``move`` are for a thread each.

    ``usable`` says whether that was not refused yet.
    """

    def __init__(self, source: BlockDevice, target: BlockDevice, *, detect_zeroes: bool) -> None:
        places = target.places if isinstance(target, PlacingDevice) else True
        # Only a device that takes several calls at once may be written to beside the reading thread.
        self.usable = sys.platform == "linux" and target.traits.parallelism > 1 and places
        self._refused = 0
        self._source = source
        self._target = target
        self._detects = detect_zeroes
        self._step = max(MIN_HOLE, target.traits.minimum_block, target.traits.preferred_block)
        self._zeros = bytes(self._step)
        self._block = memoryview(bytearray(self._step))

    def plan(self, offset: int, length: int) -> list[Run]:
        """Return runs of the leading part of a range that ``move`` is for; none where reading is the way."""
        if not self.usable or length < MIN_KERNEL_RUN:
            return []
        length = min(length, WINDOW - offset % WINDOW if self._detects else KERNEL_STEP)
        with self._source.backing(offset, length) as runs:
            held = min(length, sum(run.length for run in runs or ()))
            if not runs or held < min(MIN_KERNEL_RUN, length):
                return []
            if not self._detects:
                return [Run(offset, held, zero=False)]
            self._source.prefetch(offset, held)
            return self._probe(offset, runs)

    def _probe(self, offset: int, runs: Sequence[FileRun]) -> list[Run]:
        """Return runs of data and of zeros; blocks are those of the disk, and what lies in two runs is data."""
        found: list[Run] = []
        step, start, was_zero = self._step, offset, False
        for fd, place, length, _ in runs:
            end, shift = offset + length, place - offset
            while offset < end:
                part = min(step - offset % step, end - offset)
                if part == step and self._is_zero(fd, offset + shift) is not was_zero:
                    if offset > start:
                        found.append(Run(start, offset - start, was_zero))
                    start, was_zero = offset, not was_zero
                elif part != step and was_zero:
                    found.append(Run(start, offset - start, zero=True))
                    start, was_zero = offset, False
                offset += part
        found.append(Run(start, offset - start, was_zero))
        return found

    def _is_zero(self, fd: int, at: int) -> bool:
        """Whether a whole block reads as zeros; most that do not say so by their first bytes."""
        if sys.platform == "win32" or os.pread(fd, _PROBE, at) != _ZEROS:
            return False
        return hostfile.read_full(fd, at, [self._block]) == self._step and self._block == self._zeros

    def move(self, offset: int, length: int) -> int:
        """Copy the range and return how much of it the kernel did; the rest went through a buffer."""
        position, end, by_kernel = offset, offset + length, 0
        while position < end:
            moved, part = self._move(position, end - position) if self.usable else (0, 0)
            if not part:
                part = min(CHUNK - position % CHUNK, end - position)
                buffer = bytearray(part)
                self._source.read_into(position, buffer)
                self._target.write(position, buffer)
            by_kernel += moved
            position += part
        return by_kernel

    def _move(self, offset: int, length: int) -> tuple[int, int]:
        """Return the bytes from ``offset`` on that the kernel copied, and those that are copied; (0, 0) for none."""
        with self._source.backing(offset, length) as runs:
            length = min(length, KERNEL_STEP, sum(run.length for run in runs or ()))
            if not runs or not length:
                return 0, 0
            with self._places(offset, length) as places:
                if not places or not all(place.writable for place in places):
                    self._refused += 1
                    self.usable = isinstance(self._target, PlacingDevice) or self._refused < MAX_REFUSED
                    return 0, 0
                length = min(length, sum(place.length for place in places))
                moved = copy_runs(runs, places, length)
                if moved < length:  # it will refuse the rest as well
                    self.usable = False
                    self._fill(offset, places, moved, length)
                return moved, length

    def _places(self, offset: int, length: int) -> AbstractContextManager[Sequence[FileRun] | None]:
        if isinstance(self._target, PlacingDevice):
            return self._target.placing(offset, length)
        return self._target.backing(offset, length)

    def _fill(self, offset: int, places: Sequence[FileRun], done: int, length: int) -> None:
        """Copy bytes ``done`` to ``length`` of the places through a buffer."""
        start = 0
        for fd, at, size, _ in places:
            low, high = max(done, start), min(length, start + size)
            while low < high:
                part = bytearray(min(CHUNK, high - low))
                self._source.read_into(offset + low, part)
                hostfile.write_full(fd, at + low - start, [memoryview(part)])
                low += len(part)
            start += size


def copy_runs(runs: Sequence[FileRun], places: Sequence[FileRun], length: int) -> int:
    """Copy up to ``length`` bytes from file to file; a refusal ends it, and says why when it is read instead."""
    if sys.platform != "linux":
        return 0
    done = 0
    for source, target in _aligned(runs, places):
        count = min(source.length, length - done)
        moved = 0
        while moved < count:
            try:
                part = os.copy_file_range(
                    source.fd, target.fd, count - moved, source.offset + moved, target.offset + moved
                )
            except OSError:
                return done + moved
            if not part:
                return done + moved
            moved += part
        done += moved
        if done == length:
            break
    return done


def _aligned(runs: Sequence[FileRun], places: Sequence[FileRun]) -> Iterator[tuple[FileRun, FileRun]]:
    """Yield pairs of equal length, cut where a run of either side ends."""
    rest = iter(places)
    place = next(rest, None)
    for run in runs:
        fd, offset, length, writable = run
        while length and place is not None:
            part = min(length, place.length)
            yield FileRun(fd, offset, part, writable), place._replace(length=part)
            offset += part
            length -= part
            place = place._replace(offset=place.offset + part, length=place.length - part)
            if not place.length:
                place = next(rest, None)
