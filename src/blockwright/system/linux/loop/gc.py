"""Detaches what died processes left, by the records of what was attached.

Knows: whose devices may go. Refuses to know: how a device is detached.
"""

from __future__ import annotations

from dataclasses import dataclass

from blockwright.errors import InUse
from blockwright.system.linux.ioctl import require_linux
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.loop import control
from blockwright.system.linux.loop.detach import detach
from blockwright.system.linux.loop.ownership import is_ours
from blockwright.system.linux.registry import Registry


@dataclass(frozen=True, slots=True)
class Collected:
    """What ``gc`` did: devices it detached, and those that are in use still, each with who holds it."""

    detached: tuple[str, ...]
    held: tuple[str, ...]


def gc(*, logger: Logger | None = None) -> Collected:
    """Have no loop device attached whose owner died: one that attached for a block, or died while it attached.

    What was attached to stay does so, and what others attached is not looked at. Raises Unavailable, KernelError.
    """
    require_linux("gc", "loop devices")
    registry = Registry("loop")
    detached, held = [], []
    with control.control():
        for record in list(registry.records()):
            if record.alive:
                continue
            if not is_ours(record):
                registry.remove(record.name)
            elif record.owner is not None:
                number = int(record.fields["number"])
                try:
                    detach(number, timeout_s=0.5, logger=logger)
                except InUse as error:
                    told(logger).warning("%s", error)
                    held.append(str(error))
                    continue
                registry.remove(record.name)
                detached.append(f"/dev/loop{number}")
    return Collected(tuple(detached), tuple(held))
