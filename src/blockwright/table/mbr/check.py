"""Verifies a master boot record and its chain of logical partitions.

Knows: that every finding of the reader is one. Refuses to know: how to mend what is broken.
"""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.finding import Finding
from blockwright.table.mbr.read import examine


def check(device: BlockDevice, *, sector_size: int | None = None) -> list[Finding]:
    """Return every rule that the device's table breaks; an empty list says it is clean.

    Raises NotThisFormat where the first sector is no boot record; LimitExceeded.
    """
    return examine(device, sector_size=sector_size).findings
