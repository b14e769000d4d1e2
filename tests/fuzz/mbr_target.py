"""Fuzz target: any bytes as a disk with a master boot record."""

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError
from blockwright.table import read as tables
from blockwright.table.mbr import check, read

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
