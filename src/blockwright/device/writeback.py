"""What is written is brought to the medium while more is being written, so that the last flush has little to do.

Knows: when to flush, and that a flush that failed is told: a host reports a lost write to one flush only.
Refuses to know: what is written, and when it is complete.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, Self

from blockwright.device.base import BlockDevice
from blockwright.units import MiB

STEP: Final = 16 * MiB
"""Bytes written between flushes: enough that a flush's own cost, a commit of the host's journal, does not show."""


_AGAIN_S: Final = 0.1
"""How often a flush that nobody wants is looked after."""


class WriteBack:
    """A context manager that begins to flush ``device`` in a thread each ``STEP`` bytes, unless one is still at it.

    ``wrote`` is called by the thread that writes. What is written in the end still needs a flush of its own. When
    the context ends no thread is left; where nothing else was raised, the error of a flush is. A device that takes
    one call at a time is left alone.
    """

    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self._next: float = STEP if device.traits.parallelism > 1 else float("inf")
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def wrote(self, done: int) -> None:
        """Take note that ``done`` bytes were written in all. Raises what an earlier flush raised."""
        if done < self._next or (self._thread is not None and self._thread.is_alive()):
            return
        self._tell()
        self._next = done + STEP
        self._thread = threading.Thread(target=self._flush, name="write back", daemon=True)
        self._thread.start()

    def _flush(self) -> None:
        try:
            self._device.begin_flush()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that writes
            self._error = error

    def _tell(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while kind is not None and self._thread is not None and self._thread.is_alive():
            self._device.cancel()  # nobody wants what it waits for, and it may not have begun to wait yet
            self._thread.join(_AGAIN_S)
        if self._thread is not None:
            self._thread.join()
        if kind is None:
            self._tell()
