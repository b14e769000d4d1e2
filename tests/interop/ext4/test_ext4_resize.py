"""Growing and shrinking what mke2fs made: e2fsck, resize2fs, dumpe2fs and the kernel find it as theirs."""

import os
import random

import pytest

from blockwright.device.file import FileDevice
from blockwright.errors import NoSpace
from blockwright.fs.ext4 import edit, read
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.resize import minimum_size, resize
from blockwright.fs.ext4.resize.gate import open_volume
from blockwright.fs.ext4.resize.least import least_blocks
from blockwright.fs.ext4.resize.move import move_below
from blockwright.testing.crash import CrashDevice
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent
from blockwright.tree.node import File
from blockwright.units import GiB, KiB, MiB, TiB
from tests.support.e2fs import debugfs, e2fsck_complains
from tests.support.everything import everything
from tests.support.ext4 import dumpe2fs, write_plan
from tests.support.ext4_edit import judge
from tests.support.ext4_resize import SETS, image_of, judge_resized, make_image, resize_file, spread, tree_of
from tests.support.mounting import mounted
from tests.support.tools import run, tool

START = 20 * MiB


def steps(start: int) -> list[int]:
    """Within the last group, by groups, past kept descriptors, a hundred times as large, and back."""
    return [start + 2 * MiB, 3 * start + 5 * MiB, 30 * start, 100 * start, 7 * start, 3 * start]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.slow
def test_grows_and_shrinks(name, tmp_path):
    grow_and_shrink(name, 1024, START, tmp_path)


@pytest.mark.ci
@pytest.mark.parametrize("block_size", [2048, 4096])
@pytest.mark.parametrize("name", SETS)
@pytest.mark.soak
def test_grows_and_shrinks_with_larger_blocks(name, block_size, tmp_path):
    grow_and_shrink(name, block_size, START * (3 if block_size == 2048 else 10), tmp_path)


def grow_and_shrink(name, block_size, start, tmp_path):
    image, tree = make_image(tmp_path / "image", name, start, block_size)
    for size in steps(start):
        report = resize_file(image, size)
        judge_resized(image, tree, report, f"{name}, {report}")
        assert size - 5 * MiB < report.size <= size
        assert resize_file(image, size).method == "none"
    with FileDevice(image, writable=True) as device:
        least = minimum_size(device)
        with pytest.raises(NoSpace):
            resize(device, least - block_size)
    report = resize_file(image, least)
    assert report.size == least
    judge_resized(image, tree, report, f"{name}, to the least, {report}")


def test_the_kernel_uses_it_and_resizes_it_further(tmp_path):
    image, tree = make_image(tmp_path / "image", "ext4", 64 * MiB, 4096)
    resize_file(image, 3 * GiB)
    os.truncate(image, 9 * GiB)
    with mounted(image, tmp_path / "mnt", "rw") as at:
        (at / "written").write_bytes(random.Random(1).randbytes(30 * MiB))
        grown = may_resize_online()
        if grown:
            run([tool("resize2fs"), run(["findmnt", "-n", "-o", "SOURCE", at]).stdout.strip()])
    tree.entries[b"written"] = tree_of(image).entries[b"written"]
    judge(image, tree)
    values, _groups = dumpe2fs(image)
    assert int(values["Block count"]) * 4096 == (9 if grown else 3) * GiB
    run([tool("e2fsck"), "-fp", image])  # without which resize2fs does not look at what was mounted
    report = resize_file(image, 4 * GiB)
    judge_resized(image, tree, report, str(report))
    with mounted(image, tmp_path / "mnt", "rw") as at:
        (at / "again").write_bytes(bytes(1000))
        os.unlink(at / "again")
    judge(image, tree)


def may_resize_online() -> bool:
    """Whether this process has CAP_SYS_RESOURCE, which containers take even from root."""
    with open("/proc/self/status") as file:
        found = next(line for line in file if line.startswith("CapEff:"))
    return bool(int(found.split()[1], 16) >> 24 & 1)


@pytest.mark.parametrize("name", ["no-resize-inode", "meta", "little-kept"])
def test_the_kernel_mounts_descriptors_in_their_groups(name, tmp_path):
    image, _tree = make_image(tmp_path / "image", name, START)
    resize_file(image, 4 * GiB)
    values, _groups = dumpe2fs(image)
    assert "meta_bg" in values["Filesystem features"]
    with mounted(image, tmp_path / "mnt", "rw") as at:
        for index in range(40):  # directories spread over groups
            (at / f"directory{index}").mkdir()
            (at / f"directory{index}" / "file").write_bytes(b"x" * 100_000)
    assert not e2fsck_complains(image)


def test_resize2fs_goes_on_from_it(tmp_path):
    image, tree = make_image(tmp_path / "image", "ext4", START)
    resize_file(image, 300 * MiB)
    run([tool("resize2fs"), "-f", image, "2G"])
    judge(image, tree)
    report = resize_file(image, 100 * MiB)
    run([tool("resize2fs"), "-f", "-M", image])
    judge(image, tree)
    report = resize_file(image, 100 * MiB)
    judge_resized(image, tree, report, str(report))


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_what_we_planned(block_size, tmp_path):
    tree = everything()
    del tree.entries[b"longest link"], tree.entries[b"attributes"]
    image = write_plan(plan(tree, Ext4Options(block_size=block_size, size=300 * MiB)), tmp_path / "image")
    for size in (301 * MiB, 5 * GiB, 400 * MiB):
        report = resize_file(image, size)
        assert report.method == "journal"
        with read.open(FileDevice(image)) as files:
            found = files.tree()
            del found.entries[b"lost+found"]
            assert not compare_trees(tree, found, contents=True)
        assert not e2fsck_complains(image), report


@pytest.mark.parametrize("name", ["ext4", "ext2"])
def test_what_is_added_stays_sparse(name, tmp_path):
    image, tree = make_image(tmp_path / "image", name, 100 * MiB, 4096)
    before = os.stat(image).st_blocks
    report = resize_file(image, TiB if name == "ext4" else TiB // 64)
    assert report.groups == (8192 if name == "ext4" else 128)
    added = (os.stat(image).st_blocks - before) * 512
    assert added < 30 * MiB
    judge_resized(image, tree, report, str(report))


@pytest.mark.parametrize("name", ["ext4", "ext2"])
def test_what_lies_behind_the_old_end_means_nothing(name, tmp_path):
    image, tree = make_image(tmp_path / "image", name, START)
    with image.open("ab") as file:
        file.write(random.Random(2).randbytes(60 * MiB))
    report = resize_file(image, None)
    assert report.size == START + 60 * MiB
    judge_resized(image, tree, report, name)
    with mounted(image, tmp_path / "mnt", "rw") as at:
        for index in range(30):
            (at / f"directory{index}").mkdir()
            (at / f"directory{index}" / "file").write_bytes(b"x" * 300_000)
    assert not e2fsck_complains(image)


def test_an_unclean_journal_is_replayed_first(tmp_path):
    image, tree = make_image(tmp_path / "image", "ext4", START)
    crash = CrashDevice(FileDevice(image))
    with edit.open(crash) as editor:
        node = File(content=BytesContent(b"new" * 9000))
        editor.put(b"/new", node)
        editor.commit()
        flushes = [index for index, event in enumerate(crash.events) if event.is_flush]
        unclean = image_of(crash.cut(flushes[1] + 1), tmp_path / "unclean")
    assert "needs_recovery" in dumpe2fs(unclean)[0]["Filesystem features"]
    before = unclean.read_bytes()
    with FileDevice(unclean) as device:
        least = minimum_size(device)
    assert unclean.read_bytes() == before
    report = resize_file(unclean, 100 * MiB)
    tree.entries[b"new"] = tree_of(unclean).entries[b"new"]
    assert tree.entries[b"new"].content.size == 27000
    judge_resized(unclean, tree, report, "replayed")
    with FileDevice(unclean) as device:
        assert abs(minimum_size(device) - least) <= 2 * MiB


@pytest.mark.parametrize("name", ["ext4", "ext3", "ext2", "no-journal", "no-flex", "no-checksums", "modern"])
def test_blocks_move_and_inodes_do_not(name, tmp_path):
    image, _tree = make_image(tmp_path / "image", name, 3 * START)
    tree = spread(image)
    inodes = debugfs(image, "ls -l /", "ls -l /home/many", "ls -l /home/dir1")
    with FileDevice(image, writable=True) as device:
        least = minimum_size(device)
        assert least_blocks(open_volume(device, None)) > least // KiB
    report = resize_file(image, least)
    judge_resized(image, tree, report, f"{name}, {report}")
    assert report.size == least
    assert debugfs(image, "ls -l /", "ls -l /home/many", "ls -l /home/dir1") == inodes
    report = resize_file(image, START)
    judge_resized(image, tree, report, f"{name}, {report}")


def test_a_moved_journal_works(tmp_path):
    image, tree = make_image(tmp_path / "image", "ext4", GiB, 4096)
    where = debugfs(image, "stat <8>")
    with FileDevice(image, writable=True) as device:
        report = resize(device, minimum_size(device))
    judge_resized(image, tree, report, str(report))
    assert debugfs(image, "stat <8>") != where
    assert report.size < 100 * MiB
    with mounted(image, tmp_path / "mnt", "rw") as at:
        (at / "new").write_bytes(b"x" * 100_000)
    tree.entries[b"new"] = tree_of(image).entries[b"new"]
    judge(image, tree)


def test_too_little_room_leaves_it_whole(tmp_path):
    image, _tree = make_image(tmp_path / "image", "ext4", 3 * START)
    tree = spread(image)
    with FileDevice(image, writable=True) as device, pytest.raises(NoSpace):
        move_below(device, 5 * MiB // KiB, source=None)
    judge(image, tree)


def test_an_inode_at_the_end_keeps_it_from_shrinking(tmp_path):
    image, _tree = make_image(tmp_path / "image", "ext2", 50 * MiB)
    last = int(dumpe2fs(image)[0]["Inode count"])
    run([tool("debugfs"), "-w", "-R", f"seti <{last}>", image])
    with FileDevice(image, writable=True) as device:
        least = minimum_size(device)
        assert 48 * MiB < least < 50 * MiB
        with pytest.raises(NoSpace, match=f"at least {least} bytes"):
            resize(device, 30 * MiB)
