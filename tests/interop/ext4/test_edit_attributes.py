"""Metadata and extended attributes as the kernel shows them: ours put there, and the kernel's changed."""

import os
import random
import struct

import pytest

from blockwright.device.file import FileDevice
from blockwright.errors import UsageError
from blockwright.fs.editor import Attributes
from blockwright.fs.ext4 import read
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Symlink
from tests.support.e2fs import debugfs, mke2fs
from tests.support.ext4_edit import judge, open_editor
from tests.support.fsedits import RandomEdits
from tests.support.mounting import differences, mounted

SETS = {
    "ext4": ("24M", "-t", "ext4", "-b", "1024"),
    "ext3": ("24M", "-t", "ext3"),
    "ea_inode": ("24M", "-t", "ext4", "-O", "ea_inode"),
    "128-byte-inodes": ("24M", "-t", "ext4", "-I", "128"),
}
NAMED = struct.pack(
    "<IHHIHHIHHIHHIHHI", 2, 1, 6, 2**32 - 1, 2, 7, 1000, 4, 4, 2**32 - 1, 16, 7, 2**32 - 1, 32, 4, 2**32 - 1
)
"""user::rw-, user:1000:rwx, group::r--, mask::rwx, other::r--"""


@pytest.mark.parametrize("name", SETS)
def test_kernel_shows_what_was_put(name, tmp_path):
    image = mke2fs(tmp_path / "image", *SETS[name])
    edits = RandomEdits(11, Directory())
    tree = Directory(entries={edits.name(): edits.node() for _ in range(60)})
    if name == "ext4":
        tree.entries[b"acl"] = File(0o674, xattrs={b"system.posix_acl_access": NAMED})
        tree.entries[b"default"] = Directory(xattrs={b"system.posix_acl_default": NAMED, b"trusted.t": b"v"})
    if name == "ea_inode":
        tree.entries[b"large"] = File(xattrs={b"user.large": random.Random(1).randbytes(20_000)})
    if name == "128-byte-inodes":
        for node in tree.entries.values():
            node.mtime_ns = node.mtime_ns // 10**9 * 10**9
    with open_editor(image) as editor:
        editor.put(b"/t", tree)
    judge(image, Directory(entries={b"t": tree}))
    with mounted(image, tmp_path / "mnt") as at:
        assert differences(tree, at / "t") == []


def test_permissions_change_an_access_control_list_as_the_kernel_does(tmp_path):
    image = mke2fs(tmp_path / "image", *SETS["ext4"])
    with open_editor(image) as editor:
        for name in (b"/ours", b"/theirs"):
            editor.put(name, File(0o674, xattrs={b"system.posix_acl_access": NAMED}))
        editor.set_attributes(b"/ours", Attributes(permissions=0o640))
    with mounted(image, tmp_path / "mnt", "rw") as at:
        (at / "theirs").chmod(0o640)
        shown = [
            (os.getxattr(at / name, "system.posix_acl_access"), (at / name).stat().st_mode)
            for name in ("ours", "theirs")
        ]
    assert shown[0] == shown[1]
    judge(image)


@pytest.mark.parametrize("name", ["ext4", "ea_inode"])
def test_block_that_files_share(name, tmp_path):
    """The kernel gives files with equal attributes one block; changing one of them leaves the others theirs."""
    image = mke2fs(tmp_path / "image", *SETS[name])
    with mounted(image, tmp_path / "mnt", "rw") as at:
        for index in range(4):
            (at / f"f{index}").touch()
            os.setxattr(at / f"f{index}", "user.shared", b"s" * 600)
            if name == "ea_inode":
                os.setxattr(at / f"f{index}", "user.large", b"l" * 9000)
    stats = debugfs(image, *(f"stat f{index}" for index in range(4)))
    assert len({line for line in stats.splitlines() if "File ACL" in line}) == 1
    with open_editor(image) as editor:
        editor.set_xattr(b"/f0", b"user.shared", b"t" * 600)
        editor.set_xattr(b"/f1", b"user.shared", None)
        editor.rm(b"/f2")
        shared = editor.files.xattrs(editor.files.resolve(b"/f3"))
        assert shared[b"user.shared"] == b"s" * 600
    judge(image)
    with mounted(image, tmp_path / "mnt") as at:
        assert os.getxattr(at / "f0", "user.shared") == b"t" * 600
        assert "user.shared" not in os.listxattr(at / "f1")
        if name == "ea_inode":
            assert [os.getxattr(at / f"f{index}", "user.large") for index in (0, 1, 3)] == [b"l" * 9000] * 3
    with open_editor(image) as editor:
        for index in (0, 1, 3):
            editor.rm(b"/f%d" % index)
    judge(image, Directory())
    with read.open(FileDevice(image)) as files:
        usage = files.usage()
        assert usage.inodes - usage.inodes_free == 11


def test_times(tmp_path):
    image = mke2fs(tmp_path / "image", *SETS["ext4"])
    os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
    try:
        with open_editor(image) as editor:
            editor.put(b"/d/f", File(mtime_ns=5_000_000_007, content=BytesContent(b"x")), parents=True)
    finally:
        del os.environ["SOURCE_DATE_EPOCH"]
    with read.open(FileDevice(image)) as files:
        now = 1_700_000_000 * 10**9
        found = files.stat(b"/d/f")
        assert (found.mtime_ns, found.ctime_ns, found.crtime_ns) == (5_000_000_007, now, now)
        assert files.stat(b"/d").mtime_ns == now
        assert files.volume.superblock.s_wtime == 1_700_000_000


@pytest.mark.parametrize(("flag", "says"), [(0x20, "appended"), (0x100000, "fs-verity"), (0x10, "immutable")])
def test_files_that_are_left_alone(flag, says, tmp_path):
    image = mke2fs(tmp_path / "image", "24M", "-t", "ext4", "-O", "verity")
    with open_editor(image) as editor:
        editor.put(b"/f", File(content=BytesContent(b"x" * 5000)))
    debugfs(image, f"sif f flags {0x80000 | flag:#x}", write=True)
    with open_editor(image) as editor, pytest.raises(UsageError, match=says):
        editor.write(b"/f", BytesContent(b"y"))
    judge(image)


def test_links_and_special_files_by_debugfs(tmp_path):
    image = mke2fs(tmp_path / "image", *SETS["ext4"])
    with open_editor(image) as editor:
        editor.put(b"/short", Symlink(b"s" * 59))
        editor.put(b"/long", Symlink(b"l" * 60))
    shown = debugfs(image, "stat short", "stat long")
    assert 'Fast link dest: "' + "s" * 59 in shown
    assert "Blockcount: 2" in shown


def test_names_that_differ_in_case(tmp_path):
    """A case-insensitive directory that becomes a hash tree, whose hashes are those of folded names."""
    image = mke2fs(tmp_path / "image", "24M", "-t", "ext4", "-b", "1024", "-O", "casefold")
    with open_editor(image) as editor:
        editor.mkdir(b"/d", Directory())
    debugfs(image, "sif /d flags 0x40080000", write=True)
    names = [f"Name-{at:03}-Größe" for at in range(400)]
    with open_editor(image) as editor:
        for name in names:
            editor.put(b"/d/" + name.encode(), File(content=BytesContent(name.encode())))
        editor.mkdir(b"/d/Sub", Directory())
    judge(image)
    assert "Indirect levels" in debugfs(image, "htree_dump /d")
    with open_editor(image) as editor:
        for name in names[::7]:
            with editor.files.open(b"/D".lower() + b"/" + name.upper().encode()) as body:
                assert body.read(0, body.size) == name.encode()
            editor.rm(b"/d/" + name.swapcase().encode())
        assert editor.files.find(editor.files.resolve(b"/d"), names[0].encode()) is None
        editor.mv(b"/d/" + names[1].encode(), b"/d/" + names[1].lower().encode())
        editor.put(b"/d/sUB/inner", File())
        editor.mkdir(b"/d/Sub/deep", Directory())
    judge(image)
    with read.open(FileDevice(image)) as files:
        found = files.tree().entries[b"d"]
        assert isinstance(found, Directory)
        assert names[1].lower().encode() in found.entries
        assert len(found.entries) == len(names) - len(names[::7]) + 1
        assert files.volume.inode(files.resolve(b"/d/SUB/DEEP")).flags & 0x40000000
