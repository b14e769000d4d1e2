"""Devices in memory: a sparse one, and one that is all zeros.

Knows: pages. Refuses to know: persistence; ``flush`` has nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from blockwright.device.base import BlockDevice, ResizableDevice, Traits, Waits
from blockwright.device.extent import DATA, HOLE, ZERO, Extent
from blockwright.device.vector import clear
from blockwright.errors import OutOfRange
from blockwright.units import MAX_SIZE, KiB, align_down

PAGE: Final = 64 * KiB
"""Bytes that are allocated at once."""

_TRAITS: Final = Traits(
    writable=True,
    discard=True,
    fast_zero=True,
    fua=True,
    parallelism=8,
    waits=Waits.NEVER,
    known_extents=True,
)


class MemoryDevice(ResizableDevice):
    """Sparse memory of ``size`` bytes: what was never written, or was zeroed since, takes none.

    ``content`` is put at byte 0. Pages live in a dict, whose single operations are atomic, so calls from several
    threads on ranges that do not overlap do not disturb each other.
    """

    def __init__(self, size: int | None = None, content: bytes | bytearray | memoryview = b"") -> None:
        view = memoryview(content).cast("B")
        size = len(view) if size is None else size
        if not len(view) <= size <= MAX_SIZE:
            raise OutOfRange(f"memory: expected a size from {len(view)} to {MAX_SIZE} bytes, found {size}")
        super().__init__(size, _TRAITS)
        self._pages: dict[int, bytearray] = {}
        if view:
            self._write(0, [view], durable=False)

    @property
    def allocated(self) -> int:
        """The bytes that pages take."""
        return len(self._pages) * PAGE

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        pages = self._pages
        for buffer in buffers:
            position, length = 0, len(buffer)
            while position < length:
                index, within = divmod(offset, PAGE)
                part = min(PAGE - within, length - position)
                page = pages.get(index)
                if page is None:
                    clear(buffer[position : position + part])
                elif part == PAGE:
                    buffer[position : position + part] = page
                else:
                    buffer[position : position + part] = memoryview(page)[within : within + part]
                position += part
                offset += part

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        pages = self._pages
        for buffer in buffers:
            position, length = 0, len(buffer)
            while position < length:
                index, within = divmod(offset, PAGE)
                part = min(PAGE - within, length - position)
                data = buffer[position : position + part]
                page = pages.get(index)
                if page is None:
                    page = pages.setdefault(index, bytearray(data) if part == PAGE else bytearray(PAGE))
                page[within : within + part] = data
                position += part
                offset += part

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        """Drop whole pages and clear the parts of others; memory that is not there is zero already."""
        end = offset + length
        for index in self._present(offset, end):
            start = index * PAGE
            low, high = max(start, offset) - start, min(start + PAGE, end) - start
            if high - low == PAGE and may_unmap:
                self._pages.pop(index, None)
            elif (page := self._pages.get(index)) is not None:
                clear(memoryview(page)[low:high])

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        self._zero(offset, length, may_unmap=True, fast_only=False, durable=durable)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        position, end = align_down(offset, PAGE), offset + length
        for index in self._present(offset, end):
            start = index * PAGE
            if start > position:
                yield Extent(position, start - position, HOLE | ZERO)
            yield Extent(start, PAGE, DATA)
            position = start + PAGE
        if position < end:
            yield Extent(position, end - position, HOLE | ZERO)

    def _resize(self, size: int) -> None:
        if size > MAX_SIZE:
            raise OutOfRange(f"memory: expected a size of at most {MAX_SIZE} bytes, found {size}")
        if size < self._size:
            self._zero(size, self._size - size, may_unmap=True, fast_only=False, durable=False)

    def _close(self) -> None:
        self._pages.clear()

    def _present(self, offset: int, end: int) -> list[int]:
        """Return the pages that exist in the range, ascending, by the cheaper of two ways."""
        pages = self._pages
        wanted = range(offset // PAGE, -(-end // PAGE))
        if len(pages) < len(wanted):
            return sorted(index for index in list(pages) if index in wanted)
        return [index for index in wanted if index in pages]


class ZeroDevice(BlockDevice):
    """Reads as zeros and forgets what is written: a measure of everything else, and a source of nothing."""

    def __init__(self, size: int, *, writable: bool = False) -> None:
        super().__init__(
            size,
            replace(_TRAITS, writable=writable, discard=writable, fast_zero=writable, fua=writable),
        )

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            clear(buffer)

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        """Forget the bytes."""

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        """Do nothing: zeros are there."""

    def _extents(self, offset: int, length: int) -> tuple[Extent, ...]:
        return (Extent(offset, length, HOLE | ZERO),)
