"""A device that hashes what is written through it: a copy and its hash tree in one pass, with nothing read again.

Knows: what a run of ascending writes covers. Refuses to know: who writes, and where the tree goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from blockwright.device.base import Backing, BlockDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.errors import UsageError
from blockwright.units import align_up, ceil_div
from blockwright.verity.layout import Parameters
from blockwright.verity.tree import Emit, Hasher, TreeWriter, default_threads


class HashingDevice(ForwardingDevice):
    """``inner``, whose tree goes to ``emit`` while it is written once, from its beginning to its end.

    Threads hash what another one writes. What is passed over on the way reads as zeros, as ``copy`` promises it of a
    target that does. ``inner`` has exactly the size that ``parameters`` say. Raises UsageError for a write that goes
    back. Reads are not looked at.
    """

    def __init__(
        self, inner: BlockDevice, parameters: Parameters, emit: Emit, *, threads: int | None = None, owns: bool = True
    ) -> None:
        if inner.size != parameters.data_size:
            raise UsageError(f"verity: expected a device of {parameters.data_size} bytes, found {inner.size}")
        block = max(inner.traits.minimum_block, parameters.data_block)
        traits = replace(inner.traits, parallelism=1, minimum_block=block, discard=False)
        super().__init__(inner, owns=owns, traits=traits)
        self._block = parameters.data_block
        self._hasher = Hasher(parameters)
        self._writer = TreeWriter(parameters, self._hasher, emit)
        self._threads = default_threads() if threads is None else threads
        self._pool = ThreadPoolExecutor(self._threads, "verity")
        self._end = 0

    def finish(self) -> bytes:
        """Return the root hash; what is behind the last write is zeros."""
        self._advance(self.size, 0)
        return self._writer.finish()

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        length = sum(map(len, buffers))
        data = buffers[0] if len(buffers) == 1 else memoryview(b"".join(buffers))
        self._advance(offset, length)
        step = align_up(ceil_div(max(length, 1), self._threads), self._block)
        hashed = [
            self._pool.submit(self._hasher.slots, data[start : start + step], self._block)
            for start in range(0, length, step)
        ]
        try:
            self._inner.write(offset, data, durable=durable)
        finally:
            found = [each.result() for each in hashed]  # the buffers are lent for the call only
        for slots in found:
            self._writer.push(slots)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        self._inner.zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)
        self._advance(offset, length)
        self._writer.push_run(self._hasher.zero_slot, length // self._block)

    def _advance(self, offset: int, length: int) -> None:
        """Count what was passed over as zeros."""
        if offset < self._end:
            raise UsageError(f"verity: expected a write from byte {self._end} on, found one at {offset}")
        self._writer.push_run(self._hasher.zero_slot, (offset - self._end) // self._block)
        self._end = offset + length

    def _backing(self, offset: int, length: int) -> Backing:
        return BlockDevice._backing(self, offset, length)  # noqa: SLF001 - what is copied past us is not hashed

    def _close(self) -> None:
        self._pool.shutdown()
        super()._close()
