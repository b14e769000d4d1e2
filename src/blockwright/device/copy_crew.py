"""Copies between devices of which a peer does the work: several threads, each of which reads a chunk and writes it.

A thread has one buffer, so their number bounds memory. A device that is not to be called by several at once is called
by one at a time, in the order of its bytes.

Knows: threads and turns. Refuses to know: who chose to copy in this way.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice, Waits
from blockwright.device.copy_runs import Run, without_zeros
from blockwright.units import GiB, KiB

CHUNK: Final = 512 * KiB
"""Bytes that a thread reads and writes at once. Most peers write what one request brings at once, which is dear in
larger pieces (``hostfile.MAX_CACHED``), and one that has a single thread sends nothing while it reads them."""

MAX_ZERO: Final = GiB
"""Zeros that a thread makes at once."""


_AGAIN_S: Final = 0.1
"""How often a thread that shall end is looked after."""


class Done(NamedTuple):
    """What became of a run that ends at ``end``, in bytes: moved as data, made zeros, left as zeros."""

    end: int
    copied: int
    zeroed: int
    skipped: int


class _Stopped(Exception):
    """Another thread failed, or nobody wants the copy any longer."""


class Crew:
    """Up to ``workers`` threads that copy ``runs``. Iterate over it for what was done; who stops early cancels."""

    def __init__(
        self,
        source: BlockDevice,
        target: BlockDevice,
        runs: Iterator[Run],
        workers: int,
        *,
        target_is_zero: bool,
        detect_zeroes: bool,
    ) -> None:
        self._source = source
        self._target = target
        self._target_is_zero = target_is_zero
        self._detect_zeroes = detect_zeroes
        self._workers = max(1, min(workers, -(-source.size // CHUNK)))
        self._steps = enumerate(_cut(runs))
        self._taking = threading.Lock()
        self._reads_in_turn = source.traits.parallelism == 1
        self._turns = _Turns() if target.traits.parallelism == 1 else None
        # Linux lets one thread at a time write to a file, and the others spin, on processors that the peer may need.
        local = target.traits.waits is not Waits.PEER
        self._writing: AbstractContextManager[object] = threading.Lock() if local else nullcontext()
        self._results: SimpleQueue[Done | BaseException | None] = SimpleQueue()
        self._stopped = False

    def __iter__(self) -> Generator[Done]:
        """Yield what was done as it is done, in any order; raise the first error of any thread, with all ended."""
        threads = [
            threading.Thread(target=self._work, name=f"copy: {number}", daemon=True)
            for number in range(self._workers)
        ]
        try:
            for thread in threads:
                thread.start()
            left = len(threads)
            while left:
                result = self._results.get()
                if isinstance(result, BaseException):
                    raise result
                if result is None:
                    left -= 1
                else:
                    yield result
        except BaseException:
            self._stop()
            raise
        finally:
            # A signal may have come while one was being started: it runs, or it will find that all is over.
            for thread in threads:
                if thread.ident is not None:
                    self._join(thread)

    def _join(self, thread: threading.Thread) -> None:
        """Wait for the thread's end; one that was about to call a device when both were cancelled is told again."""
        while thread.is_alive():
            thread.join(_AGAIN_S)
            if self._stopped and thread.is_alive():
                self._source.cancel()
                self._target.cancel()

    def _stop(self) -> None:
        """Have all threads end soon, also those that wait for a peer."""
        self._stopped = True
        if self._turns is not None:
            self._turns.end()
        self._source.cancel()
        self._target.cancel()

    def _work(self) -> None:
        buffer = bytearray(CHUNK)
        try:
            while (step := self._take(buffer)) is not None:
                number, run = step
                if not run.zero and not self._reads_in_turn:
                    self._source.read_into(run.offset, memoryview(buffer)[: run.length])
                if self._turns is not None:
                    self._turns.wait(number)
                with self._writing:
                    self._results.put(self._put(run, buffer))
                if self._turns is not None:
                    self._turns.pass_on()
            self._results.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that iterates
            self._results.put(error)

    def _take(self, buffer: bytearray) -> tuple[int, Run] | None:
        """Return the next step and its number, read already where the source is read in turn."""
        with self._taking:
            step = None if self._stopped else next(self._steps, None)
            if step is not None and self._reads_in_turn and not step[1].zero:
                self._source.read_into(step[1].offset, memoryview(buffer)[: step[1].length])
            return step

    def _put(self, run: Run, buffer: bytearray) -> Done:
        """Write a run, whose data is in ``buffer``."""
        if run.zero:
            return self._zero(run)
        if not self._detect_zeroes:
            self._target.write(run.offset, memoryview(buffer)[: run.length])
            return Done(run.offset + run.length, run.length, 0, 0)
        copied = zeroed = skipped = 0
        for part in without_zeros(run.offset, buffer, run.length, block=self._target.traits.minimum_block):
            if part.zero:
                done = self._zero(part)
                zeroed, skipped = zeroed + done.zeroed, skipped + done.skipped
            else:
                start = part.offset - run.offset
                self._target.write(part.offset, memoryview(buffer)[start : start + part.length])
                copied += part.length
        return Done(run.offset + run.length, copied, zeroed, skipped)

    def _zero(self, run: Run) -> Done:
        if self._target_is_zero:
            return Done(run.offset + run.length, 0, 0, run.length)
        self._target.zero(run.offset, run.length)
        return Done(run.offset + run.length, 0, run.length, 0)


class _Turns:
    """Lets numbered threads through one at a time, in the order of their numbers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0
        self._ended = False

    def wait(self, number: int) -> None:
        """Return when it is the turn of ``number``; raise where that will not come."""
        with self._changed:
            while self._next != number and not self._ended:
                self._changed.wait()
            if self._ended:
                raise _Stopped

    def pass_on(self) -> None:
        """End the turn."""
        with self._changed:
            self._next += 1
            self._changed.notify_all()

    def end(self) -> None:
        """Let nobody through any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _cut(runs: Iterator[Run]) -> Iterator[Run]:
    """Yield the runs in pieces that one thread does at once; they end at multiples of the limit."""
    for offset, length, zero in runs:
        limit = MAX_ZERO if zero else CHUNK
        position, end = offset, offset + length
        while position < end:
            part = min(limit - position % limit, end - position)
            yield Run(position, part, zero)
            position += part
