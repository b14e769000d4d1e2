"""The planner's parts one by one: allocation, extents, attributes, inodes, groups."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.errors import NoSpace
from blockwright.fs.ext4.layout import (
    EXTENT_HEADER,
    EXTENT_INDEX,
    EXTENT_LEAF,
    XATTR_ENTRY,
    XATTR_HEADER,
    GroupDescriptor,
    inode_seed,
)
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan_allocate import Allocator
from blockwright.fs.ext4.plan_extents import (
    ExtentRun,
    build_tree,
    count_extents,
    entries_per_block,
    single_extent,
    split,
    tree_blocks,
)
from blockwright.fs.ext4.plan_geometry import (
    PlannedGeometry,
    inodes_per_group,
    last_flex_fits,
    merge_zones,
    place_at_flex_heads,
)
from blockwright.fs.ext4.plan_groups import GroupState, _descriptor
from blockwright.fs.ext4.plan_inode import device_number
from blockwright.fs.ext4.plan_measure import block_runs
from blockwright.fs.ext4.plan_xattr import finish_block, pack_xattrs, stored_acl
from blockwright.fs.ext4.xattr_read import shown_acl
from blockwright.units import GiB
from tests.support.trees import PatternContent, acl

# -- allocation ------------------------------------------------------------------------------------------------


def test_blocks_are_handed_out_around_zones():
    allocator = Allocator([(0, 10), (12, 20), (20, 25), (30, 40)], 5, 42)
    assert allocator.gaps == 3
    assert allocator.remaining() == 2 + 5 + 2
    assert allocator.take(0) == []
    assert allocator.take(1) == [(10, 1)]
    assert allocator.take(4) == [(11, 1), (25, 3)]
    assert allocator.take_one() == 28
    assert allocator.free() == [(29, 30), (40, 42)]
    assert allocator.take(3) == [(29, 1), (40, 2)]
    with pytest.raises(NoSpace):
        allocator.take_one()


def test_nothing_to_hand_out():
    for zones, end in (([(0, 10)], 10), ([], 0)):
        allocator = Allocator(zones, 0, end)
        assert allocator.remaining() == 0
        assert allocator.free() == []
        with pytest.raises(NoSpace):
            allocator.take(1)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=8),
    st.lists(st.integers(0, 20), max_size=20),
)
def test_every_block_once_in_order(steps, asked):
    zones, position = [], 0
    for gap, length in steps:
        zones.append((position + gap, position + gap + length))
        position += gap + length
    end = position + 20
    allocator = Allocator(zones, 0, end)
    taken_by_zones = {block for low, high in zones for block in range(low, high)}
    wanted = [block for block in range(end) if block not in taken_by_zones]
    found = []
    for count in asked:
        if len(found) + count > len(wanted):
            with pytest.raises(NoSpace):
                allocator.take(count)
            return
        for start, length in allocator.take(count):
            found += range(start, start + length)
    assert found == wanted[: len(found)]
    assert allocator.remaining() == len(wanted) - len(found)


# -- extents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extents", "blocks"),
    [
        (0, 0),
        (4, 0),
        (5, 1),
        (340, 1),
        (341, 2),
        (1360, 4),
        (1361, 6),
        (340 * 340 * 4, 4 * 340 + 4),
        (340 * 340 * 4 + 1, 1361 + 5 + 1),
    ],
)
def test_blocks_of_a_tree(extents, blocks):
    assert entries_per_block(4096) == 340
    assert tree_blocks(extents, 4096) == blocks


def test_runs_are_cut_at_the_longest_extent():
    entries = split([ExtentRun(5, (1 << 40) + 7, 70_000)])
    assert [EXTENT_LEAF.unpack(entry) for entry in entries] == [
        (5, 32768, 256, 7),
        (32773, 32768, 256, 32775),
        (65541, 4464, 256, 65543),
    ]
    assert count_extents([(5, 70_000), (0, 1)]) == 4


def read_tree(root: bytes, blocks: dict[int, bytes]) -> list[tuple[int, int, int]]:
    """The (logical, physical, blocks) runs below a header."""
    magic, count, most, depth, _ = EXTENT_HEADER.unpack_from(root)
    assert magic == 0xF30A
    assert count <= most
    found = []
    for index in range(count):
        at = 12 + 12 * index
        if depth:
            logical, low, high, _ = EXTENT_INDEX.unpack_from(root, at)
            below = read_tree(blocks[high << 32 | low], blocks)
            assert below[0][0] == logical
            found += below
        else:
            logical, length, high, low = EXTENT_LEAF.unpack_from(root, at)
            found.append((logical, high << 32 | low, length))
    return found


@pytest.mark.parametrize("count", [0, 1, 4, 5, 84, 85, 336, 337, 84 * 84 * 4 + 1])
def test_trees_hold_their_runs(count):
    runs = [ExtentRun(2 * i, (1 << 33) + 3 * i, 1) for i in range(count)]
    places = [(1 << 34) + 7 * i for i in range(tree_blocks(count, 1024))]
    root, contents = build_tree(split(runs), places, inode_seed(1, 12, 0), 1024)
    assert len(root) == 60
    assert all(len(content) == 1024 for content in contents)
    assert read_tree(root, dict(zip(places, contents, strict=True))) == [tuple(run) for run in runs]


def test_a_single_extent_is_a_tree():
    assert single_extent(1 << 35, 77) == build_tree(split([ExtentRun(0, 1 << 35, 77)]), [], 0, 4096)[0]


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 9000)), max_size=12), st.sampled_from([1024, 4096]))
def test_block_runs_cover_the_data_and_nothing_else(steps, block_size):
    runs, position = [], 0
    for gap, length in steps:
        position += gap + (1 if runs else 0)
        runs.append((position, length))
        position += length
    found = block_runs(PatternContent(position + 5, runs), block_size)
    blocks = [block for first, count in found for block in range(first, first + count)]
    wanted = {byte // block_size for start, length in runs for byte in (start, start + length - 1)}
    wanted |= {
        block for start, length in runs for block in range(start // block_size, (start + length - 1) // block_size)
    }
    assert blocks == sorted(wanted)
    assert all(a + n < b for (a, n), (b, _) in pairwise(found)), "what touches is one run"


# -- attributes ------------------------------------------------------------------------------------------------


def test_attributes_fill_the_inode_first():
    packed = pack_xattrs({b"user.a": b"x" * 72}, 4096)  # 20 + 72 bytes: all there is beside magic and end
    assert packed.block is not None
    packed = pack_xattrs({b"user.a": b"x" * 68}, 4096)
    assert packed.block is None
    assert len(packed.body) == 96
    assert packed.body.endswith(b"x" * 68)
    assert pack_xattrs({}, 4096) == (bytes(96), None)


def test_attribute_blocks_are_sorted_and_hashed():
    value = bytes(100)
    names = [b"user.bb", b"user.a", b"trusted.z", b"security.capability", b"user.ab"]
    packed = pack_xattrs(dict.fromkeys(names, value), 4096)
    assert packed.block is not None
    data = finish_block(packed.block, 3, 77, 5)
    magic, references, blocks, total, checksum = XATTR_HEADER.unpack_from(data)
    assert (magic, references, blocks) == (0xEA020000, 3, 1)
    assert total
    assert checksum
    keys, at = [], 32
    while any(data[at : at + 4]):
        length, kind, offset, inode, size, _ = XATTR_ENTRY.unpack_from(data, at)
        assert (inode, size) == (0, 100)
        assert data[offset : offset + size] == value
        keys.append((kind, length, data[at + 16 : at + 16 + length]))
        at += 16 + (length + 3 & ~3)
    assert keys == sorted(keys)
    assert len(keys) == 5
    assert finish_block(packed.block, 3, 78, 5) != data, "the checksum covers where it lies"


def test_access_control_lists_lose_only_the_ids_of_nobody():
    value = acl((1000, 6), (70_000, 4))
    stored = stored_acl(value)
    assert len(stored) == 4 + 2 * 8 + 4 * 4
    assert struct.unpack_from("<I", stored) == (1,)
    assert shown_acl(stored) == value


# -- inodes and groups -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("major", "minor", "words"),
    [
        (1, 3, (0x0103, 0)),
        (255, 255, (0xFFFF, 0)),
        (256, 0, (0, 0x10000)),
        (8, 256, (0, 0x100800)),
        (4095, 0xFFFFF, (0, 0xFFFFFFFF)),
    ],
)
def test_device_numbers(major, minor, words):
    block = device_number(major, minor)
    assert len(block) == 60
    assert struct.unpack_from("<II", block) == words
    assert not any(block[8:])


@given(st.sampled_from([1024, 2048, 4096]), st.integers(1, 5000), st.integers(1, 1 << 24))
def test_inodes_fill_whole_blocks(block_size, groups, inodes):
    each = inodes_per_group(block_size, groups, inodes)
    assert each % 8 == 0
    assert each * 256 % block_size == 0
    assert each * groups >= inodes
    assert (each - 16) * groups < inodes or each <= 16


@pytest.mark.parametrize("block_size", [1024, 4096])
@pytest.mark.parametrize("rows", [1, 100, 512])
def test_placed_metadata_never_overlaps(block_size, rows):
    blocks = 5 * GiB // block_size + 7777
    geometry = PlannedGeometry(Ext4Options(block_size=block_size).form, blocks, rows * 16, 200)
    assert last_flex_fits(geometry)
    placement = place_at_flex_heads(geometry)
    zones = geometry.base_zones(0, geometry.groups)
    for group in range(geometry.groups):
        table = placement.inode_tables[group]
        zones += [(place, place + 1) for place in (placement.block_bitmaps[group], placement.inode_bitmaps[group])]
        zones.append((table, table + geometry.inode_table_blocks))
    assert merge_zones(sorted(zones)) == placement.zones  # asserts that none overlap
    assert sum(end - start for start, end in placement.zones) + geometry.first_block == geometry.overhead


def test_descriptors_keep_block_numbers_of_more_than_32_bits():
    places = (5 << 32 | 1, 6 << 32 | 2, 7 << 32 | 3)
    state = GroupState(9, 0, 32768, None, *places, 100, 200, 3, 150, 4)
    found = GroupDescriptor.parse(_descriptor(state, 0x12345678, 0x9ABCDEF0))
    assert (found.block_bitmap, found.inode_bitmap, found.inode_table) == places
    assert (found.block_bitmap_checksum, found.inode_bitmap_checksum) == (0x12345678, 0x9ABCDEF0)
    assert (found.free_blocks_count, found.free_inodes_count, found.used_dirs_count) == (100, 200, 3)
    assert (found.itable_unused, found.bg_flags) == (150, 4)
