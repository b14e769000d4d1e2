"""What is written front to back is packed in groups, by a pool of threads and in order.

Knows: order, and how much is on its way. Refuses to know: what a group is packed to, and what stands between groups.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Generic, TypeVar

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.once import OnceDevice
from blockwright.device.writeback import WriteBack
from blockwright.errors import Cancelled
from blockwright.units import MiB

GROUP: Final = MiB
"""Bytes of the disk that one task packs."""
IN_FLIGHT: Final = 16
"""Groups that are being packed, or wait for their turn to be written."""

MIN_THREADS: Final = 4
"""Threads that pack: one for each of two busy processors would come off badly beside those who take more."""

Packed = TypeVar("Packed")


class PackingDevice(OnceDevice, Generic[Packed]):
    """Takes ``size`` bytes in ascending order, and writes what becomes of them to ``file`` from byte 0 on.

    ``file`` stays its owner's, and may be one that takes ascending writes only. Groups that nothing is written to are
    never packed.
    """

    def __init__(self, file: BlockDevice, size: int, *, threads: int | None = None) -> None:
        super().__init__(size)
        self._file = file
        self._pool = ThreadPoolExecutor(
            threads or max(MIN_THREADS, os.cpu_count() or 1), thread_name_prefix="compress"
        )
        self._queue: deque[Future[Packed]] = deque()
        self._group: tuple[int, bytearray] | None = None
        self._end = 0  # bytes that the file has, with those that are pending
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._medium = WriteBack(file)
        self._medium.__enter__()

    @abstractmethod
    def _pack(self, start: int, data: bytearray) -> Packed:
        """Return what becomes of the group that begins at ``start``; called in any thread."""

    @abstractmethod
    def _append(self, packed: Packed) -> None:
        """``_put`` what became of the next group; called in order."""

    @abstractmethod
    def _append_end(self) -> None:
        """``_put`` what belongs behind all groups."""

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        for data in buffers:
            self._ascend(offset, len(data))
            position = 0
            while position < len(data):
                within = (offset + position) % GROUP
                part = min(GROUP - within, len(data) - position)
                self._group_at(offset + position - within)[within : within + part] = data[position : position + part]
                position += part
            offset += len(data)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        self._ascend(offset, length)

    def _group_at(self, start: int) -> memoryview:
        if self._group is None or self._group[0] != start:
            self._submit()
            self._group = (start, bytearray(min(GROUP, self._size - start)))
        return memoryview(self._group[1])

    def _submit(self) -> None:
        if self._group is None:
            return
        self._queue.append(self._pool.submit(self._pack, *self._group))
        self._group = None
        while len(self._queue) > IN_FLIGHT or (self._queue and self._queue[0].done()):
            self._take()

    def _take(self) -> None:
        self._append(self._queue.popleft().result())
        self._store()

    def _put(self, data: bytes) -> None:
        """Have ``data`` written behind all that was put before."""
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._end += len(data)

    def _store(self) -> None:
        if self._pending:
            if isinstance(self._file, ResizableDevice):
                self._file.resize(self._end)
            self._file.write(self._end - self._pending_bytes, *self._pending)
            self._pending, self._pending_bytes = [], 0
            self._medium.wrote(self._end)

    def _finish(self) -> None:
        self._submit()
        while self._queue:
            self._take()
        self._append_end()
        self._store()

    def _close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._medium.__exit__(None if self._finished else Cancelled, None, None)
