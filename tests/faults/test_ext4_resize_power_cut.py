"""Power cut at every write of a resize: the file system is of the old size or of the new one, and a rerun ends it."""

import os
import random
from pathlib import Path

import pytest

from blockwright.device.base import BlockDevice
from blockwright.device.file import FileDevice
from blockwright.errors import UsageError
from blockwright.fs.ext4.check import check
from blockwright.fs.ext4.resize import resize
from blockwright.fs.resize import ResizeReport
from blockwright.testing.crash import CrashDevice
from blockwright.tree.node import Directory
from blockwright.units import MiB
from tests.support.e2fs import e2fsck_complains
from tests.support.ext4 import dumpe2fs
from tests.support.ext4_edit import judge
from tests.support.ext4_resize import image_of, make_image, resize_file, spread, tree_of
from tests.support.fsedits import differences
from tests.support.mounting import mounted
from tests.support.tools import run, tool

BLOCK = 1024
WAYS = {
    "within": (20 * MiB, 22 * MiB),
    "groups": (20 * MiB, 60 * MiB),
    "far": (20 * MiB, 400 * MiB),
    "shrink": (60 * MiB, 24 * MiB),
    "move": (60 * MiB, 18 * MiB),
}
JOURNALED = ["ext4", "ext3", "no-checksums", "no-resize-inode", "little-kept", "meta", "sparse2", "no-flex"]
ORDERED = ["ext2", "no-journal"]


@pytest.mark.parametrize(
    ("name", "way"),
    [("ext4", "groups"), ("little-kept", "far"), ("ext4", "shrink"), ("ext4", "move"), ("ext2", "groups")],
)
def test_some_cuts(name, way, tmp_path):
    cut_everywhere(name, way, tmp_path, most=12)


@pytest.mark.soak
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", JOURNALED + ORDERED)
def test_every_cut(name, way, tmp_path):
    cut_everywhere(name, way, tmp_path, most=1000)


def crashed(name: str, way: str, tmp_path: Path) -> tuple[CrashDevice, Directory, ResizeReport]:
    """A disk that was resized, with all its writes, the files on it, and what was told."""
    start, end = WAYS[way]
    image, tree = make_image(tmp_path / "image", name, start, BLOCK)
    if way == "move":
        tree = spread(image)
    os.truncate(image, max(start, end))
    crash = CrashDevice(FileDevice(image))
    report = resize(crash, end)
    assert report.method == ("ordered" if name in ORDERED else "journal")
    return crash, tree, report


def cut_everywhere(name: str, way: str, tmp_path: Path, most: int) -> None:
    crash, tree, report = crashed(name, way, tmp_path)
    disks = list(crash.cuts(random.Random(1), torn_for_each=1))
    seen = set()
    for told, disk in [*disks[:: -(-len(disks) // most)], ("no cut", crash.cut(len(crash.events)))]:
        if name not in ORDERED:
            assert [str(each) for each in check(disk)] == [], f"{name}, {way}: {told}"
        image = image_of(disk, tmp_path / "cut")
        seen.add(mended(image, tree, f"{name}, {way}: {told}", anything=name in ORDERED))
        unmended = way == "move" and name in ORDERED
        finished(disk, tree, tmp_path / "cut", WAYS[way][1], f"{name}, {way}: {told}", unmended=unmended)
    assert seen == {report.old_blocks, report.blocks}
    crash.close()


def mended(image: Path, tree: Directory, told: str, *, anything: bool) -> int:
    """Have e2fsck mend an image; fail where it says more than that it replayed the journal. Return its blocks."""
    done = run([tool("e2fsck"), "-fy" if anything else "-fp", image], ok=(0, 1))
    if not anything:
        assert "FIXED" not in done.stdout, f"{told}\n{done.stdout}"
    judge(image, tree, [told])
    return int(dumpe2fs(image)[0]["Block count"])


def finished(disk: BlockDevice, tree: Directory, image: Path, size: int, told: str, *, unmended: bool) -> None:
    """Resize again what a power cut ended; fail unless it is as if there had been none.

    With `unmended` it may ask for e2fsck first: blocks that were moving without a journal.
    """
    image_of(disk, image)
    try:
        report = resize_file(image, size)
    except UsageError:
        assert unmended, told
        run([tool("e2fsck"), "-fy", image], ok=(0, 1))
        report = resize_file(image, size)
    assert report.size <= size, told
    judge(image, tree, [told])


def test_the_kernel_replays_it(tmp_path):
    """The disk as it is behind the commit block, and half way home.

    The kernel looks at the size before it replays, so what it counts as free is of either; e2fsck's status tells.
    """
    for way in ("groups", "shrink"):
        folder = tmp_path / way
        folder.mkdir()
        crash, tree, _report = crashed("ext4", way, folder)
        names = {os.fsdecode(name) for name in tree.entries}
        flushes = [index for index, event in enumerate(crash.events) if event.is_flush]
        for count in flushes:
            image = image_of(crash.cut(count + 1), folder / "cut")
            with mounted(image, folder / "mnt", "rw") as at:
                assert set(os.listdir(at)) == names, f"{way}: behind event {count}"
            run([tool("e2fsck"), "-fn", image])
            assert differences(tree, tree_of(image)) == []
        crash.close()


def test_a_judge_that_can_fail(tmp_path):
    crash, _tree, _report = crashed("ext4", "groups", tmp_path)
    image = image_of(crash, tmp_path / "cut")
    crash.close()
    assert not e2fsck_complains(image)
    with image.open("r+b") as file:
        file.seek(2 * BLOCK + 0xC)
        file.write(b"\1\1")
    assert e2fsck_complains(image)
