"""Disks that somebody holds, and block devices of this machine's kernel, as disks whose table changes."""

from blockwright.disk.create import create
from blockwright.system.linux import loop
from blockwright.units import MiB
from tests.support.command import blockwright, document
from tests.support.loops import needs_loop, sparse
from tests.support.tools import run, tool

pytestmark = needs_loop
SIZE = 64 * MiB


def test_a_block_device_without_partitions_in_the_kernel(tmp_path):
    path = sparse(tmp_path / "disk.img", SIZE)
    with loop.attach(path, block_size=4096) as device:
        blockwright("disk", "table", device.path, "gpt")
        assert blockwright("disk", "add", device.path).stdout.decode() == f"{device.path}:1\n"
        assert document("disk", "table", device.path)["sector_size"] == 4096
    assert document("disk", "table", path)["partitions"][0]["start"] == MiB


def test_a_mounted_disk_is_refused_with_where(tmp_path):
    path = sparse(tmp_path / "disk.img", SIZE)
    run([tool("mke2fs"), "-q", "-t", "ext4", path])
    point = tmp_path / "mounted"
    point.mkdir()
    with loop.attach(path) as device:
        run(["mount", device.path, point])
        try:
            done = blockwright("disk", "table", device.path, "gpt", "--force", code=1)
            assert f"is in use: mounted on {point}".encode() in done.stderr
        finally:
            run(["umount", point])
        assert b"ext4 already" in blockwright("disk", "table", device.path, "gpt", code=2).stderr


def test_an_attached_image_is_refused_with_its_device(tmp_path):
    path = tmp_path / "disk.img"
    create(str(path), SIZE, kind="gpt", seed=b"")
    with loop.attach(path) as device:
        assert f"attached to {device.path}".encode() in blockwright("disk", "add", path, code=1).stderr
