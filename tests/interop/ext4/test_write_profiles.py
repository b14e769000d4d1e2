"""ext2, ext3, and ext4 for old readers, as we write them: to e2fsck, mke2fs, the kernel, and our own reader."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockwright.device.file import FileDevice
from blockwright.errors import UsageError
from blockwright.fs.ext4 import resize
from blockwright.fs.ext4.check import check
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.plan_maps import maps_of
from blockwright.fs.ext4.profiles import READERS, TYPES, profile
from blockwright.fs.ext4.read import open as open_ext4
from blockwright.tree.compare import compare_trees
from blockwright.tree.node import Directory, File, Node, walk
from blockwright.units import GiB, MiB
from tests.support.disks import spill
from tests.support.e2fs import debugfs, mke2fs
from tests.support.everything import everything
from tests.support.ext4 import dumpe2fs, e2fsck, write_plan
from tests.support.ext4_edit import judge, open_editor
from tests.support.fsedits import RandomEdits
from tests.support.mounting import differences, mounted
from tests.support.streaming import stream_tree
from tests.support.trees import PatternContent, trees

SHAPES: dict[str, tuple[str, tuple[str, ...], int | None]] = {
    "ext2": ("ext2", (), None),
    "ext2-128": ("ext2", (), 128),
    "ext3": ("ext3", (), None),
    "ext4-128": ("ext4", (), 128),
    **{name: ("ext4", (name,), None) for name in READERS},
    "ext2-no-index": ("ext2", ("u-boot-write",), None),
}
OLD = 10**9


def options_of(name: str, **others: object) -> Ext4Options:
    chosen = profile(*SHAPES[name])
    return Ext4Options(
        seed=b"profiles",
        features=chosen.features,
        inode_size=chosen.inode_size,
        large_dir=chosen.large_dir,
        **others,  # type: ignore[arg-type]  # whatever the test asks for
    )


def fitting(tree: Directory, options: Ext4Options) -> Directory:
    """The tree without what blocks and inodes of this size cannot hold."""
    if options.block_size < 4096:
        tree.entries.pop(b"longest link", None)
        tree.entries.pop(b"attributes", None)
    for _path, node in walk(tree):
        if options.inode_size == 128:
            node.mtime_ns = min(max(node.mtime_ns // OLD, -(1 << 31)), (1 << 31) - 1) * OLD
    return tree


def sound(tree: Directory, options: Ext4Options, image: Path) -> None:
    """Write the tree; e2fsck and our check find nothing, and it reads as it was."""
    planned = plan(tree, options)
    write_plan(planned, image)
    e2fsck(image)
    with FileDevice(image) as device:
        assert [str(each) for each in check(device)] == []
    with open_ext4(open_plan(planned)) as system:
        found = system.tree()
        if b"lost+found" not in tree.entries:
            del found.entries[b"lost+found"]
        assert not [str(difference) for difference in compare_trees(tree, found, contents=True)]


@pytest.mark.parametrize(
    ("name", "block_size"),
    [
        ("ext2", 1024),
        ("ext2", 4096),
        ("ext2-128", 1024),
        ("ext3", 1024),
        ("ext4-128", 4096),
        ("linux-2.6.32", 1024),
        ("syslinux-6.03", 1024),
        ("u-boot-write", 4096),
    ],
)
def test_everything(tmp_path, name, block_size):
    options = options_of(name, block_size=block_size)
    sound(fitting(everything(large=3000), options), options, tmp_path / "image")


@given(st.data())
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree(tmp_path, data):
    name, block_size = data.draw(st.sampled_from(list(SHAPES))), data.draw(st.sampled_from([1024, 2048, 4096]))
    size = data.draw(st.sampled_from([None, 130 * MiB]))
    options = options_of(name, block_size=block_size, size=size)
    tree = data.draw(trees(block_size=block_size, xattr_budget=block_size - 300))
    if not isinstance(tree.entries.get(b"lost+found"), Directory):
        tree.entries.pop(b"lost+found", None)
    longest = maps_of(options.form, 0).most_blocks * block_size
    if any(node.content.size > longest for _path, node in walk(tree) if isinstance(node, File)):
        with pytest.raises(UsageError, match=f"expected at most {longest} bytes"):
            plan(tree, options)
    else:
        sound(fitting(tree, options), options, tmp_path / "image")


@pytest.mark.parametrize("name", SHAPES)
def test_mke2fs_gives_the_same_features_the_same_names(tmp_path, name):
    options = options_of(name, size=40 * MiB)
    ours, groups = dumpe2fs(write_plan(plan(Directory(), options), tmp_path / "ours"))
    asked = ",".join(["none", *options.features.names])
    inode = str(options.inode_size)
    theirs, _ = dumpe2fs(mke2fs(tmp_path / "theirs", "40M", "-t", "ext4", "-b", "4096", "-I", inode, "-O", asked))
    for field in (
        "Filesystem features",
        "Inode size",
        "Group descriptor size",
        "Flex block group size",
        "Blocks per group",
    ):
        assert sorted(ours.get(field, "").split()) == sorted(theirs.get(field, "").split()), field
    assert all("INODE_UNINIT" not in group.flags for group in groups) or "uninit" in asked or "metadata_csum" in asked


LONG = {  # every level of pointers, with holes, and without
    b"direct": PatternContent(12 * 1024, [(0, 12 * 1024)]),
    b"single": PatternContent(200_000, [(0, 200_000)]),
    b"double": PatternContent(3_000_000, [(0, 1000), (270_000, 2_500_000)]),
    b"triple": PatternContent(
        5 * 1024**3, [(0, 10), (67_000_000, 300_000), (68_000_000, 1_000_000), (5 * 1024**3 - 9, 9)]
    ),
}


@pytest.mark.parametrize("name", ["ext2", "ext3", "linux-2.6.32"])
def test_the_kernel_sees_the_tree(tmp_path, name):
    options = options_of(name, block_size=1024, size=64 * MiB)
    tree = fitting(everything(large=3000), options)
    tree.entries |= {key: File(content=content) for key, content in LONG.items() if key != b"triple"}
    sparse = PatternContent(200_000_000, LONG[b"triple"].runs()[:2])
    tree.entries[b"triple"] = File(content=sparse)
    image = write_plan(plan(tree, options), tmp_path / "image")
    with mounted(image, tmp_path / "at", "rw") as at:
        assert differences(tree, at) == []
        for index in range(300):
            (at / f"new{index}").write_bytes(b"n" * (index * 50))
        os.unlink(at / "double")
    e2fsck(image)


@pytest.mark.parametrize("name", ["ext2", "ext3"])
def test_files_of_every_depth(tmp_path, name):
    tree = Directory(entries={key: File(content=content) for key, content in LONG.items()})
    image = tmp_path / "image"
    sound(tree, options_of(name, block_size=1024), image)
    assert "(TIND)" in debugfs(image, "stat /triple")


@pytest.mark.parametrize("name", ["ext2", "ext3", "ext2-no-index", "linux-2.6.32", "ext4-128"])
def test_random_edits(tmp_path, name):
    tree = Directory()
    image = write_plan(
        plan(tree, options_of(name, block_size=1024, size=24 * MiB, lost_found=False)), tmp_path / "image"
    )
    edits = RandomEdits(3, tree)
    for _ in range(2):
        with open_editor(image) as editor:
            for _ in range(20):
                edits.step(editor)
        judge(image, edits.root, edits.log)


@pytest.mark.parametrize("name", ["ext2", "ext3", "linux-2.6.32"])
def test_resized(tmp_path, name):
    options = options_of(name, block_size=1024, size=40 * MiB)
    tree = fitting(everything(large=3000), options)
    image = write_plan(plan(tree, options), tmp_path / "image")
    for size in (90 * MiB, 36 * MiB):
        os.truncate(image, max(size, os.path.getsize(image)))
        with FileDevice(image, writable=True) as device:
            resize.resize(device, size)
        judge(image)


@pytest.mark.parametrize("name", ["ext2", "ext3", "linux-2.6.32"])
def test_a_stream_of_given_size(tmp_path, name):
    options = options_of(name, size=1 * GiB)
    tree = fitting(everything(large=3000), options)
    tree.entries |= {key: File(content=content) for key, content in LONG.items() if key != b"triple"}
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 1 * GiB)
    with FileDevice(image, writable=True) as device:
        _, planned = stream_tree(tree, options, device)
        with open_plan(planned) as rest:
            spill(rest, device.write)
    e2fsck(image)
    with open_ext4(FileDevice(image)) as system:
        found = system.tree()
        del found.entries[b"lost+found"]
        assert not [str(difference) for difference in compare_trees(tree, found, contents=True)]


def names_of(count: int, length: int) -> Directory:
    files: dict[bytes, Node] = {(b"%07d" % i).rjust(length, b"n"): File() for i in range(count)}
    return Directory(entries={b"d": Directory(entries=files)})


@pytest.mark.parametrize("name", ["ext4-128", "linux-2.6.32", "ext2"])
def test_hash_trees(tmp_path, name):
    tree, image = names_of(3000, 200), tmp_path / "image"
    sound(fitting(tree, options_of(name)), options_of(name, block_size=1024), image)
    assert "Indirect levels: 1" in debugfs(image, "htree_dump /d")


@pytest.mark.slow
def test_a_third_level(tmp_path):
    tree, image = names_of(46_800, 255), tmp_path / "image"
    options = Ext4Options(block_size=1024, seed=b"large")
    write_plan(plan(tree, options), image)
    assert "large_dir" in dumpe2fs(image)[0]["Filesystem features"]
    assert "Indirect levels: 2" in debugfs(image, "htree_dump /d")
    with open_editor(image) as editor:
        editor.rm(b"d/" + b"n" * 248 + b"0000007")
        editor.mkdir(b"d/" + b"m" * 255, Directory())
    judge(image)
    with mounted(image, tmp_path / "at") as at:
        assert (at / "d" / ("n" * 248 + "0046799")).exists()
        assert not (at / "d" / ("n" * 248 + "0000007")).exists()
        assert (at / "d" / ("m" * 255)).is_dir()


@pytest.mark.soak
def test_more_directories_than_an_inode_counts(tmp_path):
    many: dict[bytes, Node] = {b"%05d" % i: Directory() for i in range(65_010)}
    image = write_plan(
        plan(Directory(entries={b"d": Directory(entries=many)}), Ext4Options(block_size=1024, free=0.01)),
        tmp_path / "image",
    )
    assert "Links: 1 " in debugfs(image, "stat /d")
    judge(image)
    with open_editor(image) as editor:
        editor.mkdir(b"d/one more", Directory())
        editor.rm(b"d/00003", recursive=True)
    assert "Links: 1 " in debugfs(image, "stat /d")
    judge(image)


@pytest.mark.slow
def test_a_directory_grows_past_what_its_inode_counts(tmp_path):
    many: dict[bytes, Node] = {b"%05d" % i: Directory() for i in range(64_997)}
    options = Ext4Options(block_size=1024, free=0.2)
    image = write_plan(plan(Directory(entries={b"d": Directory(entries=many)}), options), tmp_path / "image")
    assert "Links: 64999 " in debugfs(image, "stat /d")
    for index, links in enumerate((1, 1, 1)):
        with open_editor(image) as editor:
            editor.mkdir(b"d/more%d" % index, Directory())
        assert f"Links: {links} " in debugfs(image, "stat /d")
    judge(image)


def test_every_type_is_told_by_its_features():
    for name in TYPES:
        assert (
            plan(
                Directory(),
                options_of("ext2") if name == "ext2" else Ext4Options(features=TYPES[name], size=32 * MiB),
            ).kind
            == name
        )
