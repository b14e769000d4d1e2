"""Metadata of thin pools: sizes, superblocks, nodes, and the tree of devices, sound and hostile."""

import struct
import time

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, LimitExceeded, NotFound, NotThisFormat, Unsupported, UsageError
from blockwright.system.linux.thin import Details, Metadata, layout, metadata_size
from blockwright.system.linux.thin.layout import BLOCK, DETAILS, MAX_DEPTH
from blockwright.units import GiB, KiB, MiB, TiB
from tests.support.thinpools import BLOCKS, mappings, metadata, node, sealed, superblock, tree


def opened(blocks, **values):
    return Metadata(MemoryDevice(content=metadata(blocks, **values)))


@pytest.mark.parametrize(
    ("data", "block", "expected"),
    [
        (64 * KiB, 64 * KiB, 2 * MiB),
        (2 * GiB, 64 * KiB, 2 * MiB),  # 48 * 32768 is less
        (4 * GiB, 64 * KiB, 48 * 65536),
        (TiB, 64 * KiB, 48 * TiB // (64 * KiB)),
        (TiB + 1, 128 * KiB, 48 * TiB // (128 * KiB) + 4 * KiB),  # a part of a block is one, and so of metadata
        (64 * TiB, 64 * KiB, 255 * 16320 * 4096),  # no more than is used
        (64 * TiB, GiB, 48 * 65536),
    ],
)
def test_metadata_size_is_the_kernels_formula(data, block, expected):
    assert metadata_size(data, block) == expected


@pytest.mark.parametrize("block", [0, 32 * KiB, 65 * KiB, 64 * KiB + 512, GiB + 64 * KiB, -64 * KiB])
def test_block_sizes_that_no_pool_has(block):
    with pytest.raises(UsageError, match="expected a multiple of 64 KiB up to 1 GiB"):
        metadata_size(TiB, block)


def test_data_of_less_than_a_block():
    with pytest.raises(UsageError, match="expected a block of 65536 bytes or more"):
        metadata_size(64 * KiB - 1, 64 * KiB)


def test_a_superblock_is_read():
    found = opened({1: node(1, [], [])}, flags=1, time=7, held_root=9, uuid=b"u" * 16).superblock
    assert (found.transaction, found.time, found.held_root, found.uuid) == (5, 7, 9, b"u" * 16)
    assert (found.data_block, found.metadata_blocks, found.needs_check) == (64 * KiB, BLOCKS, True)
    assert (found.data.blocks, found.data.used_blocks, found.metadata.blocks) == (64, 3, 0)


def test_a_blank_device_is_no_pool():
    with pytest.raises(NotThisFormat, match="expected magic 27022010, found 0"):
        Metadata(MemoryDevice(content=bytes(MiB)))
    with pytest.raises(NotThisFormat, match="expected 4096 bytes"):
        Metadata(MemoryDevice(content=superblock()[:-1]))


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"block": 3}, Corrupt, "expected that of block 0, found 3"),
        ({"version": 3}, Unsupported, "version 1 or 2, found 3"),
        ({"incompatible": 2}, Unsupported, "incompatible features, found 0x2"),
        ({"metadata_block_sectors": 16}, Unsupported, "metadata blocks of 4096 bytes, found 8192"),
        ({"data_block_sectors": 0}, Corrupt, "expected a multiple of 64 KiB"),
        ({"data_block_sectors": 129}, Corrupt, "expected a multiple of 64 KiB"),
        ({"data_block_sectors": 0xFFFFFF80}, Corrupt, "expected a multiple of 64 KiB"),
        ({"metadata_blocks": 1}, Corrupt, "expected 2 to 4161600 blocks"),
        ({"metadata_blocks": 4161601}, Corrupt, "expected 2 to 4161600 blocks"),
        ({"details_root": 0}, Corrupt, "details root: expected a block from 1 to 511, found 0"),
        ({"details_root": BLOCKS}, Corrupt, "details root: expected a block from 1 to 511, found 512"),
        ({"held_root": BLOCKS}, Corrupt, "held root: expected a block from 0 to 511, found 512"),
    ],
)
def test_superblocks_that_are_refused(values, kind, message):
    with pytest.raises(kind, match=message):
        layout.parse_superblock(superblock(**values))


@pytest.mark.parametrize("at", [0, 4, 60, 100, 348, 4095])
def test_any_other_byte_is_another_checksum(at):
    data = bytearray(superblock())
    data[at] ^= 1
    with pytest.raises(Corrupt, match="superblock: expected checksum"):
        layout.parse_superblock(data)


@pytest.mark.parametrize(("count", "fan"), [(0, 3), (1, 3), (3, 3), (4, 3), (200, 3), (7, 126)])
def test_all_devices_are_found_in_order(count, fan):
    wanted = [Details(7 * each, each, 2 * each, 3 * each, 4 * each) for each in range(count)]
    root, nodes = tree(wanted, fan=fan)
    assert list(opened(nodes, details_root=root).devices()) == wanted


def test_the_largest_identity_and_no_larger():
    root, nodes = tree([Details(layout.MAX_IDENTITY, 1, 0, 0, 0)])
    assert [each.identity for each in opened(nodes, details_root=root).devices()] == [(1 << 24) - 1]
    root, nodes = tree([Details(layout.MAX_IDENTITY + 1, 1, 0, 0, 0)])
    with pytest.raises(Corrupt, match="expected keys from 0 to 16777215, found 16777216"):
        list(opened(nodes, details_root=root).devices())


def test_a_snapshot_is_read_apart():
    root, nodes = tree([Details(1, 0, 0, 0, 0)])
    old, more = tree([Details(2, 0, 0, 0, 0)], first=20)
    nodes |= more | {30: superblock(block=30, details_root=old, transaction=4)}
    now = opened(nodes, details_root=root, held_root=30)
    then = now.snapshot()
    assert (now.superblock.transaction, then.superblock.transaction) == (5, 4)
    assert [each.identity for each in now.devices()] == [1]
    assert [each.identity for each in then.devices()] == [2]
    with pytest.raises(NotFound, match="no metadata snapshot is reserved"):
        then.snapshot()


def test_a_snapshot_that_is_none():
    with pytest.raises(Corrupt, match="expected magic"):
        opened({}, held_root=30).snapshot()
    with pytest.raises(Corrupt, match="expected 126976 bytes"):
        Metadata(MemoryDevice(content=superblock(held_root=30))).snapshot()
    with pytest.raises(Corrupt, match="expected that of block 30, found 0"):
        opened({30: superblock()}, held_root=30).snapshot()


VALUE = DETAILS.pack(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({1: node(2, [], [])}, "node: expected that of block 1, found 2"),
        ({1: bytes(BLOCK)}, "node: expected checksum"),
        ({1: sealed(node(1, [], []), layout.SUPERBLOCK_SALT)}, "node: expected checksum"),
        ({1: node(1, [], [], flags=3)}, "expected one of flags 1 and 2, found 0x3"),
        ({1: node(1, [], [], flags=0)}, "expected one of flags 1 and 2, found 0x0"),
        ({1: node(1, [], [], value_size=8)}, "expected values of 24 bytes, found 8"),
        ({1: node(1, [], [], max_entries=128)}, "expected 127 entries or fewer, found 0 of 128"),
        ({1: node(1, [1, 2], [VALUE] * 2, max_entries=1)}, "expected 127 entries or fewer, found 2 of 1"),
        ({1: node(1, [2, 1], [VALUE] * 2)}, "expected keys that ascend"),
        ({1: node(1, [1, 1], [VALUE] * 2)}, "expected keys that ascend"),
        ({1: node(1, [], [], leaf=False)}, "expected entries, found none"),
        ({1: node(1, [0], [BLOCKS], leaf=False)}, "expected a block from 1 to 511, found 512"),
        ({1: node(1, [0], [0], leaf=False)}, "expected a block from 1 to 511, found 0"),
        ({1: node(1, [0, 5], [3, 4], leaf=False), 3: node(3, [0, 5], [VALUE] * 2)}, "keys from 0 to 4, found 0 to 5"),
        ({1: node(1, [2], [3], leaf=False), 3: node(3, [1], [VALUE])}, "expected keys from 2 to 16777215, found 1"),
        ({1: node(1, [2], [3], leaf=False), 3: node(3, [], [])}, "expected entries, found none"),
        ({1: node(1, [0, 5], [3, 3], leaf=False), 3: node(3, [0], [VALUE])}, "expected keys from 5"),
    ],
)
def test_trees_that_are_refused(blocks, message):
    with pytest.raises(Corrupt, match=message):
        list(opened(blocks).devices())


def test_the_end_of_what_is_mapped():
    root, nodes = mappings({3: [0, 9], 5: [], 7: [2]}, first=10)
    found = opened(nodes, mapping_root=root)
    ends = {each: found.mapped_end(each) for each in (0, 3, 4, 5, 7, 8)}
    assert ends == {0: 0, 3: 10 * 64 * KiB, 4: 0, 5: 0, 7: 3 * 64 * KiB, 8: 0}


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({2: node(2, [0], [2], leaf=False)}, "a tree of 16 levels or fewer"),
        ({2: node(2, [], [], leaf=False)}, "expected entries, found none"),
        ({2: node(2, [1], [(600).to_bytes(8, "little")], width=8)}, "expected a block from 1 to 511, found 600"),
        ({2: node(2, [1], [VALUE])}, "expected values of 8 bytes, found 24"),
    ],
)
def test_mappings_that_are_refused(blocks, message):
    with pytest.raises((Corrupt, LimitExceeded), match=message):
        opened(blocks).mapped_end(1)


def test_a_circle_ends():
    with pytest.raises(LimitExceeded, match=f"a tree of {MAX_DEPTH} levels or fewer"):
        list(opened({1: node(1, [0], [1], leaf=False)}).devices())


def test_a_wide_circle_ends_soon():
    blocks = {at: node(at, list(range(250)), [at % 10 + 1] * 250, leaf=False) for at in range(1, 11)}
    started = time.monotonic()
    with pytest.raises(Corrupt, match="expected keys from 0 to 0, found 0 to 249"):
        list(opened(blocks).devices())
    assert time.monotonic() - started < 60


def test_a_copy_that_was_cut_short():
    root, nodes = tree([Details(each, 0, 0, 0, 0) for each in range(20)])
    with pytest.raises(Corrupt, match="expected a block from 1 to"):
        list(Metadata(MemoryDevice(content=metadata(nodes, details_root=root)[: root * BLOCK])).devices())


def test_the_checksum_is_crc32c_without_its_last_step():
    # The check value of CRC-32C is 0xE3069283; a sum is kept before it is inverted.
    assert layout.checksum(bytes(4) + b"123456789", 0) == 0xE3069283 ^ 0xFFFFFFFF
    assert layout.checksum(bytes(4) + b"123456789", 160774) == 0xE3069283 ^ 0xFFFFFFFF ^ 160774
    assert struct.calcsize("<QQII") == DETAILS.size
