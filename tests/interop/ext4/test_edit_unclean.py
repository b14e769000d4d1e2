"""File systems that were left in the middle: journals of the kernel's, orphans in a list and in a file."""

import os
import random
import shutil
import subprocess

import pytest

from blockwright.device.file import FileDevice
from blockwright.errors import Corrupt, UsageError
from blockwright.fs.ext4 import edit, read
from blockwright.tree.content import BytesContent
from blockwright.tree.node import File
from tests.support.e2fs import debugfs, mke2fs
from tests.support.ext4_edit import judge, open_editor
from tests.support.mounting import mounted
from tests.support.tools import run, tool

SETS = {
    "list": ("16M", "-t", "ext4", "-b", "1024", "-J", "size=1"),
    "file": ("16M", "-t", "ext4", "-b", "1024", "-J", "size=1", "-O", "orphan_file"),
    "ext3": ("16M", "-t", "ext3", "-b", "1024", "-J", "size=1"),
    "no-checksums": ("16M", "-t", "ext4", "-b", "1024", "-J", "size=1", "-O", "^metadata_csum"),
}


@pytest.mark.parametrize("name", SETS)
def test_left_by_the_kernel(name, tmp_path):
    """An image copied while it is mounted, with files open that have no name any more."""
    image = mke2fs(tmp_path / "image", *SETS[name])
    left = tmp_path / "left"
    rng = random.Random(2)
    with mounted(image, tmp_path / "mnt", "rw") as at:
        opened = []
        for index in range(9):
            (at / f"gone{index}").write_bytes(rng.randbytes(rng.choice((10, 5000, 400_000))))
            opened.append((at / f"gone{index}").open("rb"))
            (at / f"stays{index}").write_bytes(rng.randbytes(3000))
        for index in range(9):
            (at / f"gone{index}").unlink()
        at_fd = os.open(at, os.O_RDONLY)
        os.fsync(at_fd)
        os.close(at_fd)
        subprocess.run(["sync", "-f", at], check=True)  # of this file system alone
        shutil.copyfile(image, left)
        for file in opened:
            file.close()
    with read.open(FileDevice(left)) as files:
        expected = files.tree()
        assert sorted(expected.entries) == [b"lost+found", *(b"stays%d" % index for index in range(9))]
    with open_editor(left) as editor:
        editor.put(b"/new", File())
    with read.open(FileDevice(left)) as files:
        assert b"new" in files.tree().entries
    judge(left)


def test_orphan_that_is_to_be_cut(tmp_path):
    image = mke2fs(tmp_path / "image", *SETS["list"])
    with open_editor(image) as editor:
        editor.put(b"/file", File(content=read_body(50_000)))
        inode = editor.files.resolve(b"/file")
    debugfs(image, f"sif <{inode}> size 10001", f"ssv last_orphan {inode}", write=True)
    open_editor(image).close()
    judge(image)
    with read.open(FileDevice(image)) as files:
        assert files.stat(b"/file").size == 10001
        assert files.open(b"/file").read(0, 10001) == read_body(50_000).data[:10001]
        assert files.stat(b"/file").allocated == 10 * 1024


def read_body(size):
    return BytesContent(random.Random(size).randbytes(size))


@pytest.mark.parametrize(
    ("command", "says"),
    [("ssv state 2", "errors on record"), ("ssv state 0", "cleanly"), ("ssv last_orphan 5", "not reserved")],
)
def test_refused_state(command, says, tmp_path):
    image = mke2fs(tmp_path / "image", "8M", "-t", "ext2")
    debugfs(image, command, write=True)
    before = image.read_bytes()
    with FileDevice(image, writable=True) as device, pytest.raises((UsageError, Corrupt), match=says):
        edit.open(device)
    assert image.read_bytes() == before


@pytest.mark.parametrize("features", ["64bit,metadata_csum", "^64bit,^metadata_csum"])
def test_counts_that_are_not_true(features, tmp_path):
    """The superblock's counts sum up those of the groups, which are what is gone by."""
    image = mke2fs(tmp_path / "image", "16M", "-t", "ext4", "-O", features)
    for counts in (0, 2**32 - 1):
        command = f"ssv free_blocks_count {counts}", f"ssv free_inodes_count {counts}"
        debugfs(image, *command, write=True)
        name = b"/f%d" % counts
        with open_editor(image) as editor:
            editor.put(name, File(0o644, content=BytesContent(b"x" * 300_000)))
        with open_editor(image) as editor:
            assert editor.files.stat(name).size == 300_000
            editor.rm(name)
        run([tool("e2fsck"), "-fp", image], ok=(0, 1))  # which mends a count without a word
        judge(image)
