"""What every other guest test stands on: this is a kernel of our own, with loop devices, memory and disks."""

import os
from pathlib import Path

import pytest

from tests.guest import prepare
from tests.support.tools import run, tool


def test_kernel_is_not_the_hosts():
    mounts = Path("/proc/mounts").read_bytes()
    assert b"hostfs" in mounts or b"virtiofs" in mounts
    assert os.getuid() == 0


def test_host_files_cannot_be_written():
    with pytest.raises(OSError, match="Read-only file system"):
        Path(__file__).with_name("never").write_bytes(b"")


def test_memory_file_system(tmp_path):
    (tmp_path / "x").write_bytes(b"y" * 1000)
    assert (tmp_path / "x").stat().st_size == 1000


def test_devices_the_kernel_side_is_tested_with():
    nodes = ("/dev/loop-control", "/dev/mapper/control", "/dev/nbd0")
    assert [node for node in nodes if not os.path.exists(node)] == []
    targets = run([tool("dmsetup"), "targets"]).stdout.split()
    missing = {"linear", "striped", "error", "zero", "crypt", "snapshot", "thin", "thin-pool", "verity", "flakey"}
    assert missing - set(targets) == set()


@pytest.mark.prepare(by=prepare.mke2fs_image)
def test_loop_mount_from_the_host(prepared, mount):
    point = mount(prepared / "image.ext4", fstype="ext4")
    assert (point / "link").read_bytes() == b"from the host\n"
    assert (point / "lost+found").is_dir()


@pytest.mark.prepare(by=prepare.mke2fs_image)
def test_written_and_checked_in_memory(prepared, mount, tmp_path):
    image = tmp_path / "image"
    image.write_bytes((prepared / "image.ext4").read_bytes())
    point = mount(image, fstype="ext4", options="rw")
    (point / "new").write_bytes(b"n" * 100_000)
    run(["umount", point])
    run([tool("e2fsck"), "-fn", image])
    assert "new" in run([tool("debugfs"), "-R", "ls -p /", image]).stdout


@pytest.mark.prepare(by=prepare.two_blank_disks)
def test_disks_of_the_host(prepared, prepared_disks):
    for device, size in zip(prepared_disks, (4 << 20, 8 << 20), strict=True):
        with open(device, "r+b", buffering=0) as disk:
            assert disk.seek(0, os.SEEK_END) == size
            disk.seek(size - 512)
            disk.write(b"\x5a" * 512)
            os.fsync(disk.fileno())
    assert (prepared / "disk8").read_bytes()[-512:] == b"\x5a" * 512
