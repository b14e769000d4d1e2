"""A disk with sectors of 4096 bytes that Linux opened past its cache: what it refuses, and that any range is had."""

import errno
import mmap
import os
import random

import pytest

from blockwright.device.rawdisk import RawDiskDevice
from blockwright.errors import InUse
from blockwright.resolve import sector_size_of
from blockwright.system.linux import loop
from blockwright.testing import check_device
from blockwright.units import MiB
from tests.support.loops import needs_loop

pytestmark = needs_loop
SIZE = 4 * MiB


@pytest.fixture
def medium(tmp_path):
    path = tmp_path / "medium"
    path.write_bytes(random.Random(7).randbytes(SIZE))
    return path


@pytest.fixture
def disk(medium):
    with loop.attach(str(medium), block_size=4096) as attached:
        yield attached.path


def test_the_disk_itself_refuses_parts_of_sectors(disk):
    fd = os.open(disk, os.O_RDWR | os.O_DIRECT)
    try:
        page = memoryview(mmap.mmap(-1, 4096))
        assert os.preadv(fd, [page], 4096) == 4096
        for offset, buffer in ((512, page), (0, page[:512])):
            with pytest.raises(OSError, match="Invalid") as caught:
                os.preadv(fd, [buffer], offset)
            assert caught.value.errno == errno.EINVAL
            with pytest.raises(OSError, match="Invalid"):
                os.pwritev(fd, [buffer], offset)
    finally:
        os.close(fd)


def test_it_keeps_the_contract(disk):
    content = random.Random(1).randbytes(SIZE)

    def make():
        with RawDiskDevice(disk, writable=True) as device:
            device.write(0, content)
        return RawDiskDevice(disk, writable=True)

    check_device(make, content, operations=60)


def test_what_it_gets_is_on_the_medium(disk, medium):
    expected = bytearray(medium.read_bytes())
    with RawDiskDevice(disk, writable=True) as device:
        assert (device.size, sector_size_of(device)) == (SIZE, 4096)
        assert device.read(1, 5000) == expected[1:5001]
        device.write(4095, b"ab" * 3000, durable=True)
        device.zero(3 * MiB + 1, 9000)
        device.zero(2 * MiB, 8192)
        device.discard(1, 4000)
        device.flush()
        with pytest.raises(InUse):
            RawDiskDevice(disk, writable=True)
    expected[4095:10095] = b"ab" * 3000
    expected[3 * MiB + 1 : 3 * MiB + 9001] = bytes(9000)
    expected[2 * MiB : 2 * MiB + 8192] = bytes(8192)
    assert medium.read_bytes() == expected


def test_what_lies_behind_the_last_whole_sector_is_left_out(tmp_path):
    path = tmp_path / "odd"
    path.write_bytes(b"x" * (SIZE + 512))
    with loop.attach(str(path), block_size=4096) as attached, RawDiskDevice(attached.path) as device:
        assert device.size == SIZE
        assert device.read(SIZE - 3, 3) == b"xxx"
