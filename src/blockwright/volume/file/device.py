"""A volume that is open for writing in this process, whose layers may change under it.

Calls go straight to the device that the layers make now. While the layers change there is none, and calls wait; one
that has met a closed device, and so has done nothing, is made again on the next.

Knows: how to wait, and to try again. Refuses to know: what the layers are, and why they change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, TypeVar

from blockwright.device.base import Backing, BlockDevice, FileRun
from blockwright.device.extent import Extent
from blockwright.device.forwarding import ForwardingDevice
from blockwright.errors import BlockwrightError, Closed
from blockwright.volume.file.holder import Holder

_Result = TypeVar("_Result")
TRIES: Final = 3
"""Times that a volume is opened again before its calls fail."""
PAUSE_S: Final = 0.2


class VolumeDevice(ForwardingDevice):
    """``first`` until somebody has the layers changed, then what ``reopen`` returns. ``ended`` is called at close."""

    def __init__(self, first: BlockDevice, reopen: Callable[[], BlockDevice], ended: Callable[[], None]) -> None:
        super().__init__(first, traits=replace(first.traits, known_extents=False))
        self._reopen = reopen
        self._ended = ended
        self._ready = threading.Event()
        self._ready.set()
        self._trouble: BlockwrightError | OSError | None = None
        self._holder = Holder(self._stand_still, self._go_on)

    @property
    def control(self) -> str:
        """The path of the socket on which it is asked to stand still."""
        return self._holder.path

    def _stand_still(self) -> None:
        self._ready.clear()
        self._inner.flush()
        self._inner.close()

    def _go_on(self) -> None:
        """Open the volume as it is now; where that fails, so do its calls from then on."""
        if not self._inner.closed:
            self._ready.set()
            return
        self._trouble = None
        for attempt in range(TRIES):
            try:
                self._inner = self._reopen()
                self._trouble = None
                break
            except (BlockwrightError, OSError) as error:
                self._trouble = error
                if attempt < TRIES - 1:
                    threading.Event().wait(PAUSE_S)
        self._ready.set()

    def _on(self, call: Callable[[BlockDevice], _Result]) -> _Result:
        """Return what ``call`` returns of the device that there is; what it met closed, it has not touched."""
        while True:
            inner = self._inner
            try:
                return call(inner)
            except Closed:
                self._ready.wait()
                if self._trouble is not None:
                    raise self._trouble from None
                if self._inner is inner and self._ready.is_set():
                    raise

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._on(lambda inner: inner.read_into(offset, *buffers))

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        try:
            return self._inner.read_ready(offset, *buffers)
        except Closed:
            return False

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        self._on(lambda inner: inner.write(offset, *buffers, durable=durable))

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        self._on(lambda inner: inner.zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable))

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        self._on(lambda inner: inner.discard(offset, length, durable=durable))

    def _flush(self) -> None:
        self._on(lambda inner: inner.flush())

    def _extents(self, offset: int, length: int) -> list[Extent]:
        return self._on(lambda inner: list(inner.extents(offset, length)))

    def _prefetch(self, offset: int, length: int) -> None:
        self._on(lambda inner: inner.prefetch(offset, length))

    def _current_size(self) -> int:
        return self._on(lambda inner: inner.refresh())

    def _backing(self, offset: int, length: int) -> Backing:
        return self._readable(offset, length)

    @contextmanager
    def _readable(self, offset: int, length: int) -> Iterator[Sequence[FileRun] | None]:
        """Let the kernel read where the bytes lie now: that device is not closed meanwhile. Writes come here."""
        context = None
        try:
            context = self._inner.backing(offset, length)
            runs = context.__enter__()
        except Closed:
            yield None
            return
        try:
            yield runs and [run._replace(writable=False) for run in runs]
        finally:
            context.__exit__(None, None, None)

    def _close(self) -> None:
        self._holder.close()
        self._ready.wait()
        try:
            super()._close()
        finally:
            self._ended()
