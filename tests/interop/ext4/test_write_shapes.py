"""What we write is clean to e2fsck, in every shape a tree and a size can have."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.layout import Compat
from blockwright.fs.ext4.options import DEFAULT_FEATURES, Ext4Options, Features
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.read import open as open_ext4
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.node import Directory, File, Node
from blockwright.units import GiB, KiB, MiB, TiB
from tests.support.everything import everything
from tests.support.ext4 import dumpe2fs, e2fsck, write_plan
from tests.support.tools import run, tool
from tests.support.trees import PatternContent, trees

BLOCK_SIZES = (1024, 2048, 4096)


def sound(tree: Directory, options: Ext4Options, path: Path, *, contents: bool = True) -> str:
    """Write `tree`; e2fsck finds nothing, and reading it again gives the same tree."""
    planned = plan(tree, options)
    write_plan(planned, path)
    shown = e2fsck(path)
    with open_ext4(open_plan(planned)) as system:
        found = system.tree()
        if b"lost+found" not in tree.entries:
            del found.entries[b"lost+found"]
        assert not [str(difference) for difference in compare_trees(tree, found, contents=contents)]
    path.unlink()
    return shown


def fitting(block_size: int) -> Directory:
    """A tree of everything that blocks of this size can hold."""
    tree = everything()
    if block_size < 4096:
        del tree.entries[b"longest link"]
        del tree.entries[b"attributes"]
    return tree


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("size", [None, 64 * MiB, 3 * GiB + 12345])
def test_everything(tmp_path, block_size, size):
    options = Ext4Options(block_size=block_size, size=size, seed=b"everything", label="everything")
    sound(fitting(block_size), options, tmp_path / "image")


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree(tmp_path, data):
    block_size = data.draw(st.sampled_from(BLOCK_SIZES))
    tree = data.draw(trees(block_size=block_size, xattr_budget=block_size - 200))
    if not isinstance(tree.entries.get(b"lost+found"), Directory):
        tree.entries.pop(b"lost+found", None)
    options = Ext4Options(
        block_size=block_size,
        size=data.draw(st.sampled_from([None, None, 256 * MiB])),
        free=data.draw(st.sampled_from([0, 0, 0.2])),
        journal=data.draw(st.sampled_from([None, 0])),
        extra_inodes=data.draw(st.sampled_from([0, 7])),
    )
    sound(tree, options, tmp_path / "image")


def names_of(count: int, length: int) -> Directory:
    files: dict[bytes, Node] = {(b"%07d" % i).rjust(length, b"n"): File() for i in range(count)}
    return Directory(entries={b"d": Directory(entries=files)})


# 1 KiB: 123 leaves below the root, 126 below each node; a leaf holds 3 names of 255 bytes, 42 of 16 bytes.
@pytest.mark.parametrize(
    ("block_size", "count", "length", "levels"),
    [
        (1024, 41, 16, None),
        (1024, 42, 16, 0),
        (1024, 369, 255, 0),
        (1024, 370, 255, 1),
        (1024, 1200, 255, 1),
        (1024, 9000, 16, 1),
        (2048, 3000, 255, 1),
        (4096, 40_000, 12, 0),
        (4096, 9000, 255, 1),
    ],
)
def test_hash_trees(tmp_path, block_size, count, length, levels):
    tree, path = names_of(count, length), tmp_path / "image"
    write_plan(plan(tree, Ext4Options(block_size=block_size, seed=b"hash")), path)
    e2fsck(path)
    shown = run([tool("debugfs"), "-R", "htree_dump /d", path])
    dumped = shown.stdout + shown.stderr
    if levels is None:
        assert "Not a hash-indexed directory" in dumped
    else:
        assert f"Indirect levels: {levels}" in dumped
    listed = run([tool("debugfs"), "-R", "ls -p /d", path]).stdout
    assert sum(line.startswith("/") and not line.startswith("/0/") for line in listed.splitlines()) == count + 2
    sound(tree, Ext4Options(block_size=block_size, seed=b"hash"), path)


def test_names_of_bytes_above_127_hash_as_signed_ones(tmp_path):
    rng = random.Random(1)
    names = {bytes(rng.choice(range(128, 256)) for _ in range(rng.randrange(1, 100))): File() for _ in range(2000)}
    sound(Directory(entries={b"d": Directory(entries=dict(names))}), Ext4Options(block_size=1024), tmp_path / "image")


# 4 in the inode; 340 and 84 in a leaf; 4 leaves before there is an index block.
@pytest.mark.parametrize(("block_size", "entries"), [(4096, 340), (1024, 84)])
@pytest.mark.parametrize("many", ["inode", "leaf", "leaves", "index"])
def test_extents_of_every_depth(tmp_path, block_size, entries, many):
    around = {"inode": 4, "leaf": entries, "leaves": 2 * entries, "index": 4 * entries}[many]
    files: dict[bytes, Node] = {}
    for count in (around - 1, around, around + 1):
        runs = [(2 * block_size * i, block_size) for i in range(count)]
        files[b"%d" % count] = File(content=PatternContent(2 * block_size * count, runs, count))
    sound(Directory(entries=files), Ext4Options(block_size=block_size), tmp_path / "image")


class Dots(Content):
    """A byte in every other block of 1 KiB."""

    def runs(self):
        return [(start, 1) for start in range(0, self.size, 2 * KiB)]

    def read_into(self, offset, buffer, /):
        buffer[:] = bytes(len(buffer))
        for start in range(-offset % (2 * KiB), len(buffer), 2 * KiB):
            buffer[start] = 7


def test_extents_two_levels_below_the_inode(tmp_path):
    tree = Directory(entries={b"deep": File(content=Dots(2 * KiB * (84 * 84 * 4 + 1)))})
    path = tmp_path / "image"
    write_plan(plan(tree, Ext4Options(block_size=1024)), path)
    e2fsck(path)
    dumped = run([tool("debugfs"), "-R", "dump_extents /deep", path]).stdout
    assert " 0/ 3" in dumped
    sound(tree, Ext4Options(block_size=1024), path)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_runs_that_begin_and_end_within_blocks(tmp_path, block_size):
    b = block_size
    runs = [(1, 1), (3, 10), (b - 1, 2), (3 * b - 1, 1), (3 * b, 1), (5 * b + 7, 3 * b), (9 * b, b), (20 * b - 1, 1)]
    tree = Directory(entries={b"ragged": File(content=PatternContent(20 * b + 5, runs))})
    sound(tree, Ext4Options(block_size=block_size), tmp_path / "image")


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_the_largest_file(tmp_path, block_size):
    size = 0xFFFFFFFF * block_size
    tree = Directory(entries={b"f": File(content=PatternContent(size, [(0, 1), (size - 2, 2)]))})
    sound(tree, Ext4Options(block_size=block_size), tmp_path / "image", contents=False)


# Group ends are where superblocks begin, files are cut, and a group more is a bitmap and a table more.
@pytest.mark.parametrize("groups", [1, 2, 3, 4, 16, 17, 18])
@pytest.mark.parametrize("distance", range(-3, 4))
def test_automatic_sizes_around_group_boundaries(tmp_path, groups, distance):
    size = groups * 8 * MiB + distance * 20 * KiB - 400 * KiB
    tree = Directory(entries={b"f": File(content=PatternContent(size)), b"g": File(content=PatternContent(70_000))})
    sound(tree, Ext4Options(block_size=1024, journal=0), tmp_path / "image")


@pytest.mark.parametrize("blocks", [*range(8192 - 2, 8192 + 70, 3), 3 * 8192 + 20, 16 * 8192 + 60, 17 * 8192 + 1])
def test_given_sizes_around_group_boundaries(tmp_path, blocks):
    tree = Directory(entries={b"f": File(content=PatternContent(1 * MiB))})
    sound(tree, Ext4Options(block_size=1024, size=blocks * KiB + 100), tmp_path / "image")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_a_fraction_stays_free(tmp_path, share, block_size):
    tree = Directory(entries={b"f": File(content=PatternContent(5 * MiB))})
    planned = plan(tree, Ext4Options(block_size=block_size, free=share))
    summary = planned.summary
    usable = summary.blocks - summary.overhead_blocks
    assert share <= summary.free_blocks / usable < share + 0.01
    sound(tree, Ext4Options(block_size=block_size, free=share), tmp_path / "image")


def test_the_smallest_file_system(tmp_path):
    shown = sound(Directory(), Ext4Options(), tmp_path / "image")
    assert "11/16 files (0.0% non-contiguous), 11/11 blocks" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block_size", "size"), [(4096, TiB), (1024, 256 * GiB), (2048, 500 * GiB), (4096, 15 * TiB)]
)
def test_a_large_disk_with_little_in_it(tmp_path, block_size, size):
    path = tmp_path / "image"
    planned = plan(fitting(block_size), Ext4Options(block_size=block_size, size=size))
    write_plan(planned, path)
    assert path.stat().st_blocks * 512 < size // 1024
    values, groups = dumpe2fs(path)
    assert int(values["Block count"]) * block_size == size
    assert len(groups) == size // (8 * block_size * block_size)
    if size <= TiB:  # e2fsck's memory follows the size
        e2fsck(path)


def test_without_optional_features(tmp_path):
    features = Features(DEFAULT_FEATURES.compat & ~(Compat.has_journal | Compat.resize_inode))
    for size in (None, 300 * MiB):
        options = Ext4Options(features=features, size=size)
        sound(everything(), options, tmp_path / "image")
        assert plan(everything(), options).summary.reserved_descriptor_blocks == 0


@pytest.mark.parametrize("journal", [0, 4 * MiB, 130 * MiB])
@pytest.mark.parametrize("size", [None, 600 * MiB])
def test_journals(tmp_path, journal, size):
    path = tmp_path / "image"
    write_plan(plan(everything(), Ext4Options(journal=journal, size=size)), path)
    values, _ = dumpe2fs(path)
    assert int(values.get("Total journal blocks", "0")) * 4096 == journal
    e2fsck(path)


@pytest.mark.parametrize("entries", [0, 3, 200, 3000])
def test_a_tree_with_its_own_lost_and_found(tmp_path, entries):
    lost: dict[bytes, Node] = {b"#%d" % i: File(content=BytesContent(b"%d" % i)) for i in range(entries)}
    tree = Directory(entries={b"lost+found": Directory(0o711, 3, 4, 5, entries=lost), b"f": File()})
    path = tmp_path / "image"
    sound(tree, Ext4Options(), path)
    write_plan(plan(tree, Ext4Options()), path)
    assert "Inode: 11 " in run([tool("debugfs"), "-R", "stat /lost+found", path]).stdout


@pytest.mark.slow
def test_more_subdirectories_than_links_are_counted(tmp_path):
    entries: dict[bytes, Node] = {b"%d" % i: Directory() for i in range(65_000)}
    tree, path = Directory(entries={b"d": Directory(entries=entries)}), tmp_path / "image"
    write_plan(plan(tree, Ext4Options()), path)
    e2fsck(path)
    assert "Links: 1 " in run([tool("debugfs"), "-R", "stat /d", path]).stdout.replace("\n", " ")


def test_inodes_as_asked(tmp_path):
    path = tmp_path / "image"
    for options, least in (
        (Ext4Options(inodes=1000), 1000),
        (Ext4Options(extra_inodes=500), 511),
        (Ext4Options(size=GiB, inodes=70_000), 70_000),
        (Ext4Options(size=GiB, bytes_per_inode=65536), 16384),
        (Ext4Options(free=0.9, bytes_per_inode=1024), 256),
    ):
        write_plan(plan(Directory(), options), path)
        values, _ = dumpe2fs(path)
        assert least <= int(values["Inode count"]) < least + 16 * 20
        e2fsck(path)
        path.unlink()


def test_more_empty_files_than_one_group_has_inodes(tmp_path):
    entries: dict[bytes, Node] = {b"%d" % i: File() for i in range(20_000)}
    sound(Directory(entries=entries), Ext4Options(block_size=1024), tmp_path / "image")
