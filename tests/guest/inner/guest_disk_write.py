"""Whole disks of a machine of our own, which the kernel takes for hardware, written over by the command."""

import os

import pytest

from blockwright.device.physical import disk_at
from blockwright.system.linux import loop
from tests.guest import prepare
from tests.support.command import blockwright
from tests.support.loops import sparse
from tests.support.tools import run, tool


def content(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.prepare(by=prepare.two_blank_disks)
def test_a_disk_is_written_over_by_who_names_it(tmp_path, prepared_disks, mount):
    path, small = prepared_disks[1], prepared_disks[0]
    told = disk_at(path)
    assert told is not None
    assert not told.made_up
    image = tmp_path / "image"
    sparse(image, 6 << 20)
    run([tool("mke2fs"), "-q", "-t", "ext4", image])
    assert b"is a disk" in blockwright("convert", image, path, "--force", code=2).stderr
    assert b"another disk" in blockwright("convert", image, path, "--yes-really", "nobody", code=2).stderr
    assert not any(content(path))
    assert b"at least" in blockwright("convert", image, small, "--yes-really", disk_at(small).names[0], code=1).stderr
    blockwright("convert", image, path, "--yes-really", told.names[0], "--verify", "--zero-rest")
    assert content(path) == content(image).ljust(os.path.getsize(image), b"\0") + bytes(2 << 20)
    point = mount(path, fstype="ext4", options="rw")
    assert (point / "lost+found").is_dir()
    done = blockwright("convert", image, path, "--yes-really", told.names[0], code=1)
    assert f"mounted on {point}".encode() in done.stderr


def test_a_loop_device_is_no_disk(tmp_path):
    with loop.attach(sparse(tmp_path / "disk.img", 4 << 20)) as device:
        assert disk_at(device.path).made_up
        blockwright("convert", sparse(tmp_path / "image", 1 << 20), device.path)
