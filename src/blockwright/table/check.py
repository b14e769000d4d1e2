"""Verifies a disk's partition table, of whichever kind it has.

Knows: which verifier fits. Refuses to know: any rule.
"""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.finding import Finding
from blockwright.table.gpt.check import check as check_gpt
from blockwright.table.mbr.check import check as check_mbr
from blockwright.table.read import is_mbr


def check(device: BlockDevice, *, sector_size: int | None = None) -> list[Finding]:
    """Return every rule that the device's table breaks; an empty list says it is clean.

    ``sector_size`` as ``table.read.read`` has it. Raises NotThisFormat without a table; LimitExceeded.
    """
    if is_mbr(device, sector_size=sector_size):
        return check_mbr(device, sector_size=sector_size)
    return check_gpt(device)
