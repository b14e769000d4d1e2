"""Fuzz target: any bytes as a disk with a master boot record, and what can be changed of it."""

import zlib

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError, NoSpace, NotFound, UsageError
from blockwright.table import convert, edit
from blockwright.table import read as tables
from blockwright.table.gaps import Wish
from blockwright.table.mbr import change, check, read
from blockwright.table.partition import MbrTable

MAX_BYTES = 1 << 20


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError out; what is read lies on the disk and apart, and nothing is wrong with it."""
    device = MemoryDevice(content=data[:MAX_BYTES])
    read.probe(device)
    tables.probe(device)
    try:
        findings = check.check(device)
        table = read.read(device)
    except FormatError:
        return
    if findings:
        raise AssertionError(f"read in spite of {findings[0]}")
    end = 0
    for each in sorted(table.partitions, key=lambda partition: partition.start):
        if not end <= each.start < each.end <= device.size:
            raise AssertionError(f"partition {each.number} lies at {each.start} to {each.end}, after {end}")
        end = each.end
    if zlib.crc32(data) % 4 == 0:  # costs some times the rest
        _edit(device, table)


def _edit(device: MemoryDevice, table: MbrTable) -> None:
    """Change what was read, where it can be: what is written then is read again as what it was to be."""
    attempts = [
        lambda: change.add(table, 0x83, Wish(512, alignment=512))[0],
        lambda: change.add(table, 0x83, Wish(alignment=512), logical=True)[0],
        *[lambda number=each.number: change.remove(table, number) for each in table.partitions[:3]],
        *[lambda number=each.number: change.resize(table, number, None) for each in table.partitions[-2:]],
        lambda: convert.to_gpt(table, seed=b""),
    ]
    before = device.read(0, device.size)
    for attempt in attempts:
        try:
            made = attempt()
            edit.write(device, made)
        except (UsageError, NotFound, NoSpace):
            if device.read(0, device.size) != before:
                raise AssertionError("a change that was refused was written") from None
            continue
        if made.partitions and tables.read(device) != made:
            raise AssertionError(f"wrote {made}, read {tables.read(device)}")
        device.write(0, before)
