"""The hash tree over a device: digests of its blocks in order, and the levels above them as they fill.

Linear in the size of the data, and bounded in memory: a few chunks of data, and a batch of hash blocks for each
level. What is known to be zeros is neither read nor hashed, whatever its length.

Knows: hashing, and the order of blocks. Refuses to know: superblocks, and what the tree is for.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.device.copy_runs import join
from blockwright.units import KiB, MiB, align_down, align_up
from blockwright.verity.layout import Parameters
from blockwright.verity.plan import plan_tree

CHUNK: Final = MiB
"""Bytes of data that a thread reads and hashes at once."""

BATCH: Final = 256 * KiB
"""Bytes of a level's hash blocks that are gathered before they are given away."""

MAX_THREADS: Final = 8

Emit = Callable[[int, memoryview], None]
"""``emit(offset, blocks)``: hash blocks that belong at ``offset``, in bytes from the tree's beginning on.

The bytes are lent for the call.
"""

Progress = Callable[[int, int], None]
"""``progress(done, total)`` in bytes of data."""


def default_threads() -> int:
    """Return how many threads hash by default: one for each processor, up to a limit."""
    return min(MAX_THREADS, os.cpu_count() or 1)


class Hasher:
    """Digests of blocks with one salt and algorithm. May be used by several threads at once."""

    def __init__(self, parameters: Parameters) -> None:
        # That sums are not for security is said of sha1, which some builds of OpenSSL refuse otherwise.
        self._salted = hashlib.new(parameters.algorithm, parameters.salt, usedforsecurity=False)
        self._padding = bytes(parameters.slot_size - parameters.digest_size)
        self._data_zeros = bytes(parameters.data_block)
        self.zero_slot = self.digest(self._data_zeros) + self._padding
        """The slot of a data block that holds zeros."""

    def digest(self, block: bytes | memoryview) -> bytes:
        """Return the digest of one block of any kind."""
        state = self._salted.copy()
        state.update(block)
        return state.digest()

    def slots(self, blocks: memoryview, block_size: int) -> bytes:
        """Return the slots of whole blocks, one behind the other: each digest padded to its power of two."""
        copy, padding, found = self._salted.copy, self._padding, []
        zeros, zero_slot = self._data_zeros, self.zero_slot
        if block_size != len(zeros):
            zeros = b""
        for start in range(0, len(blocks), block_size):
            block = blocks[start : start + block_size]
            if not block[0] and bytes(block) == zeros:
                found.append(zero_slot)
                continue
            state = copy()
            state.update(block)
            found.append(state.digest())
            if padding:
                found.append(padding)
        return b"".join(found)


class TreeWriter:
    """Takes the slots of the data blocks in order, gives hash blocks to ``emit``, and knows the root at last."""

    def __init__(self, parameters: Parameters, hasher: Hasher, emit: Emit) -> None:
        self._parameters = parameters
        self._only: bytes | None = None
        self._levels: list[_Level] = []
        above: _Level | None = None
        for level in reversed(plan_tree(parameters).levels):
            above = _Level(parameters, hasher, emit, level.start, above)
            self._levels.insert(0, above)
        self._pushed = 0

    def push(self, slots: bytes | memoryview) -> None:
        """Take the slots of the next data blocks."""
        self._pushed += len(slots) // self._parameters.slot_size
        if self._levels:
            self._levels[0].push(memoryview(slots))
        else:
            self._only = bytes(slots)

    def push_run(self, slot: bytes, count: int) -> None:
        """Take ``count`` data blocks that all have that slot."""
        if self._levels:
            self._pushed += count
            self._levels[0].push_run(slot, count)
        elif count:
            self.push(slot)

    def finish(self) -> bytes:
        """Give away what is left, and return the root hash. Every data block must have been taken."""
        expected = self._parameters.data_blocks
        assert self._pushed == expected, f"verity: {self._pushed} of {expected} blocks were hashed"
        for level in self._levels:
            level.finish()
        root = self._levels[-1].last_digest if self._levels else self._only
        assert root is not None
        return root[: self._parameters.digest_size]


class _Level:
    """One level: gathers slots into blocks, and hands on the slots of what it gives away."""

    def __init__(self, parameters: Parameters, hasher: Hasher, emit: Emit, start: int, above: _Level | None) -> None:
        self._block = parameters.hash_block
        self._slot = parameters.slot_size
        self._hasher = hasher
        self._emit = emit
        self._position = start
        self._above = above
        self._size = max(self._block, BATCH)
        self._buffer = memoryview(bytearray(self._size))
        self._used = 0
        self.last_digest: bytes | None = None

    def push(self, slots: memoryview) -> None:
        while slots:
            part = min(len(slots), self._size - self._used)
            self._buffer[self._used : self._used + part] = slots[:part]
            self._used += part
            slots = slots[part:]
            if self._used == self._size:
                self._send()

    def push_run(self, slot: bytes, count: int) -> None:
        """Fill the block that is begun; of the whole blocks behind it one is hashed, and stands for all."""
        per_block = self._block // self._slot
        begun = min(count, -(self._used // self._slot) % per_block)
        self.push(memoryview(slot * begun))
        blocks, rest = divmod(count - begun, per_block)
        if blocks and self._above is not None:
            self._send()
            block = slot * per_block
            batch = memoryview(block * min(blocks, self._size // self._block))
            self._above.push_run(self._padded(self._hasher.digest(block)), blocks)
            left = blocks * self._block
            while left:
                part = min(left, len(batch))
                self._emit(self._position, batch[:part])
                self._position += part
                left -= part
        else:
            rest += blocks * per_block
        self.push(memoryview(slot * rest))

    def _padded(self, digest: bytes) -> bytes:
        return digest.ljust(self._slot, b"\0")

    def finish(self) -> None:
        """Pad the last block with zeros and give it away."""
        end = align_up(self._used, self._block)
        self._buffer[self._used : end] = bytes(end - self._used)
        self._used = end
        self._send()

    def _send(self) -> None:
        """Give away what was gathered, which is whole blocks."""
        blocks = self._buffer[: self._used]
        if not blocks:
            return
        self._emit(self._position, blocks)
        self._position += self._used
        self._used = 0
        if self._above is None:
            self.last_digest = self._hasher.digest(blocks)
        else:
            for start in range(0, len(blocks), self._block):
                block = blocks[start : start + self._block]
                self._above.push(memoryview(self._padded(self._hasher.digest(block))))


class Hashed(NamedTuple):
    """``blocks`` data blocks from block ``first`` on: their ``slots``, None where all of them are zeros."""

    first: int
    blocks: int
    slots: bytes | None


def hashed_blocks(
    data: BlockDevice, parameters: Parameters, hasher: Hasher, *, threads: int | None = None
) -> Iterator[Hashed]:
    """Yield the slots of all data blocks in their order, read and hashed by ``threads`` that run a little ahead.

    The data is read once, holes not at all. Raises what reading does, with all threads ended.
    """
    count = default_threads() if threads is None else threads
    if data.traits.parallelism == 1:
        count = 1
    with ThreadPoolExecutor(count, "verity") as pool:
        ahead: deque[Future[Hashed]] = deque()
        try:
            for offset, length, zero in _pieces(data, parameters):
                if zero:
                    while ahead:
                        yield ahead.popleft().result()
                    yield Hashed(offset // parameters.data_block, length // parameters.data_block, None)
                    continue
                ahead.append(pool.submit(_hash_piece, data, parameters, hasher, offset, length))
                if len(ahead) > 2 * count:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _hash_piece(data: BlockDevice, parameters: Parameters, hasher: Hasher, offset: int, length: int) -> Hashed:
    buffer = bytearray(length)
    data.read_into(offset, buffer)
    block = parameters.data_block
    return Hashed(offset // block, length // block, hasher.slots(memoryview(buffer), block))


def _pieces(data: BlockDevice, parameters: Parameters) -> Iterator[tuple[int, int, bool]]:
    """Yield what is to be hashed at once, in whole blocks; a block that is zeros in part only counts as data."""
    block, end = parameters.data_block, parameters.data_size
    chunk = max(CHUNK, block)
    position = 0
    for run in join(data.extents(0, end)):
        if not run.zero:
            continue
        low, high = align_up(run.offset, block), align_down(run.offset + run.length, block)
        if low >= high:
            continue
        yield from _chunks(position, low, chunk)
        yield low, high - low, True
        position = high
    yield from _chunks(position, end, chunk)


def _chunks(position: int, end: int, chunk: int) -> Iterator[tuple[int, int, bool]]:
    while position < end:
        part = min(chunk - position % chunk, end - position)
        yield position, part, False
        position += part


def write_tree(
    data: BlockDevice,
    parameters: Parameters,
    emit: Emit,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Return the root hash of the first ``parameters.data_size`` bytes of ``data``; ``emit`` gets the tree.

    Reads the data once, and holes not at all. Blocks of each level come in ascending order, those of different levels
    as they fill. Raises OutOfRange where the data is shorter, and what reading and ``emit`` raise.
    """
    hasher = Hasher(parameters)
    writer = TreeWriter(parameters, hasher, emit)
    for each in hashed_blocks(data, parameters, hasher, threads=threads):
        if each.slots is None:
            writer.push_run(hasher.zero_slot, each.blocks)
        else:
            writer.push(each.slots)
        if progress is not None:
            progress((each.first + each.blocks) * parameters.data_block, parameters.data_size)
    return writer.finish()
