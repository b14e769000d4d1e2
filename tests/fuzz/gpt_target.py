"""Fuzz target: any bytes as a disk with a GUID partition table, and what can be changed of it."""

import zlib
from uuid import UUID

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError, NoSpace, UsageError
from blockwright.table import convert, edit
from blockwright.table import read as tables
from blockwright.table.gaps import Wish
from blockwright.table.gpt import change, check, read, repair
from blockwright.table.gpt.names import TYPES

MAX_BYTES = 1 << 20


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError out: what is read can be written, and what is repaired is clean."""
    device = MemoryDevice(content=data[:MAX_BYTES])
    read.probe(device)
    try:
        check.check(device)
        read.read(device)
        repair.repair(device)
    except (FormatError, NoSpace):
        return
    findings = check.check(device)
    if findings:
        raise AssertionError(f"still broken after a repair: {findings[0]}")
    if zlib.crc32(data) % 8 == 0:  # costs ten times the rest
        _edit(device)


def _edit(device: MemoryDevice) -> None:
    """Change what was read, where it can be: what is written then is read again as what it was to be, and clean."""
    table = read.read(device)
    attempts = [
        lambda: change.add(table, TYPES["swap"], Wish(512, alignment=table.sector_size), guid=UUID(int=1))[0],
        *[lambda number=each.number: change.remove(table, number) for each in table.partitions[:2]],
        *[lambda number=each.number: change.resize(table, number, None) for each in table.partitions[-2:]],
        lambda: convert.to_mbr(table, disk_signature=1),
    ]
    before = device.read(0, device.size)
    for attempt in attempts:
        try:
            made = attempt()
            edit.write(device, made)
        except (UsageError, NoSpace):
            if device.read(0, device.size) != before:
                raise AssertionError("a change that was refused was written") from None
            continue
        if made.partitions and tables.read(device, sector_size=table.sector_size) != made:
            raise AssertionError(f"wrote {made}, read {tables.read(device)}")
        device.write(0, before)
