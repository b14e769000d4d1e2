"""What we grew, the kernel grows further while it is mounted, and we once more after that."""

import fcntl
import os
import struct

import pytest

from blockwright.device.file import FileDevice
from blockwright.fs.ext4.check import check
from blockwright.fs.ext4.resize import minimum_size, resize
from blockwright.units import MiB
from tests.guest import prepare
from tests.support.tools import run, tool

EXT4_IOC_RESIZE_FS = 0x40086610
"""_IOW('f', 16, __u64): the size in blocks."""


def features(directory):
    """By name, images of 16 MiB with and without blocks kept for descriptors."""
    prepare.mke2fs_image(directory)
    for name, options in (
        ("kept", ["-t", "ext4"]),
        ("none", ["-t", "ext4", "-O", "^resize_inode"]),
        ("ext3", ["-t", "ext3"]),
    ):
        with (directory / name).open("wb") as file:
            file.truncate(16 << 20)
        run([tool("mke2fs"), "-q", "-b", "1024", *options, "-d", directory / "tree", directory / name])


@pytest.mark.prepare(by=features)
@pytest.mark.parametrize("name", ["kept", "none", "ext3"])
def test_online_resizing_goes_on_from_ours(prepared, mount, tmp_path, name):
    image = tmp_path / "image"
    run(["cp", "--sparse=always", prepared / name, image])
    os.truncate(image, 300 * MiB)
    with FileDevice(image, writable=True) as device:
        block_size = resize(device, 150 * MiB).block_size
    point = mount(image, fstype="ext4", options="rw")
    (point / "before").write_bytes(b"b" * 3_000_000)
    descriptor = os.open(point, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, EXT4_IOC_RESIZE_FS, struct.pack("<Q", 250 * MiB // block_size))
    finally:
        os.close(descriptor)
    (point / "after").write_bytes(b"a" * 3_000_000)
    run(["umount", point])
    run([tool("e2fsck"), "-fn", image])
    with FileDevice(image, writable=True) as device:
        report = resize(device)
        assert (report.old_size, report.size) == (250 * MiB, 300 * MiB)
        assert check(device) == []
        resize(device, minimum_size(device))
        assert check(device) == []
    run([tool("e2fsck"), "-fn", image])
    point = mount(image, fstype="ext4", options="rw")
    assert (point / "before").read_bytes() == b"b" * 3_000_000
    assert (point / "after").read_bytes() == b"a" * 3_000_000
    assert (point / "link").read_bytes() == b"from the host\n"
