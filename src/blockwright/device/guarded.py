"""A raw image that stays one: writes after which its first bytes would be taken for something else are refused.

What a raw image holds is its guest's to choose. Where nobody says which format a file has, its first bytes tell, so
a guest that wrote a header of its choice would choose how the host reads the file the next time.

Knows: the first bytes, and who is asked about them. Refuses to know: any format.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from blockwright.device.base import Backing, BlockDevice, FileRun, ResizableDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.errors import ReadOnly
from blockwright.units import align_up

Look = Callable[[bytes], "str | None"]
"""Says which format a file with these first bytes would be taken for, None for none."""


class GuardedDevice(ForwardingDevice):
    """``inner``, of which ``look`` never comes to name a format by its first ``head`` bytes.

    A write, zero or discard after which it would raises ReadOnly and changes nothing. ``guarded`` makes one.
    """

    def __init__(self, inner: BlockDevice, look: Look, head: int, *, owns: bool = True) -> None:
        super().__init__(inner, owns=owns)
        self._look = look
        self._wanted = align_up(head, inner.traits.minimum_block)
        self._head = min(self._wanted, inner.size)
        self._writing = threading.Lock()
        self._unchecked = inner.unchecked()

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        return self._unchecked.read_ready(offset, buffers)

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        if offset >= self._head:
            self._unchecked.write(offset, buffers, durable=durable)
            return
        with self._guarding(offset, lambda: b"".join(buffers)[: self._head - offset]):
            self._inner.write(offset, *buffers, durable=durable)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        with self._guarding(offset, lambda: bytes(min(length, self._head - offset))):
            super()._zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        with self._guarding(offset, lambda: bytes(min(length, self._head - offset))):
            super()._discard(offset, length, durable=durable)

    def _backing(self, offset: int, length: int) -> Backing:
        return self._readable(offset, length)

    @contextmanager
    def _readable(self, offset: int, length: int) -> Iterator[Sequence[FileRun] | None]:
        """Let the kernel read the file, and not write it behind our back."""
        with self._inner.backing(offset, length) as runs:
            yield runs and [run._replace(writable=False) for run in runs]

    @contextmanager
    def _guarding(self, offset: int, written: Callable[[], bytes]) -> Iterator[None]:
        """Let one write at a time change the head, and only if nothing is named for what it becomes."""
        if offset >= self._head:
            yield
            return
        with self._writing:
            before = self._inner.read(0, self._head)
            data = written()
            found = self._look(before[:offset] + data + before[offset + len(data) :])
            if found is not None and found != self._look(before):
                raise ReadOnly(
                    f"write: would make the raw image look like {found}, whose format was not named (byte {offset})"
                )
            yield


class ResizableGuardedDevice(GuardedDevice, ResizableDevice):
    """A guarded device that can grow and shrink, as the one that it guards."""

    def _resize(self, size: int) -> None:
        assert isinstance(self._inner, ResizableDevice), "guarded() sees to it"
        with self._writing:
            self._inner.resize(size)
            self._head = min(self._wanted, size)


def guarded(inner: BlockDevice, look: Look, head: int) -> GuardedDevice:
    """Return ``inner`` guarded, resizable where it is; closing it closes ``inner``."""
    kind = ResizableGuardedDevice if isinstance(inner, ResizableDevice) else GuardedDevice
    return kind(inner, look, head)
