"""A device that many use and one of them may resize: nobody writes behind an end that has moved.

Who wrote to a range that a resize cuts off at the same time would put bytes behind the end, and they would come back
when the device grows again. So a resize waits for the writes under way, and later ones wait for it.

Knows: who waits for whom. Refuses to know: who resizes, and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from blockwright.device.base import ResizableDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.ranges import RangeLock
from blockwright.device.vector import total
from blockwright.errors import OutOfRange

_ALL: Final = 1 << 64


class SteadyDevice(ForwardingDevice, ResizableDevice):
    """Is the inner device; each call holds to the size it has then, whatever its caller checked before.

    ``inner`` must not be resized past this.
    """

    def __init__(self, inner: ResizableDevice, *, owns: bool = True) -> None:
        super().__init__(inner, owns=owns)
        self._resizing = RangeLock()
        self._unchecked = inner.unchecked()

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._within(offset, total(buffers))
        super()._read_into(offset, buffers)

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        return offset + total(buffers) <= self._size and self._unchecked.read_ready(offset, buffers)

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        with self._held(offset, total(buffers)):
            self._unchecked.write(offset, buffers, durable=durable)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        with self._held(offset, length):
            super()._zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        with self._held(offset, length):
            super()._discard(offset, length, durable=durable)

    def _current_size(self) -> int:
        return self._size  # whoever is to grow it does so through this

    def _resize(self, size: int) -> None:
        assert isinstance(self._inner, ResizableDevice), "the constructor takes no other"
        with self._resizing.exclusive(0, _ALL):
            self._inner.resize(size)
            self._size = size  # before anybody who waits looks

    @contextmanager
    def _held(self, offset: int, length: int) -> Iterator[None]:
        """Keep the size as it is while a range is written. Raises OutOfRange where it is too small by now."""
        with self._resizing.shared(offset, offset + length):
            self._within(offset, length)
            yield

    def _within(self, offset: int, length: int) -> None:
        if offset + length > self._size:
            raise OutOfRange(f"range: expected to lie in {self._size} bytes, found {length} bytes at {offset}")
