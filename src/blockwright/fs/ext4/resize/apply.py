"""The writes of a plan in an order that any power cut may end.

Without a journal the superblock says first that the file system is not clean, with a mark that this package made it
so; then comes what new groups need, then bitmaps and descriptors, then the superblock with the new size, then what
means nothing before it. A check mends each prefix of that without loss: it finds the file system of the old size,
or of the new one, with bits and counts to correct.

Knows: order and flushes. Refuses to know: what is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from blockwright.device.base import BlockDevice
from blockwright.fs.ext4.layout import State
from blockwright.fs.ext4.resize.plan import Plan
from blockwright.units import MiB, align_down, align_up

MAX_WRITE = 4 * MiB
"""Bytes of neighbouring blocks that are written at once."""


class Writer:
    """Writes blocks of a file system to ``device``, whatever its minimum block."""

    def __init__(self, device: BlockDevice, block_size: int) -> None:
        self.device = device
        self._size = block_size

    def write(self, blocks: Iterable[tuple[int, bytes]]) -> None:
        """Write ascending (block, bytes), neighbours together; nothing is durable yet."""
        for block, data in _joined(blocks, self._size):
            self._write(block * self._size, data)

    def zero(self, runs: Iterable[tuple[int, int]]) -> None:
        """Have runs of (block, count) read as zeros, and leave alone what does already."""
        for block, count in runs:
            start, length = block * self._size, count * self._size
            for extent in self.device.extents(*self._whole(start, length)):
                low, high = max(start, extent.offset), min(start + length, extent.end)
                if extent.flags == 0 and low < high:
                    self._zero(low, high - low)

    def _whole(self, start: int, length: int) -> tuple[int, int]:
        """Return the range in whole minimum blocks of the device."""
        grain = self.device.traits.minimum_block
        low = align_down(start, grain)
        return low, min(align_up(start + length, grain), self.device.size) - low

    def _zero(self, start: int, length: int) -> None:
        if self._whole(start, length) == (start, length):
            self.device.zero(start, length)
        else:
            self._write(start, bytes(length))

    def _write(self, start: int, data: bytes) -> None:
        low, length = self._whole(start, len(data))
        if (low, length) != (start, len(data)):
            around = bytearray(self.device.read(low, length))
            around[start - low : start - low + len(data)] = data
            start, data = low, bytes(around)
        self.device.write(start, data)


def _joined(blocks: Iterable[tuple[int, bytes]], size: int) -> Iterator[tuple[int, bytes]]:
    first, parts, length = 0, list[bytes](), 0
    for block, data in blocks:
        if parts and (block * size != first * size + length or length + len(data) > MAX_WRITE):
            yield first, b"".join(parts)
            parts, length = [], 0
        if not parts:
            first = block
        parts.append(data)
        length += len(data)
    if parts:
        yield first, b"".join(parts)


def apply(plan: Plan) -> str:
    """Make what is planned durable; return how: "none", "journal" or "ordered"."""
    writer = Writer(plan.volume.device, plan.geometry.block_size)
    stale = plan.copies_are_stale()
    if not plan.switch and not plan.behind:
        if stale:
            _write_copies(plan, writer, 0, plan.first_new)
        return "ordered" if stale else "none"
    _write_early(plan, writer)
    _switch_in_order(plan, writer)
    _write_copies(plan, writer, 0, plan.first_new)
    writer.write([(plan.geometry.super_block, plan.superblock_block(plan.superblock))])
    writer.device.flush()
    return "ordered"


def _write_early(plan: Plan, writer: Writer) -> None:
    """Write what new groups need, where nothing refers to it yet."""
    if plan.first_new == plan.geometry.groups:
        return
    writer.zero(plan.zeros)
    writer.zero(plan.kept_heads())
    writer.write(sorted(plan.early.items()))
    _write_copies(plan, writer, plan.first_new, plan.geometry.groups)


def _write_copies(plan: Plan, writer: Writer, first: int, last: int) -> None:
    """Write the copies of descriptors and superblock in groups; a superblock says that what is behind it is new."""
    writer.write(plan.descriptor_copies(first, last))
    writer.device.flush()
    writer.write(plan.superblock_copies(first, last))
    writer.device.flush()


def _switch_in_order(plan: Plan, writer: Writer) -> None:
    """Write the blocks of the old file system so that each prefix is whole but for bits and counts."""
    home = plan.geometry.super_block
    before = plan.volume.superblock.replace()
    after = plan.superblock.replace()
    for superblock in (before, after):
        superblock.s_state &= ~int(State.valid)
    writer.write([(home, plan.superblock_block(before, marked=True))])
    writer.device.flush()
    writer.write(sorted((block, data) for block, data in plan.switch.items() if block != home))
    writer.device.flush()
    writer.write([(home, plan.superblock_block(after, marked=True))])
    writer.device.flush()
    writer.write(sorted(plan.behind.items()))
    writer.device.flush()
