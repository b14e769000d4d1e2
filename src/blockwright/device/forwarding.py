"""The device that every wrapper derives from: it forwards each primitive to the device it wraps.

A wrapper overrides what it changes. A test by reflection fails when a primitive of ``BlockDevice`` is not
forwarded here, so no wrapper silently bypasses the inner implementation.

Knows: forwarding and ownership. Refuses to know: why somebody wraps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from blockwright.device.base import Backing, BlockDevice, Traits
from blockwright.device.extent import Extent


class ForwardingDevice(BlockDevice):
    """Is the inner device, under another identity; closes it too unless ``owns`` is False."""

    def __init__(
        self, inner: BlockDevice, *, owns: bool = True, size: int | None = None, traits: Traits | None = None
    ) -> None:
        super().__init__(inner.size if size is None else size, inner.traits if traits is None else traits)
        self._inner = inner
        self._owns = owns

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._inner.read_into(offset, *buffers)

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        return self._inner.read_ready(offset, *buffers)

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        self._inner.write(offset, *buffers, durable=durable)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        self._inner.zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        self._inner.discard(offset, length, durable=durable)

    def _flush(self) -> None:
        self._inner.flush()

    def _begin_flush(self) -> None:
        self._inner.begin_flush()

    def _extents(self, offset: int, length: int) -> Iterable[Extent]:
        return self._inner.extents(offset, length)

    def _prefetch(self, offset: int, length: int) -> None:
        self._inner.prefetch(offset, length)

    def _cancel(self) -> None:
        self._inner.cancel()

    def _current_size(self) -> int:
        whole = self._inner.size == self._size
        return self._inner.refresh() if whole else self._size

    def _backing(self, offset: int, length: int) -> Backing:
        return self._inner.backing(offset, length)

    def _close(self) -> None:
        if self._owns:
            self._inner.close()
