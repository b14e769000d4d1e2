"""Mends a GUID partition table from its other copy.

Knows: which damage one whole copy can mend. Refuses to know: partitions that overlap or leave the disk, where no
copy says what was meant.
"""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt
from blockwright.finding import Finding
from blockwright.table.gpt.check import check
from blockwright.table.gpt.edit import fit, write
from blockwright.table.gpt.read import SPEC, load


def repair(device: BlockDevice, *, sector_size: int | None = None) -> list[Finding]:
    """Write both copies and the protective MBR anew from the copy that is valid; return what was wrong before.

    The primary rules where both are valid and differ. The backup moves to the end of the disk. Nothing is written
    to a clean table. Raises Corrupt where nothing that is found can be mended this way (no valid copy, overlapping
    partitions); ReadOnly; NoSpace where a shrunk disk cuts a partition.
    """
    found = check(device, sector_size=sector_size)
    if not found:
        return []
    stuck = [each for each in found if not each.repairable]
    if stuck:
        raise Corrupt(f"gpt: cannot be mended from a copy: {stuck[0].message}", offset=stuck[0].offset, spec=SPEC)
    reading = load(device, sector_size=sector_size)
    table = fit(reading.table, device.size)
    write(device, table, primary_first=reading.source == "backup")
    return found
