"""Whether two disks hold the same, whatever their formats.

Knows: what a difference in size means. Refuses to know: how bytes are compared (``device.compare``).
"""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.device.compare import compare as first_difference
from blockwright.device.concat import Concat
from blockwright.device.forwarding import ForwardingDevice


def compare(first: BlockDevice, second: BlockDevice, *, strict: bool = False) -> int | None:
    """Return the first byte at which the disks differ, None where they hold the same.

    Unless ``strict``, a disk goes on with zeros behind its end: formats round sizes up. The devices stay open.
    """
    if strict or first.size == second.size:
        return first_difference(first, second)
    size = max(first.size, second.size)
    return first_difference(_padded(first, size), _padded(second, size))


def _padded(device: BlockDevice, size: int) -> BlockDevice:
    if device.size == size:
        return device
    return Concat([(0, ForwardingDevice(device, owns=False))], size)
