"""/dev/rdiskN without a Mac: the names, sizes and refusals of one, over a file."""

import os
import random

import pytest

from blockwright.convert import convert
from blockwright.device import darwin, physical
from blockwright.device.file import FileDevice, HostBlockDevice, open_path
from blockwright.device.output import OutputFile
from blockwright.device.rawdisk import RawDiskDevice
from blockwright.errors import InUse, NoSpace, ReadOnly, SourceChanged, Unsupported, UsageError
from blockwright.resolve import open_device, sector_size_of
from blockwright.testing import check_device
from blockwright.units import MiB
from tests.support.rawdisks import SECTOR_SIZE, Mac

SIZE = 2 * MiB
RAW, BUFFERED = "/dev/rdisk9", "/dev/disk9"


@pytest.fixture
def medium(tmp_path):
    path = tmp_path / "medium"
    path.write_bytes(b"old " * (SIZE // 4))
    return path


@pytest.fixture
def image(tmp_path):
    """Not a whole number of the disk's sectors."""
    path = tmp_path / "image"
    path.write_bytes(random.Random(2).randbytes(300 * 1024 + 512))
    with FileDevice(path) as device:
        yield device


@pytest.fixture
def mac(monkeypatch, medium, image):
    return Mac(monkeypatch, medium)


def test_it_keeps_the_contract(mac, medium):
    content = random.Random(3).randbytes(SIZE)

    def make():
        medium.write_bytes(content)
        return open_path(RAW, writable=True)

    check_device(make, content, operations=60)


def test_what_it_is(mac):
    with open_path(RAW) as device:
        assert isinstance(device, RawDiskDevice)
        assert (device.size, device.refresh()) == (SIZE, SIZE)
        assert (sector_size_of(device), device.physical_sector_size) == (SECTOR_SIZE, SECTOR_SIZE)
        with device.backing(0, SIZE) as runs:
            assert runs is None
        assert not device.traits.writable


def test_a_sector_of_which_a_part_is_written_keeps_the_rest(mac, medium):
    with open_device(RAW, writable=True) as device:
        device.write(5, b"here", durable=True)
        device.zero(SECTOR_SIZE - 3, 7)
        device.flush()
    expected = bytearray(b"old " * (SIZE // 4))
    expected[5:9] = b"here"
    expected[SECTOR_SIZE - 3 : SECTOR_SIZE + 4] = bytes(7)
    assert medium.read_bytes() == expected


def test_an_image_is_written_to_it_and_read_back(mac, medium, image):
    with physical.confirmed("disk9"):
        convert(image, RAW, verify=True)
    data = image.read(0, image.size)
    assert medium.read_bytes() == data + (b"old " * (SIZE // 4))[len(data) :]
    assert set(mac.opened) == {RAW}


def test_either_name_is_the_same_disk(mac):
    raw, buffered = physical.disk_at(RAW), physical.disk_at(BUFFERED)
    assert raw is not None
    assert buffered is not None
    assert (raw.kernel_name, raw.size, raw.names) == (buffered.kernel_name, buffered.size, buffered.names)
    assert (raw.kernel_name, raw.of, raw.size) == ("disk9", None, SIZE)


@pytest.mark.parametrize("name", [RAW, BUFFERED])
@pytest.mark.parametrize("source", ["/dev/disk9", "/dev/rdisk9", "/dev/disk9s1", "/dev/disk9s1s2"])
def test_it_is_not_written_where_something_of_it_is_mounted(mac, medium, image, name, source):
    mac.mounts = [("/dev/disk1s1", "/"), (source, "/Volumes/Stick")]
    with physical.confirmed("disk9"), pytest.raises(InUse, match=f"^{name}: is in use: mounted on /Volumes/Stick$"):
        convert(image, name, force=True)
    with pytest.raises(InUse, match="mounted on /Volumes/Stick"):
        open_device(name, writable=True)
    open_device(name).close()
    open_device(name, writable=True, force_unlocked=True).close()
    assert medium.read_bytes() == b"old " * (SIZE // 4)


def test_what_the_disk_refuses_is_in_use(mac, monkeypatch):
    def busy(path, flags, mode=0o777, **_):
        raise OSError(16, os.strerror(16), path)

    monkeypatch.setattr(os, "open", busy)
    with pytest.raises(InUse, match=f"{RAW}: is in use: another program claims it"):
        RawDiskDevice(RAW, writable=True)


def test_who_may_write_over_it(mac, medium, image):
    for said, wrong in ((None, "--yes-really 'disk9' writes over all of it"), ("disk8", "is another disk")):
        with physical.confirmed(said), pytest.raises(UsageError, match=wrong):
            OutputFile(RAW, force=True)
    with physical.confirmed("disk9"), pytest.raises(NoSpace, match=f"at least {SIZE + 1} bytes, found {SIZE}"):
        OutputFile(RAW, size=SIZE + 1)
    assert medium.read_bytes() == b"old " * (SIZE // 4)


def test_one_that_takes_no_writes(mac):
    mac.writable = False
    with pytest.raises(ReadOnly, match=f"{RAW}: is read-only"):
        open_device(RAW, writable=True)


def test_one_that_is_gone_meanwhile(mac, medium):
    with open_path(RAW) as device:
        os.truncate(medium, MiB)
        with pytest.raises(SourceChanged, match="ends early"):
            device.read(MiB - 5, 10)


def test_sectors_that_are_none(mac):
    for sector in (3000, 2 * MiB):
        mac.sector = sector
        with pytest.raises(Unsupported, match=f"found {sector}"):
            open_path(RAW)


def test_names_of_disks():
    assert darwin.disk_name("/dev/rdisk12s3s1") == ("disk12s3s1", "disk12")
    assert darwin.disk_name("/dev/disk12") == ("disk12", "disk12")
    for other in ("/dev/rdisk", "/dev/xdisk1", "/dev/disk1/x", "/disk1", "/dev/disk1s"):
        assert darwin.disk_name(other) is None


def test_elsewhere_a_character_device_is_no_disk():
    with pytest.raises(UsageError, match="found a character device"):
        open_path("/dev/zero")
    with pytest.raises(UsageError, match="found a character device"):
        HostBlockDevice("/dev/zero")
    assert not darwin.is_raw("/dev/rdisk0")
