"""What is written to an image becomes compressed clusters, in a pool of threads and in order.

For a copy: clusters are best written once, in ascending order, and whole. What is compressed lies one behind the
other, not a cluster each; what does not get shorter is written as it is.

Knows: order and packing. Refuses to know: how bytes are compressed (``compressed``).
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from blockwright.device.base import ResizableDevice
from blockwright.device.extent import Extent
from blockwright.format.qcow2.compressed import pack
from blockwright.format.qcow2.write import WritableQcow2
from blockwright.units import MiB

IN_FLIGHT = 16 * MiB
"""Bytes that are being compressed, or wait for their turn to be written."""
MIN_THREADS = 4
"""Threads that compress: one for each of two busy processors would come off badly beside those who take more."""
PIECE = MiB
"""Compressed bytes that are written at once."""
GROUP = 256 * 1024
"""Bytes that one task compresses: tasks cost more than short clusters do."""


class CompressingDevice(ResizableDevice):
    """Writes to ``inner`` as compressed clusters. One call at a time.

    ``level`` is the compression's own. What was written is in ``inner`` after a flush, and lost where it is closed
    without. Closing it closes ``inner``.
    """

    def __init__(self, inner: WritableQcow2, *, level: int | None = None, threads: int | None = None) -> None:
        super().__init__(inner.size, replace(inner.traits, parallelism=1, discard=False))
        self._inner = inner
        self._level = level
        self._geometry = inner.image.geometry
        self._compression = inner.image.record.compression_type
        workers = threads or max(MIN_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="compress")
        self._queue: deque[tuple[int, bytes, Future[list[bytes | memoryview]]]] = deque()
        self._queued = 0
        self._behind = 0  # the end of all that was submitted
        self._open: tuple[int, bytearray] | None = None  # a cluster that is not whole yet
        self._packed = bytearray()  # compressed bytes that belong at ``_start``
        self._start = 0
        self._cells: list[tuple[int, int]] = []
        self._round = 0
        self._room = 0  # bytes from the end of ``_packed`` to the end of the clusters allocated for it

    # -- in ----------------------------------------------------------------------------------------------------

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        data = buffers[0] if len(buffers) == 1 else memoryview(b"".join(buffers))
        cluster = self._geometry.cluster
        position, end = offset, offset + len(data)
        while position < end:
            start = position - position % cluster
            whole = (end - position) // cluster * cluster
            if position == start and whole:
                part = min(whole, GROUP - GROUP % cluster or cluster)
                self._submit(position, data[position - offset : position - offset + part])
            else:
                part = min(start + cluster, end) - position
                self._put_part(start, position - start, data[position - offset : position - offset + part])
            position += part
        if durable:
            self._flush()

    def _put_part(self, start: int, within: int, data: memoryview) -> None:
        """Note a part of a cluster, which is compressed when another one's turn comes."""
        if self._open is None or self._open[0] != start:
            self._close_cluster()
            if start < self._behind:
                self._settle()
            content = bytearray(self._geometry.cluster)
            self._inner.read_into(start, memoryview(content)[: min(len(content), self._size - start)])
            self._open = (start, content)
        self._open[1][within : within + len(data)] = data

    def _close_cluster(self) -> None:
        if self._open is not None:
            start, content = self._open
            self._open = None
            self._submit(start, memoryview(bytes(content)))

    def _submit(self, offset: int, data: memoryview) -> None:
        if self._open is not None:
            self._close_cluster()
        held = bytes(data)
        self._queue.append((offset, held, self._pool.submit(self._compress, held)))
        self._queued += len(held)
        self._behind = max(self._behind, offset + len(held))
        self._drain(IN_FLIGHT)

    def _compress(self, data: bytes) -> list[bytes | memoryview]:
        view, cluster = memoryview(data), self._geometry.cluster
        return [pack(view[at : at + cluster], self._compression, self._level) for at in range(0, len(data), cluster)]

    # -- out ---------------------------------------------------------------------------------------------------

    def _drain(self, most: int) -> None:
        """Store what was compressed first until at most ``most`` bytes are on their way."""
        cluster = self._geometry.cluster
        while self._queue and self._queued > most:
            offset, data, future = self._queue.popleft()
            self._queued -= len(data)
            for number, packed in enumerate(future.result()):
                at = offset + number * cluster
                if len(packed) < cluster:
                    self._append(at, packed)
                else:
                    length = min(cluster, self._size - at)
                    self._inner.write(at, memoryview(data)[number * cluster : number * cluster + length])

    def _append(self, at: int, packed: bytes | memoryview) -> None:
        """Put compressed bytes behind the others, or into a new cluster where there is no room in a row."""
        geometry, updates = self._geometry, self._inner.updates
        with updates.lock:
            offset = self._place(len(packed))
            if offset % geometry.cluster:  # what ends in the same cluster has it counted already
                updates.counts.add([offset >> geometry.cluster_bits], 1)
        self._packed += packed
        self._room -= len(packed)
        self._cells.append((at, geometry.compressed_entry(offset, len(packed))))
        if len(self._packed) >= PIECE:
            self._store()

    def _place(self, length: int) -> int:
        """Return where ``length`` bytes, less than a cluster, go; clusters they come to need are allocated."""
        geometry, updates = self._geometry, self._inner.updates
        end = self._start + len(self._packed)
        # What the open cluster held may be gone, and the cluster with it.
        full = self._round != updates.rounds
        self._round = updates.rounds
        if end % geometry.cluster and not full:
            full = updates.counts.get(end >> geometry.cluster_bits) >= geometry.max_refcount
        if not full and length <= self._room:
            return end
        found, _, _ = updates.allocate(1)
        if not full and found == end + self._room:
            self._room += geometry.cluster
            return end
        self._put_packed()
        self._start, self._room = found, geometry.cluster
        return found

    def _store(self) -> None:
        """Write what is packed, and only then make the map refer to it."""
        self._put_packed()
        cells, self._cells = self._cells, []
        if cells:
            self._map(cells)

    def _map(self, cells: Sequence[tuple[int, int]]) -> None:
        """Make the map say that clusters, by their offsets, are what compressed entries describe."""
        inner, updates, geometry = self._inner, self._inner.updates, self._geometry
        width = 2 if geometry.extended else 1
        for offset, _ in cells:
            inner.changing(offset, geometry.cluster)
        with updates.lock:
            for offset, entry in cells:
                index, within = divmod(offset, geometry.l2_span)
                slot = (within >> geometry.cluster_bits) * width
                table = updates.table(index)
                updates.loosen_entry(table[slot])
                table[slot : slot + width] = array("Q", [entry, 0][:width])
                updates.map.changed(index, slot, slot + width)
        inner.bound()

    def _put_packed(self) -> None:
        if self._packed:
            self._inner.write_packed(self._start, self._packed)
            self._start += len(self._packed)
            self._packed = bytearray()

    # -- the rest ----------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        self._close_cluster()
        self._drain(0)
        self._store()

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._settle()
        self._inner.read_into(offset, *buffers)

    def _extents(self, offset: int, length: int) -> Iterable[Extent]:
        self._settle()
        return self._inner.extents(offset, length)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        self._settle()
        self._inner.zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)

    def _flush(self) -> None:
        self._settle()
        self._inner.flush()

    def _resize(self, size: int) -> None:
        self._settle()
        self._inner.resize(size)

    def _cancel(self) -> None:
        self._inner.cancel()

    def _close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._inner.close()
