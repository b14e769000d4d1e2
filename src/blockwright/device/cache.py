"""A cache of blocks in front of a slow device: bounded memory, least recently used out first.

Concurrent readers of one block fetch it once. Writes go through, and what they touch is dropped behind them, so a
read that begins after a write never gets what was there before.

Knows: blocks and their age. Refuses to know: why the device is slow, and writing later.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import MutableMapping, Sequence
from typing import Any, Final

from blockwright.device.base import Backing, BlockDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.vector import Cutter, total
from blockwright.errors import UsageError
from blockwright.units import KiB, MiB, ceil_div

BLOCK: Final = 64 * KiB
CAPACITY: Final = 64 * MiB

_BYPASS: Final = 4
"""A read over one such part of the capacity goes past the cache: it would only drive everything else out."""


class _Fetch:
    """A block that is being read: those who want it wait, and get its bytes or the error."""

    __slots__ = ("block", "data", "done", "error")

    def __init__(self, block: int) -> None:
        self.block = block
        self.done = threading.Event()
        self.data: memoryview | None = None
        self.error: BaseException | None = None


class CachedDevice(ForwardingDevice):
    """``inner``, with up to ``capacity`` bytes of it in memory, in blocks of ``block`` bytes.

    A read that begins where the one before it ended fetches ``read_ahead`` bytes more. Raises UsageError for a
    block that is no power of two, less than the inner device's minimum, or more than a quarter of the capacity.
    """

    def __init__(
        self,
        inner: BlockDevice,
        *,
        capacity: int = CAPACITY,
        block: int = BLOCK,
        read_ahead: int = 0,
        owns: bool = True,
    ) -> None:
        if block < max(1, inner.traits.minimum_block) or block & (block - 1) or capacity < _BYPASS * block:
            raise UsageError(
                f"cache: expected a block that is a power of two of at least {inner.traits.minimum_block} bytes and "
                f"at most a quarter of the capacity of {capacity}, found {block}"
            )
        super().__init__(inner, owns=owns)
        self._block = block
        self._limit = capacity // block
        self._read_ahead = read_ahead // block
        self._lock = threading.Lock()  # never held during I/O
        self._blocks: OrderedDict[int, memoryview] = OrderedDict()
        self._fetches: dict[int, _Fetch] = {}
        self._expected = -1  # the block a sequential reader asks for next
        self.hits = 0
        self.misses = 0

    @property
    def held(self) -> int:
        """The bytes in memory."""
        return len(self._blocks) * self._block

    def _current_size(self) -> int:
        return self._size  # the last block is kept as long as it was

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        length = total(buffers)
        if not length:
            return
        if length > self._limit * self._block // _BYPASS:
            self._inner.read_into(offset, *buffers)
            return
        first, last = offset // self._block, (offset + length - 1) // self._block
        found = self._obtain(first, last)
        cutter = Cutter(buffers)
        end = offset + length
        for index in range(first, last + 1):
            data = found[index]
            start = index * self._block
            low, high = max(offset, start) - start, min(end, start + self._block) - start
            for view in cutter.take(high - low):
                view[:] = data[low : low + len(view)]
                low += len(view)

    def _obtain(self, first: int, last: int) -> dict[int, memoryview]:
        """Return the blocks from ``first`` to ``last``, from memory, from others' fetches, or fetched here."""
        found: dict[int, memoryview] = {}
        mine: list[_Fetch] = []
        theirs: list[_Fetch] = []
        with self._lock:
            ahead = self._read_ahead if first == self._expected else 0
            self._expected = last + 1
            for index in range(first, last + 1):
                data = self._blocks.get(index)
                if data is not None:
                    self._blocks.move_to_end(index)
                    found[index] = data
                    self.hits += 1
                elif (fetch := self._fetches.get(index)) is not None:
                    theirs.append(fetch)
                    self.hits += 1
                else:
                    mine.append(self._begin(index))
                    self.misses += 1
            if ahead and mine:
                mine += self._begin_ahead(last + 1, ahead)
        self._fetch(mine, last)
        for fetch in theirs:
            fetch.done.wait()
        for fetch in mine + theirs:
            if fetch.error is not None and fetch.block <= last:
                raise fetch.error
            if fetch.data is not None:
                found[fetch.block] = fetch.data
        return found

    def _begin(self, index: int) -> _Fetch:
        fetch = self._fetches[index] = _Fetch(index)
        return fetch

    def _begin_ahead(self, index: int, count: int) -> list[_Fetch]:
        """Return fetches of the blocks from ``index`` on that are neither here nor on the way."""
        end = min(index + count, ceil_div(self._size, self._block))
        return [self._begin(i) for i in range(index, end) if i not in self._blocks and i not in self._fetches]

    def _fetch(self, fetches: Sequence[_Fetch], last: int) -> None:
        """Read what was begun, neighbours with one call, and let others have it; errors are kept for ``_obtain``.

        Where a read fails that reaches past ``last``, what is wanted is read again without what is ahead.
        """
        try:
            position = 0
            while position < len(fetches):
                stop = position + 1
                while stop < len(fetches) and fetches[stop].block == fetches[stop - 1].block + 1:
                    stop += 1
                run = fetches[position:stop]
                wanted = [fetch for fetch in run if fetch.block <= last]
                error = self._fetch_run(run)
                if error is not None and 0 < len(wanted) < len(run):
                    self._finish(run[len(wanted) :], None, error)
                    run, error = wanted, self._fetch_run(wanted)
                if error is not None:
                    self._finish(run, None, error)
                position = stop
        except BaseException as error:
            self._finish([fetch for fetch in fetches if not fetch.done.is_set()], None, error)
            raise

    def _fetch_run(self, run: Sequence[_Fetch]) -> Exception | None:
        """Read neighbouring blocks with one call and hand them out, or return why not."""
        start = run[0].block * self._block
        end = min((run[-1].block + 1) * self._block, self._size)
        views = [memoryview(bytearray(min(self._block, end - low))) for low in range(start, end, self._block)]
        try:
            self._inner.read_into(start, *views)
        except Exception as error:  # noqa: BLE001 - raised by everyone who waits for these blocks
            return error
        self._finish(run, views, None)
        return None

    def _finish(self, run: Sequence[_Fetch], views: Sequence[memoryview] | None, error: BaseException | None) -> None:
        with self._lock:
            for number, fetch in enumerate(run):
                fetch.error = error
                if views is not None:
                    fetch.data = views[number]
                # A write in the meantime has taken the fetch out: its bytes may be old, and only those get them who
                # asked before.
                if self._fetches.get(fetch.block) is fetch:
                    del self._fetches[fetch.block]
                    if fetch.data is not None:
                        self._blocks[fetch.block] = fetch.data
                fetch.done.set()
            while len(self._blocks) > self._limit:
                self._blocks.popitem(last=False)

    def _drop(self, offset: int, length: int) -> None:
        if not length:
            return
        first, last = offset // self._block, (offset + length - 1) // self._block
        with self._lock:
            for table in (self._blocks, self._fetches):
                _remove(table, first, last)

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        try:
            self._inner.write(offset, *buffers, durable=durable)
        finally:
            self._drop(offset, total(buffers))

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        try:
            self._inner.zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)
        finally:
            self._drop(offset, length)

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        try:
            self._inner.discard(offset, length, durable=durable)
        finally:
            self._drop(offset, length)

    def _backing(self, offset: int, length: int) -> Backing:
        """Answer as the inner device: the cache never holds anything newer."""
        return self._inner.backing(offset, length)

    def _close(self) -> None:
        self._blocks.clear()
        super()._close()


def _remove(table: MutableMapping[int, Any], first: int, last: int) -> None:
    """Take the blocks from ``first`` to ``last`` out, by the cheaper of two ways."""
    if last - first < len(table):
        for index in range(first, last + 1):
            table.pop(index, None)
    else:
        for index in [index for index in table if first <= index <= last]:
            del table[index]
