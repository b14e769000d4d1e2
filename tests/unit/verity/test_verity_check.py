"""Damage is found and told apart: data, tree, root hash, and what nothing proves any more."""

import random

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt
from blockwright.finding import Finding
from blockwright.verity.check import MAX_FINDINGS, check
from blockwright.verity.format import write_area
from blockwright.verity.layout import Parameters
from blockwright.verity.plan import plan_tree

PARAMETERS = Parameters(300, "sha1", b"salt", 1024, 512)  # 16 digests to a block: levels of 19, 2 and 1
START = 1024


def made(parameters=PARAMETERS):
    data = MemoryDevice(content=random.Random(0).randbytes(parameters.data_size))
    hashes = MemoryDevice(START + plan_tree(parameters).size)
    return data, hashes, write_area(data, hashes, parameters, hash_offset=START)


def flip(device, offset):
    device.write(offset, bytes([device.read(offset, 1)[0] ^ 0x10]))


def rules(report):
    return [(each.rule, each.offset, each.repairable) for each in report.findings]


def test_what_is_whole_is_clean():
    data, hashes, root = made()
    report = check(data, hashes, PARAMETERS, root, start=START)
    assert report.clean
    assert (report.root, report.cut) == (root, False)


@pytest.mark.parametrize("block", [0, 1, 15, 16, 255, 256, 299])
def test_a_flipped_bit_of_data_is_named(block):
    data, hashes, root = made()
    flip(data, block * 1024 + 777)
    report = check(data, hashes, PARAMETERS, root, start=START)
    assert rules(report) == [("verity.data", block * 1024, False)]
    assert report.findings[0].message.startswith(f"data block {block}: expected the digest ")
    assert report.root != root


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_flipped_bit_of_the_tree_is_damage_of_the_tree_alone(level):
    data, hashes, root = made()
    last = plan_tree(PARAMETERS).levels[level].start + (plan_tree(PARAMETERS).levels[level].blocks - 1) * 512
    flip(hashes, START + last + 500)
    report = check(data, hashes, PARAMETERS, root, start=START)
    assert rules(report) == [("verity.tree", START + last, True)]
    assert report.root == root


def test_every_bit_counts_where_blocks_are_padded():
    data, hashes, root = made()
    level = plan_tree(PARAMETERS).levels[0]
    flip(hashes, START + level.start + 31)  # behind the 20 bytes of a digest
    flip(hashes, START + level.start + level.blocks * 512 - 1)  # behind the last digest of all
    assert len(check(data, hashes, PARAMETERS, root, start=START).findings) == 2


def test_data_below_a_damaged_block_is_not_called_either():
    data, hashes, root = made()
    leaf = START + plan_tree(PARAMETERS).levels[0].start + 2 * 512
    flip(hashes, leaf)
    flip(data, 33 * 1024)
    flip(data, 200 * 1024)
    report = check(data, hashes, PARAMETERS, root, start=START)
    assert rules(report) == [
        ("verity.tree", leaf, False),
        ("verity.unproven", 32 * 1024, False),
        ("verity.data", 200 * 1024, False),
    ]
    assert "data blocks 32 to 47 " in report.findings[1].message


def test_a_damaged_block_of_level_1_hides_its_part():
    data, hashes, root = made()
    flip(hashes, START + 512)
    flip(data, 0)
    flip(data, 299 * 1024)
    found = check(data, hashes, PARAMETERS, root, start=START)
    assert rules(found) == [
        ("verity.tree", START + 512, False),
        ("verity.unproven", 0, False),
        ("verity.data", 299 * 1024, False),
    ]
    assert "data blocks 0 to 255 " in found.findings[1].message


def test_another_root_hash_is_told_as_that():
    data, hashes, root = made()
    report = check(data, hashes, PARAMETERS, bytes(20), start=START)
    assert report.findings == (
        Finding(
            "verity.root", f"expected {bytes(20).hex()}, found {root.hex()}: data and tree agree on another root hash"
        ),
    )


def test_data_of_one_block():
    parameters = Parameters(1, "sha1", b"", 1024, 512)
    data, hashes, root = made(parameters)
    assert check(data, hashes, parameters, root, start=START).clean
    flip(data, 5)
    assert [each.rule for each in check(data, hashes, parameters, root, start=START).findings] == ["verity.root"]


def test_zeros_where_there_was_data_and_data_where_there_were_zeros():
    data, hashes, root = made()
    data.zero(0, 65536)
    report = check(data, hashes, PARAMETERS, root, start=START)
    assert [each.offset for each in report.findings] == [number * 1024 for number in range(64)]
    empty = MemoryDevice(PARAMETERS.data_size)
    root = write_area(empty, hashes, PARAMETERS, hash_offset=START)
    empty.write(70_000, b"x")
    assert rules(check(empty, hashes, PARAMETERS, root, start=START)) == [
        ("verity.data", 70_000 // 1024 * 1024, False)
    ]


def test_findings_are_told_up_to_a_limit():
    data, hashes, root = made()
    for block in range(200):
        flip(data, block * 1024)
    report = check(data, hashes, PARAMETERS, root, start=START)
    assert len(report.findings) == MAX_FINDINGS
    assert report.cut


def test_devices_that_are_too_small():
    data, hashes, root = made()
    with pytest.raises(Corrupt, match="data device: expected at least 307200 bytes"):
        check(MemoryDevice(1024), hashes, PARAMETERS, root, start=START)
    with pytest.raises(Corrupt, match="hash device: expected at least"):
        check(data, hashes, PARAMETERS, root, start=START + 512)
