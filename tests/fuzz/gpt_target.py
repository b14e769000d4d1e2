"""Fuzz target: any bytes as a disk with a GUID partition table."""

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError, NoSpace
from blockwright.table.gpt import check, read, repair

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
