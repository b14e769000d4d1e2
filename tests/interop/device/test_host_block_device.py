"""Block devices of the host: loop devices and mounts, as root and only where the kernel has them."""

import os
import random
import sys

import pytest

from blockwright.device.file import FileDevice, HostBlockDevice, open_path
from blockwright.device.output import OutputFile
from blockwright.errors import InUse, NoSpace, UsageError
from blockwright.testing import check_device
from blockwright.units import MiB
from tests.support.tools import run, tool

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not os.path.exists("/dev/loop-control"),
    reason="needs root and loop devices",
)

SIZE = 8 * MiB


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    with open(path, "wb") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture
def loop(image):
    device = run([tool("losetup", package="mount"), "--find", "--show", image]).stdout.strip()
    yield device
    run([tool("losetup", package="mount"), "--detach", device])


@pytest.fixture
def mounted(loop, tmp_path):
    run([tool("mke2fs"), "-q", "-t", "ext4", loop])
    point = tmp_path / "a mount point"
    point.mkdir()
    run([tool("mount", package="mount"), loop, point])
    yield point
    run([tool("umount", package="mount"), point])


def test_a_file_attached_to_a_loop_device_is_not_written(image, loop):
    with pytest.raises(InUse, match=rf"disk\.img: is in use: attached to {loop}$"):
        FileDevice(image, writable=True)
    with pytest.raises(InUse, match=loop):
        OutputFile(image, force=True)
    FileDevice(image).close()
    FileDevice(image, writable=True, force_unlocked=True).close()


def test_the_file_is_told_by_inode_where_its_name_has_changed(image, loop):
    moved = image.with_name("moved.img")
    image.rename(moved)
    image.write_bytes(b"another file of that name")
    with pytest.raises(InUse, match=loop):
        FileDevice(moved, writable=True)
    FileDevice(image, writable=True).close()


def test_the_file_is_told_by_the_loop_device_itself_where_the_kernel_s_name_for_it_is_gone(image, loop):
    other = image.with_name("other.img")
    os.link(image, other)
    image.unlink()
    with pytest.raises(InUse, match=loop):
        FileDevice(other, writable=True)


def test_a_block_device_keeps_the_contract(image, loop):
    content = random.Random(1).randbytes(SIZE)

    def make():
        with HostBlockDevice(loop, writable=True) as device:
            assert device.size == SIZE
            device.write(0, content)
        return open_path(loop, writable=True)

    check_device(make, content, operations=60)


def test_what_a_block_device_gets_is_in_the_file(image, loop):
    with open_path(loop, writable=True) as device:
        assert isinstance(device, HostBlockDevice)
        device.write(12_345, b"here", durable=True)
        device.zero(MiB, MiB)
        device.discard(2 * MiB + 1, MiB)
        device.flush()
    with FileDevice(image) as file:
        assert file.read(12_345, 4) == b"here"


def test_a_mounted_device_is_refused_with_its_mount_point(loop, mounted):
    with pytest.raises(InUse, match=rf"{loop}: is in use: mounted on .*a mount point"):
        HostBlockDevice(loop, writable=True)
    with pytest.raises(InUse, match="mounted on"):
        OutputFile(loop)
    with HostBlockDevice(loop) as device:
        assert device.read(1080, 2) == b"\x53\xef"
    HostBlockDevice(loop, writable=True, force_unlocked=True).close()


def test_a_device_is_claimed_while_it_is_written(loop):
    with HostBlockDevice(loop, writable=True), pytest.raises(InUse):
        HostBlockDevice(loop, writable=True)


def test_an_output_that_is_a_block_device_is_written_in_place(image, loop):
    with HostBlockDevice(loop, writable=True) as device:
        device.write(0, b"old")
    with pytest.raises(UsageError, match="holds data already; --force"):
        OutputFile(loop, size=MiB)
    with OutputFile(loop, size=MiB, force=True) as output:
        assert not output.target_is_zero
        assert output.device.size == SIZE
        output.device.write(5, b"new")
    assert os.path.exists(loop)
    with FileDevice(image) as file:
        assert file.read(5, 3) == b"new"
    with pytest.raises(NoSpace, match=f"at least {SIZE + 1} bytes, found {SIZE}"):
        OutputFile(loop, size=SIZE + 1, force=True)
    HostBlockDevice(loop, writable=True).close()
