"""What is wrong with the structures of a VDI image, with the byte where it is.

Knows: the rules between map, count and file. Refuses to know: how they are mended.
"""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.finding import Finding
from blockwright.format.blocks import cut_off
from blockwright.format.vdi.device import read_header, read_table
from blockwright.format.vdi.layout import ZERO
from blockwright.units import ceil_div

LEAK = "vdi.leak"
MAX_FINDINGS = 1000


def check(file: BlockDevice) -> list[Finding]:
    """Return what is wrong, at most MAX_FINDINGS of it. Raises FormatError for a header that cannot be used."""
    header = read_header(file)
    table = read_table(file, header)
    room = max(0, ceil_div(file.size - header.data_offset, header.block_size))
    found: list[Finding] = []
    seen: dict[int, int] = {}
    for index, entry in enumerate(table):
        if entry >= ZERO:
            continue
        at = header.map_offset + 4 * index
        if entry >= room:
            message = f"block {index}: expected one of the {room} blocks in the file, found {entry}"
            found.append(Finding("vdi.block.range", message, at))
        elif entry in seen:
            message = f"block {index}: expected a place of its own, found that of block {seen[entry]}"
            found.append(Finding("vdi.block.overlap", message, at))
        else:
            seen[entry] = index
        if len(found) >= MAX_FINDINGS:
            return found
    starts = ((index, header.data_offset + entry * header.block_size) for entry, index in seen.items())
    for index, message in cut_off(starts, header.block_size, header.disk_size, file.size):
        found.append(Finding("vdi.block.cut", message, header.map_offset + 4 * index))
    used = max(seen, default=-1) + 1
    if header.allocated < used:
        message = f"blocks allocated: expected at least {used} as the map uses them, found {header.allocated}"
        found.append(Finding("vdi.allocated", message, 0x184))
    elif header.allocated > len(seen):
        message = f"blocks allocated: expected {len(seen)} as the map uses them, found {header.allocated}"
        found.append(Finding(LEAK, message, 0x184))
    return found
