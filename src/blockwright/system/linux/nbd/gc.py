"""Detaches what died processes left, by the records of what was attached.

Knows: whose devices may go. Refuses to know: how a device is detached.
"""

from __future__ import annotations

from dataclasses import dataclass

from blockwright.errors import InUse, KernelError
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.nbd import ownership
from blockwright.system.linux.nbd.detach import detach
from blockwright.system.linux.nbd.state import require_driver
from blockwright.system.linux.registry import Registry


@dataclass(frozen=True, slots=True)
class Collected:
    """What ``gc`` did: devices it detached, and those that it could not, each with the reason."""

    detached: tuple[str, ...]
    held: tuple[str, ...]


def gc(*, force: bool = False, logger: Logger | None = None) -> Collected:
    """Have no network block device attached whose owner died: one that attached for a block, or while it attached.

    What was attached to stay does so, and what others attached is not looked at. With ``force`` what cannot be
    stored, as when the server is gone too, is lost. Raises Unavailable, KernelError.
    """
    require_driver("gc", "network block devices")
    registry = Registry(ownership.KIND)
    detached, held = [], []
    for record, found in list(ownership.records()):
        if record.alive:
            continue
        if found is None:
            registry.remove(record.name)
        elif record.owner is not None:
            try:
                gone = detach(found.number, force=force, timeout_s=1.0, logger=logger, expected=found)
            except (InUse, KernelError) as error:
                told(logger).warning("%s", error)
                held.append(str(error))
                continue
            registry.remove(record.name)
            detached += [found.path] if gone else []
    return Collected(tuple(detached), tuple(held))
