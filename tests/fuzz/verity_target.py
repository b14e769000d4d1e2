"""Fuzz target: any bytes as a hash area, with a root hash in front and data behind."""

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError
from blockwright.verity.check import MAX_FINDINGS, check
from blockwright.verity.format import read_area
from blockwright.verity.plan import plan_tree

MAX_BYTES = 1 << 18
ROOT = 64
AREA = 1 << 15


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError out; what is clean has the root hash that was given."""
    root, area, content = data[:ROOT], data[ROOT : ROOT + AREA], data[ROOT + AREA : MAX_BYTES]
    hashes, blocks = MemoryDevice(content=area), MemoryDevice(content=content)
    try:
        found = read_area(hashes)
        assert len(plan_tree(found.parameters).levels) <= 64
        root = root[: found.parameters.digest_size]
        report = check(blocks, hashes, found.parameters, root, start=found.tree_start, threads=1)
    except FormatError:
        return
    if report.clean != (not report.findings) or len(report.findings) > MAX_FINDINGS:
        raise AssertionError("more findings than are told of")
    if report.clean and report.root != root:
        raise AssertionError("clean with another root hash")
