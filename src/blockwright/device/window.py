"""A range of a device as a device: a partition, a file system within an image.

Knows: a start and a length. Refuses to know: what table named them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from blockwright.device.base import Backing, BlockDevice
from blockwright.device.extent import Extent, shift
from blockwright.device.forwarding import ForwardingDevice
from blockwright.errors import Misaligned, OutOfRange


class Window(ForwardingDevice):
    """The ``length`` bytes of ``inner`` from ``start`` on; to its end where ``length`` is None.

    With ``read_only`` nothing can be written through it. Raises OutOfRange, and Misaligned where ``start`` or
    ``length`` is no multiple of the inner device's minimum block.
    """

    def __init__(
        self,
        inner: BlockDevice,
        start: int,
        length: int | None = None,
        *,
        read_only: bool = False,
        owns: bool = True,
    ) -> None:
        length = inner.size - start if length is None else length
        if start < 0 or length < 0 or start + length > inner.size:
            raise OutOfRange(f"window: expected to lie in {inner.size} bytes, found {length} bytes at {start}")
        if (start | length) % inner.traits.minimum_block:
            raise Misaligned(
                f"window: expected multiples of {inner.traits.minimum_block} bytes, found {length} bytes at {start}"
            )
        traits = inner.traits
        if read_only:
            traits = replace(traits, writable=False, discard=False, fast_zero=False, fua=False)
        super().__init__(inner, owns=owns, size=length, traits=traits)
        self._start = start

    @property
    def start(self) -> int:
        """The byte of the inner device that is byte 0 here."""
        return self._start

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._inner.read_into(self._start + offset, *buffers)

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        return self._inner.read_ready(self._start + offset, *buffers)

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        self._inner.write(self._start + offset, *buffers, durable=durable)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        self._inner.zero(self._start + offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        self._inner.discard(self._start + offset, length, durable=durable)

    def _extents(self, offset: int, length: int) -> Iterable[Extent]:
        return shift(self._inner.extents(self._start + offset, length), -self._start)

    def _prefetch(self, offset: int, length: int) -> None:
        self._inner.prefetch(self._start + offset, length)

    def _current_size(self) -> int:
        return self._size  # a part stays as long as it is, also where it is all there was

    def _backing(self, offset: int, length: int) -> Backing:
        return self._inner.backing(self._start + offset, length)
