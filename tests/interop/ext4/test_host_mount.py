"""The kernel mounts what we wrote, finds in it what the tree says, writes to it, and e2fsck is content."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockwright.device.copy import copy
from blockwright.device.memory import MemoryDevice
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File
from blockwright.units import GiB, MiB, TiB
from tests.support.disks import save
from tests.support.everything import SECOND, everything
from tests.support.ext4 import e2fsck, write_plan
from tests.support.mounting import differences, mounted
from tests.support.streaming import stream_tree
from tests.support.trees import trees

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")


def fitting(block_size: int) -> Directory:
    """A tree of everything that blocks of this size can hold."""
    tree = everything(large=3000)
    if block_size < 4096:
        del tree.entries[b"longest link"]
        del tree.entries[b"attributes"]
    return tree


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize("size", [None, 2 * GiB])
def test_the_kernel_sees_the_tree(tmp_path, block_size, size):
    tree = fitting(block_size)
    image = write_plan(plan(tree, Ext4Options(block_size=block_size, size=size)), tmp_path / "image")
    with mounted(image, tmp_path / "at") as at:
        assert differences(tree, at) == []


def test_a_difference_would_be_seen(tmp_path):
    image = write_plan(plan(everything(), Ext4Options()), tmp_path / "image")
    changed = everything()
    changed.entries[b"small"].mtime_ns += 1
    changed.entries[b"block"] = File(content=BytesContent(bytes(4096)))
    changed.entries[b"second"] = File(
        0o640, 1000, 1001, 1_600_000_000 * SECOND + 123_456_789, content=BytesContent(b"linked")
    )
    del changed.entries[b"null"]
    with mounted(image, tmp_path / "at") as at:
        told = "\n".join(differences(changed, at))
    for part in ("b'small': mode", "b'block': content", "one inode", "b'null': is not in the tree"):
        assert part in told


@given(st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree(tmp_path, data):
    block_size = data.draw(st.sampled_from([1024, 4096]))
    tree = data.draw(trees(block_size=block_size, xattr_budget=block_size - 200))
    if not isinstance(tree.entries.get(b"lost+found"), Directory):
        tree.entries.pop(b"lost+found", None)
    image = write_plan(plan(tree, Ext4Options(block_size=block_size)), tmp_path / "image")
    with mounted(image, tmp_path / "at") as at:
        assert differences(tree, at) == []


def work(at: Path) -> None:
    """Change every kind of thing: names in an indexed directory until leaves split, files, links, attributes."""
    for index in range(1500):
        (at / "large" / f"new name {index}").write_bytes(b"n" * index)
    for name in sorted(os.listdir(at / "large"))[::3]:
        (at / "large" / name).unlink()
    (at / "megabytes").write_bytes(b"overwritten" * 200_000)
    with (at / "islands").open("r+b") as file:
        file.seek(4096)
        file.write(b"between" * 1000)
        file.truncate(3 << 20)
    with (at / "sparse").open("r+b") as file:
        file.seek(1 << 30)
        file.write(b"middle")
    (at / "new").mkdir()
    shutil.copytree(at / "deep", at / "new" / "deep")
    shutil.rmtree(at / "deep")
    os.rename(at / "first", at / "team" / "first")
    os.link(at / "small", at / "another small")
    os.symlink("x" * 200, at / "new link")
    os.setxattr(at / "labelled", "user.more", bytes(700))
    os.removexattr(at / "shared", "system.posix_acl_access")
    os.mkfifo(at / "new pipe")


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize("options", [{"free": 0.6}, {"size": 700 * MiB}])
def test_the_kernel_writes(tmp_path, block_size, options):
    planned = plan(fitting(block_size), Ext4Options(block_size=block_size, extra_inodes=2000, **options))
    image = write_plan(planned, tmp_path / "image")
    with mounted(image, tmp_path / "at", "rw") as at:
        work(at)
    e2fsck(image)
    with mounted(image, tmp_path / "at", "rw") as at:
        assert len(os.listdir(at / "large")) == 3000
        assert (at / "another small").read_bytes() == b"small\n"


def test_the_kernel_fills_every_group(tmp_path):
    # Groups whose bitmaps and tables were never written are made by the kernel when it first uses them.
    planned = plan(
        Directory(), Ext4Options(block_size=1024, size=200 * MiB, reserved_percent=0, bytes_per_inode=65536)
    )
    image = write_plan(planned, tmp_path / "image")
    with mounted(image, tmp_path / "at", "rw") as at:
        status = os.statvfs(at)
        assert status.f_bfree == planned.summary.free_blocks
        assert status.f_blocks == planned.summary.blocks - planned.summary.overhead_blocks
        assert status.f_ffree == planned.summary.free_inodes
        free = status.f_bavail * 1024
        for index in range(1000):
            (at / f"{index}").write_bytes(b"x" * (free // 1010))
        for index in range(planned.summary.free_inodes - 1000):
            os.mknod(at / f"empty {index}")
        with pytest.raises(OSError, match="No space left"):
            os.mknod(at / "one too many")
    e2fsck(image)


def test_a_tebibyte(tmp_path):
    planned = plan(everything(), Ext4Options(size=TiB))
    image = write_plan(planned, tmp_path / "image")
    with mounted(image, tmp_path / "at", "rw") as at:
        assert differences(everything(), at) == []
        (at / "new").write_bytes(b"new" * 1_000_000)
    e2fsck(image)


def stream(tree: Directory, options: Ext4Options, path: Path) -> None:
    """Write a tree whose bodies pass once."""
    device = MemoryDevice(options.size or 8 * GiB)
    _, planned = stream_tree(tree, options, device)
    copy(open_plan(planned), device, target_is_zero=True)
    save(device, path)
    os.truncate(path, planned.size)


@pytest.mark.parametrize("block_size", [1024, 4096])
@pytest.mark.parametrize("options", [{}, {"free": 0.6}, {"size": GiB}])
def test_a_streamed_file_system(tmp_path, block_size, options):
    image = tmp_path / "image"
    stream(fitting(block_size), Ext4Options(block_size=block_size, extra_inodes=2000, **options), image)
    e2fsck(image)
    with mounted(image, tmp_path / "at") as at:
        assert differences(fitting(block_size), at) == []
    if options:
        with mounted(image, tmp_path / "at", "rw") as at:
            work(at)
        e2fsck(image)
