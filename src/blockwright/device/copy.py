"""Copies a device to another: zeros as zeros, long runs by the kernel, the rest through buffers.

One thread reads ahead while the caller's writes, in ascending order. What ``build`` and ``convert`` stand on.

Knows: extents and order. Refuses to know: formats, paths, and when the target is complete.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from queue import SimpleQueue
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice, Waits
from blockwright.device.copy_crew import Crew
from blockwright.device.copy_kernel import KernelCopy
from blockwright.device.copy_runs import CHUNK, Ranges, Run, runs_of, whole, without_zeros
from blockwright.device.hostblock import HostBlockDevice
from blockwright.device.writeback import WriteBack
from blockwright.errors import IntegrityError, NoSpace, UsageError
from blockwright.units import align_down

READ_AHEAD: Final = 4
"""Chunks that are read before the first of them is written."""

REQUESTS: Final = 8
"""Chunks in flight where a peer does the work, by default."""

MAX_REQUESTS: Final = 256
"""Chunks in flight at most: each takes a thread and its memory."""

Progress = Callable[[int, int], None]
"""``progress(done, total)`` in bytes, called by the thread that called ``copy``. An exception from it cancels."""


class CopyResult(NamedTuple):
    """What was done, in bytes.

    ``copied``: data, ``by_kernel`` of it without passing through this process. ``zeroed``: zeros that were made.
    ``skipped``: zeros that were there already.
    """

    copied: int
    by_kernel: int
    zeroed: int
    skipped: int


class _Job(NamedTuple):
    """A range whose turn it is: ``data`` to write; where that is None, zeros, or what the kernel is to ``move``.

    ``buffer``, where given, is free again behind this job.
    """

    offset: int
    length: int
    data: memoryview | None = None
    buffer: bytearray | None = None
    move: bool = False


def copy(
    source: BlockDevice,
    target: BlockDevice,
    *,
    target_is_zero: bool = False,
    detect_zeroes: bool = False,
    verify: bool = False,
    write_back: bool = False,
    progress: Progress | None = None,
    requests: int | None = None,
    ranges: Ranges | None = None,
) -> CopyResult:
    """Make the first ``source.size`` bytes of ``target`` read as ``source`` does; what lies behind is left alone.

    ``target_is_zero`` promises that the target reads as zeros, so zeros are left out. ``detect_zeroes`` looks for
    them in data too. ``verify`` flushes, reads both again (a disk from its medium), and raises IntegrityError where
    they differ.
    ``write_back`` flushes beside the copy, for a caller that is going to flush what it made; otherwise nothing is
    flushed. ``requests`` is how many chunks are in flight where a peer does the work of either device
    (``Waits.PEER``). With ``ranges``, which gives ascending ones, only those are copied. Raises NoSpace where the
    target is smaller, and whatever either device raises. After an exception of any kind the target's content is
    unspecified, and no thread is left behind.
    """
    if source.size > target.size:
        raise NoSpace(f"copy: expected a target of at least {source.size} bytes, found {target.size}")
    runs = runs_of(source, ranges, block=target.traits.minimum_block)
    if Waits.PEER in (source.traits.waits, target.traits.waits):
        workers = _workers(source, target, requests)
        crew = Crew(source, target, runs, workers, target_is_zero=target_is_zero, detect_zeroes=detect_zeroes)
        result = _by_crew(crew, target, source.size, progress, write_back=write_back)
    else:
        reader = _Reader(source, target, runs, detect_zeroes=detect_zeroes)
        result = _in_order(
            reader, target, source.size, progress, target_is_zero=target_is_zero, write_back=write_back
        )
    if verify:
        target.flush()
        if isinstance(target, HostBlockDevice):
            target.forget_cache()
        _verify(source, target, ranges)
    return result


def _workers(source: BlockDevice, target: BlockDevice, requests: int | None) -> int:
    if requests is not None and not 1 <= requests <= MAX_REQUESTS:
        raise UsageError(f"copy: expected 1 to {MAX_REQUESTS} requests in flight, found {requests}")
    useful = max(source.traits.parallelism, target.traits.parallelism, 2)
    return min(REQUESTS if requests is None else requests, useful)


def _by_crew(
    crew: Crew, target: BlockDevice, total: int, progress: Progress | None, *, write_back: bool
) -> CopyResult:
    """Have the crew copy, and tell how far it is: the furthest end, which the first ones are a little behind."""
    furthest = copied = zeroed = skipped = 0
    with WriteBack(target) as medium, closing(iter(crew)) as results:
        for done in results:
            copied, zeroed, skipped = copied + done.copied, zeroed + done.zeroed, skipped + done.skipped
            furthest = max(furthest, done.end)
            if write_back:
                medium.wrote(copied + zeroed)
            if progress is not None:
                progress(furthest, total)
    return CopyResult(copied, 0, zeroed, skipped)


def _in_order(
    reader: _Reader,
    target: BlockDevice,
    total: int,
    progress: Progress | None,
    *,
    target_is_zero: bool,
    write_back: bool,
) -> CopyResult:
    """Write what one thread reads ahead."""
    copied = by_kernel = zeroed = skipped = 0
    jobs = reader.ahead() if total > 2 * CHUNK else reader.inline()
    with closing(jobs), WriteBack(target) as medium:
        for offset, length, data, buffer, move in jobs:
            if data is not None:
                target.write(offset, data)
                copied += length
            elif move:
                by_kernel += reader.kernel.move(offset, length)
                copied += length
            elif target_is_zero:
                skipped += length
            else:
                target.zero(offset, length)
                zeroed += length
            if buffer is not None:
                reader.free.put(buffer)
            if write_back:
                medium.wrote(copied + zeroed)
            if progress is not None:
                progress(offset + length, total)
    return CopyResult(copied, by_kernel, zeroed, skipped)


class _Reader:
    """Turns the source into jobs, in ascending order, in buffers that come back through ``free``."""

    def __init__(self, source: BlockDevice, target: BlockDevice, runs: Iterator[Run], *, detect_zeroes: bool) -> None:
        self.free: SimpleQueue[bytearray] = SimpleQueue()
        self._ready: SimpleQueue[_Job | BaseException | None] = SimpleQueue()
        self._source = source
        self._target = target
        self._runs = runs
        self._detect_zeroes = detect_zeroes
        self._stopped = False
        self.kernel = KernelCopy(source, target, detect_zeroes=detect_zeroes)

    def inline(self) -> Generator[_Job]:
        """Yield the jobs, each read when it is asked for."""
        self.free.put(bytearray(min(CHUNK, self._source.size)))
        yield from self._jobs()

    def ahead(self) -> Generator[_Job]:
        """Yield the jobs, read ahead by a thread, which has ended when this generator is closed."""
        for _ in range(READ_AHEAD):
            self.free.put(bytearray(CHUNK))
        thread = threading.Thread(target=self._run, name="copy: read ahead", daemon=True)
        thread.start()
        try:
            while (job := self._ready.get()) is not None:
                if isinstance(job, BaseException):
                    raise job
                yield job
        finally:
            self._stopped = True
            self.free.put(bytearray())  # wakes a thread that waits for a buffer
            thread.join()

    def _run(self) -> None:
        try:
            for job in self._jobs():
                self._ready.put(job)
                if self._stopped:
                    break
            self._ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for the jobs
            self._ready.put(error)

    def _jobs(self) -> Iterator[_Job]:
        for offset, length, zero in self._runs:
            if zero:
                yield _Job(offset, length)
            else:
                yield from self._data(offset, offset + length)

    def _data(self, position: int, end: int) -> Iterator[_Job]:
        while position < end:
            buffer = self.free.get()  # what the kernel copies takes one too, so that nothing runs far ahead
            if self._stopped:
                return
            if runs := self.kernel.plan(position, end - position):
                for run in runs:
                    last = buffer if run is runs[-1] else None
                    yield _Job(run.offset, run.length, None, last, move=not run.zero)
                position = runs[-1].offset + runs[-1].length
                continue
            # Chunks end at multiples of their size, so that those behind an odd start are aligned.
            part = min(CHUNK - position % CHUNK, end - position, len(buffer))
            view = memoryview(buffer)[:part]
            self._source.read_into(position, view)
            if self._detect_zeroes:
                yield from _jobs_of(position, buffer, part, block=self._target.traits.minimum_block)
            else:
                yield _Job(position, part, view, buffer)
            position += part


def _jobs_of(offset: int, buffer: bytearray, length: int, *, block: int) -> Iterator[_Job]:
    """Yield jobs for the first ``length`` bytes of the buffer, which the last one gives back."""
    view = memoryview(buffer)
    found = without_zeros(offset, buffer, length, block=block)
    for run in found:
        start = run.offset - offset
        data = None if run.zero else view[start : start + run.length]
        yield _Job(run.offset, run.length, data, buffer if run is found[-1] else None)


def _verify(source: BlockDevice, target: BlockDevice, ranges: Ranges | None) -> None:
    """Raise IntegrityError for the first byte that was copied and differs."""
    from blockwright.device.compare import compare
    from blockwright.device.window import Window

    for start, length in (ranges or whole(source))():
        with (
            Window(source, start, length, owns=False) as wanted,
            Window(target, start, length, owns=False) as written,
        ):
            within = compare(wanted, written)
        if within is None:
            continue
        found = start + within
        expected, actual = _byte(source, found), _byte(target, found)
        raise IntegrityError(
            f"copy: source and target differ: expected {expected.hex()}, found {actual.hex()} (byte {found})"
        )


def _byte(device: BlockDevice, offset: int) -> bytes:
    block = device.traits.minimum_block
    return device.read(align_down(offset, block), block)[offset % block :][:1]
