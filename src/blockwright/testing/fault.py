"""A device that fails when it is told to, for tests that fail every operation in turn.

Knows: counting. Refuses to know: what should happen then.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.testing.recording import Call, ObservingDevice

FAILING: Final = frozenset({"read", "write", "zero", "discard", "flush", "extents"})


class FaultDevice(ObservingDevice):
    """``inner``, whose call number ``fail_at`` (counted from 0 over the ``names``) fails before it does anything.

    With ``lasting`` every later one fails too, as after a disk is gone. ``error`` makes the exception: an OSError
    with EIO by default. ``count`` says how many calls there were, so a run that never fails says how far to go:

        for k in range(count): run with fail_at=k
    """

    def __init__(
        self,
        inner: BlockDevice,
        fail_at: int | None = None,
        *,
        names: Collection[str] = FAILING,
        lasting: bool = False,
        error: Callable[[], Exception] | None = None,
        owns: bool = True,
    ) -> None:
        super().__init__(inner, owns=owns)
        self.fail_at = fail_at
        self.count = 0
        self.failed = False
        self._names = frozenset(names)
        self._lasting = lasting
        self._error = error or (lambda: OSError(errno.EIO, os.strerror(errno.EIO)))

    def _observe(self, call: Call) -> None:
        if call.name not in self._names:
            return
        number, self.count = self.count, self.count + 1
        if self.fail_at is not None and (number == self.fail_at or (self._lasting and number > self.fail_at)):
            self.failed = True
            raise self._error()
