"""A plan is a function of the tree and the options, and reads back as the tree."""

import hashlib
import random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.device.extent import HOLE, ZERO
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.read import open as open_ext4
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Node
from blockwright.units import MiB, TiB
from tests.support.everything import everything
from tests.support.trees import shuffled, trees


def digest(tree: Directory, options: Ext4Options) -> str:
    """All bytes that are not holes, with where they lie."""
    found = hashlib.sha256()
    with open_plan(plan(tree, options)) as device:
        for extent in device.extents():
            found.update(b"%d %d %d\n" % extent)
            if not extent.flags:
                found.update(device.read(extent.offset, extent.length))
    return found.hexdigest()


def without_lost_and_found(tree: Directory) -> Directory:
    if not isinstance(tree.entries.get(b"lost+found"), Directory):
        tree.entries.pop(b"lost+found", None)
    return tree


@given(st.data())
def test_reading_gives_the_tree_back(data):
    block_size = data.draw(st.sampled_from([1024, 2048, 4096]))
    tree = without_lost_and_found(data.draw(trees(block_size=block_size, xattr_budget=block_size - 200)))
    options = Ext4Options(block_size=block_size, size=data.draw(st.sampled_from([None, 200 * MiB])))
    with open_ext4(open_plan(plan(tree, options))) as system:
        found = system.tree()
        if b"lost+found" not in tree.entries:
            del found.entries[b"lost+found"]
        assert [str(one) for one in compare_trees(tree, found, contents=True)] == []


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_every_backup_opens_what_was_written(block_size):
    """Each superblock but the first says which group it lies in, and all of them and their descriptors the same."""
    options = Ext4Options(block_size=block_size, size=10 * 8 * block_size**2, lost_found=False)
    tree = Directory(entries={b"d": Directory(entries={b"f": File(content=BytesContent(b"x" * 9000))})})
    planned = plan(tree, options)
    with open_ext4(open_plan(planned)) as system:
        primary, groups = system.volume.superblock, range(planned.geometry.groups)
        descriptors = [system.volume.raw_descriptor(group) for group in groups]
    opened = []
    for group in groups:
        if group in (1, 3, 5, 7, 9):
            block = planned.geometry.group_start(group)
            with open_ext4(open_plan(planned), superblock=block) as system:
                found = system.volume.superblock
                assert found.replace(s_block_group_nr=0, s_checksum=primary.s_checksum).pack() == primary.pack()
                assert [system.volume.raw_descriptor(group) for group in groups] == descriptors
                assert compare_trees(tree, system.tree(), contents=True) == []
            opened.append(found.s_block_group_nr)
    assert opened == [1, 3, 5, 7, 9]


def test_the_superblock_has_a_copy_of_where_the_journal_lies():
    with open_ext4(open_plan(plan(Directory(), Ext4Options(size=64 * MiB)))) as system:
        superblock, inode = system.volume.superblock, system.volume.inode(8)
    assert superblock.s_jnl_backup_type == 1
    assert superblock.s_jnl_blocks == inode.block + bytes(4) + inode.size.to_bytes(4, "little")
    assert inode.size == 4 * MiB


@given(trees(sparse=False), st.randoms(use_true_random=False))
def test_the_order_of_entries_makes_no_difference(tree, rng):
    tree = without_lost_and_found(tree)
    assert digest(tree, Ext4Options()) == digest(shuffled(tree, rng), Ext4Options())


def test_the_same_tree_gives_the_same_bytes():
    options = Ext4Options(seed=b"same", size=300 * MiB)
    assert digest(everything(), options) == digest(everything(), options)
    assert digest(everything(), options) == digest(shuffled(everything(), random.Random(1)), options)
    assert digest(everything(), options) != digest(everything(), Ext4Options(seed=b"other", size=300 * MiB))


def test_a_tree_is_left_as_it_was():
    tree = everything()
    names = list(tree.entries)
    plan(tree, Ext4Options())
    assert list(tree.entries) == names
    assert compare_trees(tree, everything()) == []


def test_identities():
    seeded = plan(Directory(), Ext4Options(seed=b"a")).summary
    other = plan(Directory(), Ext4Options(seed=b"b")).summary
    assert seeded.uuid != other.uuid
    assert seeded.hash_seed not in (other.hash_seed, seeded.uuid)
    uuid = UUID(int=5)
    given_one = plan(Directory(), Ext4Options(seed=b"a", uuid=uuid)).summary
    assert given_one.uuid == str(uuid)
    assert given_one.hash_seed == seeded.hash_seed


@pytest.mark.parametrize(
    ("newest", "asked", "wanted"), [(7, None, 7), (7, 3, 3), (-5, None, 0), (1 << 33, None, 1 << 33)]
)
def test_superblock_times_are_the_newest_of_the_tree(newest, asked, wanted):
    second = 10**9
    tree = Directory(
        mtime_ns=-10 * second, entries={b"f": File(mtime_ns=newest * second + 5), b"g": File(mtime_ns=-second * 6)}
    )
    options = Ext4Options(time_ns=None if asked is None else asked * second)
    planned = plan(tree, options)
    assert planned.summary.time_s == wanted
    with open_ext4(open_plan(planned)) as system:
        assert system.stat(b"lost+found").mtime_ns // second == (newest if asked is None else asked)


def test_holes_are_told():
    with open_plan(plan(everything(), Ext4Options(size=TiB))) as device:
        extents = list(device.extents())
    data = sum(extent.length for extent in extents if not extent.flags)
    assert data < 40 * MiB
    assert {extent.flags for extent in extents} == {0, HOLE | ZERO}


def test_bodies_lie_in_the_order_of_the_walk_and_touch():
    entries: dict[bytes, Node] = {b"%03d" % i: File(content=BytesContent(b"x" * 100 * i)) for i in range(1, 200)}
    planned = plan(Directory(entries=entries), Ext4Options())
    table = planned.segments()
    places = {id(source): start for start, source in zip(table.starts, table.sources, strict=True)}
    position = None
    for name in sorted(entries):
        node = entries[name]
        assert isinstance(node, File)
        start = places[id(node.content)]
        assert position is None or start == position
        position = start + -(-node.content.size // 4096) * 4096


def test_without_lost_and_found():
    with open_ext4(open_plan(plan(Directory(), Ext4Options(lost_found=False)))) as system:
        assert system.tree().entries == {}
