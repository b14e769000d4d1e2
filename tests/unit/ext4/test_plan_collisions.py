"""Names of one hash that do not fit one leaf: the leaf that goes on with them says so in bit 0 of where it starts."""

import stat
from collections.abc import Sequence

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.fs.ext4 import dirhash, plan_directory, read
from blockwright.fs.ext4.check import check, index
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.plan_directory import DirectoryFormat
from blockwright.tree.node import Directory, File
from blockwright.units import MiB

NAMES = [b"%03d" % number + b"n" * 90 for number in range(100)]


@pytest.mark.parametrize(
    ("hashes", "starts"),
    [
        # Nine records of 104 bytes fit a leaf of 1012.
        ([2] * 20, [0, 3, 3]),
        ([2] * 9 + [4] * 9 + [6], [0, 4, 6]),
        ([2] * 8 + [4] * 10 + [6] * 3, [0, 5, 6]),
        ([2] * 10 + [4] * 8 + [6], [0, 3, 6]),
    ],
)
def test_a_leaf_says_whether_it_goes_on_with_the_hash_before(hashes: list[int], starts: list[int]) -> None:
    fmt = DirectoryFormat(1024, bytes(16))
    records = [plan_directory.pack_entry(12, name, 1) for name in NAMES[: len(hashes)]]
    leaves, found = plan_directory._leaves(fmt, records, range(len(records)), hashes)
    assert found == starts
    assert len(leaves) == len(starts)


def test_names_of_one_hash_are_found_in_every_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(names: Sequence[bytes], *_: object) -> tuple[list[int], list[int]]:
        return [0x1000] * len(names), [0] * len(names)

    monkeypatch.setattr(plan_directory, "hash_names", same)
    monkeypatch.setattr(dirhash, "hash_names", same)
    monkeypatch.setattr(index, "hash_names", same)
    tree = Directory(entries={b"dir": Directory(entries={name: File() for name in NAMES})})
    with open_plan(plan(tree, Ext4Options(size=8 * MiB, block_size=1024, journal=0))) as planned:
        device = MemoryDevice(content=planned.read(0, planned.size))
    assert check(device, now=0) == []
    with read.open(device) as files:
        for name in NAMES:
            assert files.stat(b"/dir/" + name).kind == stat.S_IFREG
