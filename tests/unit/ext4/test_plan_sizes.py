"""How large a planned file system becomes, and what is said when it cannot."""

import gc
import random
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.device.memory import MemoryDevice
from blockwright.errors import NoSpace, UsageError
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.plan_geometry import PlannedGeometry, reserved_descriptor_blocks, super_groups
from blockwright.fs.ext4.plan_sizing import MAX_INODES, Demand, default_journal_blocks, given_geometries
from blockwright.fs.ext4.profiles import TYPES
from blockwright.fs.ext4.stream import StreamPlacer
from blockwright.tree.content import Content
from blockwright.tree.node import Directory, File, Node
from blockwright.units import GiB, KiB, MiB, TiB
from tests.support.trees import PatternContent, trees, wide_tree


def file_of(size: int) -> Directory:
    return Directory(entries={b"f": File(content=PatternContent(size))})


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize("journal", [None, 0])
@pytest.mark.parametrize("size", [0, 1, 100 * KiB, 3 * MiB, 8 * MiB, 33 * MiB, 140 * MiB, 700 * MiB])
def test_an_automatic_size_leaves_no_block_free(block_size, journal, size):
    planned = plan(file_of(size), Ext4Options(block_size=block_size, journal=journal))
    assert planned.summary.free_blocks == 0
    assert planned.summary.free_inodes < planned.geometry.groups * 16
    assert planned.size == planned.summary.blocks * block_size


@given(trees(xattr_budget=900, max_nodes=40), st.sampled_from([2048, 4096]), st.sampled_from([0.1, 0.5, 0.9]))
@settings(max_examples=30)
def test_a_fraction_stays_free_and_hardly_more(tree, block_size, free):
    if not isinstance(tree.entries.get(b"lost+found"), Directory):
        tree.entries.pop(b"lost+found", None)
    summary = plan(tree, Ext4Options(block_size=block_size, free=free)).summary
    usable = summary.blocks - summary.overhead_blocks
    assert summary.free_blocks >= free * usable - 1e-6
    assert summary.free_blocks - 2 < free * usable


@pytest.mark.parametrize("block_size", [1024, 4096])
@pytest.mark.parametrize("size", [0, 300 * KiB, 20 * MiB, 200 * MiB])
def test_one_block_less_than_the_automatic_size_is_too_small(block_size, size):
    tree = file_of(size)
    exact = plan(tree, Ext4Options(block_size=block_size, journal=0))
    inodes = exact.summary.inodes
    same = {"block_size": block_size, "journal": 0, "inodes": 1, "extra_inodes": inodes - 12}
    assert plan(tree, Ext4Options(size=exact.size, **same)).size == exact.size
    with pytest.raises(NoSpace, match=rf"needs {exact.size} bytes with \d+ inodes, given {exact.size - block_size}"):
        plan(tree, Ext4Options(size=exact.size - block_size, **same))


def test_a_given_size_names_what_is_needed():
    with pytest.raises(NoSpace) as caught:
        plan(wide_tree(5000), Ext4Options(size=MiB))
    told = str(caught.value)
    assert "given 1048576 bytes" in told
    needed = int(told.split("needs ")[1].split(" ", maxsplit=1)[0])
    assert plan(wide_tree(5000), Ext4Options(size=needed)).size == needed


@pytest.mark.parametrize("size", [1, 1000, 4096, 9 * 4096])
def test_a_size_that_holds_no_file_system(size):
    with pytest.raises(NoSpace):
        plan(Directory(), Ext4Options(size=size))


def test_a_size_whose_groups_cannot_have_the_inodes_asked_for():
    summary = plan(Directory(), Ext4Options(block_size=1024, size=4 * MiB, inodes=100_000, journal=0)).summary
    assert summary.inodes == 8192, "as many as a bitmap has bits"
    with pytest.raises(NoSpace, match=r"needs \d+ bytes with 9013 inodes, given 4194304 bytes"):
        plan(wide_tree(9001), Ext4Options(block_size=1024, size=4 * MiB, journal=0))


@pytest.mark.parametrize("block_size", [1024, 4096])
@pytest.mark.parametrize("extra", [0, 10_000, 100_000])
def test_the_automatic_size_can_be_given(block_size, extra):
    tree, options = wide_tree(2000), Ext4Options(block_size=block_size, extra_inodes=extra, inodes=1)
    exact = plan(tree, options)
    again = plan(tree, replace(options, size=exact.size))
    assert again.summary.inodes >= 2013 + extra
    assert again.summary.blocks <= exact.summary.blocks


def test_a_stream_into_a_size_that_holds_no_file_system():
    with pytest.raises(NoSpace, match="room for a file system"):
        StreamPlacer(MemoryDevice(8192), Ext4Options(size=8192))


def test_descriptors_larger_than_a_group():
    with pytest.raises(UsageError, match="at most half a group"):
        plan(Directory(), Ext4Options(block_size=1024, size=2 * TiB))


@pytest.mark.parametrize(
    ("blocks", "journal"),
    [(2047, 0), (2048, 1024), (32767, 1024), (32768, 4096), (262_143, 4096), (262_144, 8192), (1 << 30, 262_144)],
)
def test_journals_have_the_sizes_that_mke2fs_gives(blocks, journal):
    assert default_journal_blocks(blocks) == journal


@pytest.mark.parametrize("size", range(6 * MiB, 10 * MiB, 300 * KiB))
def test_an_automatic_journal_follows_the_finished_size(size):
    summary = plan(file_of(size), Ext4Options()).summary
    if summary.journal_blocks:
        assert "has_journal" in summary.features
        assert summary.blocks - summary.journal_blocks >= 2048, "without it, it would be too small for one"
    else:
        assert "has_journal" not in summary.features
        assert summary.blocks < 2048
    assert summary.journal_blocks in (0, 1024)


def test_reserved_blocks():
    assert plan(Directory(), Ext4Options()).summary.reserved_blocks == 0
    assert plan(Directory(), Ext4Options(size=GiB)).summary.reserved_blocks == GiB // 4096 * 5 // 100
    assert plan(Directory(), Ext4Options(size=GiB, reserved_percent=0)).summary.reserved_blocks == 0
    assert plan(Directory(), Ext4Options(reserved_percent=50)).summary.reserved_blocks == 5


@pytest.mark.parametrize(
    ("groups", "wanted"), [(1, [0]), (2, [0, 1]), (8, [0, 1, 3, 5, 7]), (50, [0, 1, 3, 5, 7, 9, 25, 27, 49])]
)
def test_groups_with_a_superblock(groups, wanted):
    assert super_groups(groups) == wanted


def test_the_resize_reserve_is_that_of_mke2fs():
    assert reserved_descriptor_blocks(4096, GiB // 4096) == 127
    assert reserved_descriptor_blocks(4096, TiB // 4096) == 1024
    assert reserved_descriptor_blocks(1024, GiB // 1024) == 256
    assert reserved_descriptor_blocks(4096, 64) == 0
    assert reserved_descriptor_blocks(4096, 12 * TiB // 4096) == 512  # up to 2**32 blocks


def test_more_blocks_than_32_bits_count():
    options = Ext4Options(size=17 * TiB, features=TYPES["ext2"])
    with pytest.raises(UsageError, match="expected at most 4294967295 blocks without 64bit, found 4563402752"):
        plan(Directory(), options)


@given(st.sampled_from([1024, 2048, 4096]), st.integers(10, 1 << 24), st.integers(1, 100))
def test_overhead_is_the_sum_of_its_parts(block_size, blocks, rows):
    geometry = PlannedGeometry(Ext4Options(block_size=block_size).form, blocks, rows * 16, 3)
    zones = geometry.base_zones(0, geometry.groups)
    tables = geometry.groups * (2 + geometry.inode_table_blocks)
    assert geometry.overhead == geometry.first_block + sum(end - start for start, end in zones) + tables


class Sized(Content):
    """A size and nothing in it."""

    def read_into(self, offset, buffer, /):
        raise AssertionError("planning reads nothing")


def measured(tree: Directory, options: Ext4Options) -> int:
    """The most bytes that planning held at once."""
    gc.collect()
    tracemalloc.start()
    try:
        plan(tree, options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_follows_the_inodes():
    rng = random.Random(1)
    folders = [Directory() for _ in range(2500)]
    for index in range(20_000):
        entries = rng.choice(folders).entries
        entries[b"name of a file %d" % index] = File(mtime_ns=index, content=Sized(rng.randrange(20_000)))
    entries: dict[bytes, Node] = {b"%d" % index: folder for index, folder in enumerate(folders)}
    assert measured(Directory(entries=entries), Ext4Options()) < 900 * 22_500


def test_memory_does_not_follow_the_size_of_the_disk():
    small = measured(Directory(), Ext4Options(size=64 * GiB))
    large = measured(Directory(), Ext4Options(size=TiB))
    assert large - small < 64 * 16 * (TiB - 64 * GiB) // (128 * MiB) // 4, "a few bytes beside each descriptor"


def test_a_last_group_without_room_for_files_is_left_out():
    """As mke2fs leaves it out: 50 blocks beside the group's own are the least."""
    groups = {}
    for more in range(1, 700):
        blocks = 1 + 2 * 8192 + more
        first, *others = given_geometries(Demand(11, 20), Ext4Options(block_size=1024, journal=0), blocks)
        whole = others[-1] if others else first
        assert (whole.blocks, whole.groups) == (blocks, 3)
        spare = more - 2 - whole.inode_table_blocks  # group 2 has no backup
        assert (first.groups, first.blocks) == ((2, 1 + 2 * 8192) if spare < 50 else (3, blocks))
        groups[first.groups] = groups.get(first.groups, 0) + 1
    assert set(groups) == {2, 3}


@pytest.mark.parametrize(
    ("blocks", "inodes"), [(16 * TiB // 4096, 0xFFFFFFFF), (17 * TiB // 4096 + 1, 1 << 40), (64 * TiB // 4096, None)]
)
def test_there_are_no_more_inodes_than_32_bits_count(blocks, inodes):
    """Also where every group gets as many, and where the number is rounded up to whole blocks of tables."""
    for geometry in given_geometries(Demand(11, 20), Ext4Options(inodes=inodes), blocks):
        assert 0.99 * MAX_INODES < geometry.inodes <= MAX_INODES
        assert geometry.inodes_per_group * 256 % 4096 == 0


def test_inodes_that_no_size_has_are_refused():
    with pytest.raises(NoSpace, match="expected at most 4292870144 inodes in 131072 groups, found 4294967295"):
        plan(Directory(), Ext4Options(inodes=MAX_INODES))
