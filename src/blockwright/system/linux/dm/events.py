"""Waits for events of mapped devices, for a time: a pool that fills up, a mirror that loses a leg.

Knows: how to learn that something happened, and to which devices. Refuses to know: what it means.
"""

from __future__ import annotations

import select
import sys
import time
from types import TracebackType
from typing import Self

from blockwright.system.linux.dm import layout
from blockwright.system.linux.dm.control import Control
from blockwright.system.linux.dm.layout import Command, Flag
from blockwright.system.linux.log import Logger


class Watch:
    """The events of every device from now on. Raises as Mapper does; close it, or use it as a context manager."""

    def __init__(self, *, logger: Logger | None = None) -> None:
        self._control = Control(logger)
        self._seen = self._events()
        self._arm()

    def wait(self, timeout_s: float | None = None) -> dict[str, int]:
        """Return the devices with new events since the last call, with their event numbers; empty after the time.

        A device that was made since then is among them, one that was removed is not.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            ready = self.happened(left)
            now = self._events()
            changed = {name: event for name, event in now.items() if self._seen.get(name) != event}
            self._seen = now
            if changed or (not ready and left is not None):
                return changed

    def happened(self, timeout_s: float | None = None) -> bool:
        """Whether there was an event of any device, or one went, since the last call; False after the time."""
        ready = self._ready(timeout_s)
        # Armed before anybody looks: what happens between the two is told by the next poll.
        self._arm()
        return ready

    def _ready(self, timeout_s: float | None) -> bool:
        if sys.platform == "win32":
            return False
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))

    def _arm(self) -> None:
        self._control.request(Command.DEV_ARM_POLL)

    def _events(self) -> dict[str, int]:
        """Return the event number of each device, also from kernels that do not tell it in the list."""
        found = {}
        for entry in layout.parse_names(self._control.request(Command.LIST_DEVICES, flags=Flag.UUID).data):
            event = entry.event_nr
            if event is None:
                event = self._control.request(Command.DEV_STATUS, entry.name).header.event_nr
            found[entry.name] = event
        return found

    def close(self) -> None:
        """Stop listening for events. Idempotent."""
        self._control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
