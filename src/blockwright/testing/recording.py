"""A device that remembers what was asked of it.

Knows: the calls that reached it. Refuses to know: whether they were right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

from blockwright.device.base import Backing, BlockDevice, Traits, Waits
from blockwright.device.extent import Extent
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.vector import total


class Call(NamedTuple):
    """One call: the public name, the range in bytes, and the flags that were given (``durable``, ``may_unmap``)."""

    name: str
    offset: int = 0
    length: int = 0
    flags: tuple[str, ...] = ()


class ObservingDevice(ForwardingDevice):
    """Calls ``_observe`` before each call reaches the inner device. Answers no backing: that would bypass it.

    Whoever observes may take time, so every call counts as one that waits, and none is ever ready.
    """

    def __init__(self, inner: BlockDevice, *, owns: bool = True, traits: Traits | None = None) -> None:
        traits = inner.traits if traits is None else traits
        super().__init__(inner, owns=owns, traits=replace(traits, waits=max(traits.waits, Waits.ALWAYS)))

    def _observe(self, call: Call) -> None:
        """See the call; an exception from here is the call's."""

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._observe(Call("read", offset, total(buffers)))
        super()._read_into(offset, buffers)

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        return False  # and so the caller reads, which is seen

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        self._observe(Call("write", offset, total(buffers), _flags(durable=durable)))
        super()._write(offset, buffers, durable=durable)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        flags = _flags(may_unmap=may_unmap, fast_only=fast_only, durable=durable)
        self._observe(Call("zero", offset, length, flags))
        super()._zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        self._observe(Call("discard", offset, length, _flags(durable=durable)))
        super()._discard(offset, length, durable=durable)

    def _flush(self) -> None:
        self._observe(Call("flush"))
        super()._flush()

    def _begin_flush(self) -> None:
        self._flush()  # which is allowed, and is seen

    def _extents(self, offset: int, length: int) -> Iterable[Extent]:
        self._observe(Call("extents", offset, length))
        return super()._extents(offset, length)

    def _prefetch(self, offset: int, length: int) -> None:
        self._observe(Call("prefetch", offset, length))
        super()._prefetch(offset, length)

    def _cancel(self) -> None:
        self._observe(Call("cancel"))
        super()._cancel()

    def _current_size(self) -> int:
        self._observe(Call("refresh"))
        return super()._current_size()

    def _backing(self, offset: int, length: int) -> Backing:
        return nullcontext(None)

    def _close(self) -> None:
        self._observe(Call("close"))
        super()._close()


class RecordingDevice(ObservingDevice):
    """Keeps every call in ``calls``, in the order in which they began."""

    def __init__(self, inner: BlockDevice, *, owns: bool = True, traits: Traits | None = None) -> None:
        super().__init__(inner, owns=owns, traits=traits)
        self.calls: list[Call] = []

    def named(self, *names: str) -> list[Call]:
        """Return the calls of these names."""
        return [call for call in self.calls if call.name in names]

    def _observe(self, call: Call) -> None:
        self.calls.append(call)


def _flags(**values: Any) -> tuple[str, ...]:
    return tuple(name for name, value in values.items() if value)
