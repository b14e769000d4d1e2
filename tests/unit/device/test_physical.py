"""Which disk a device is, by trees that look like /sys, and who may write over it."""

import os
import struct

import pytest

from blockwright.device import darwin, physical
from blockwright.errors import UsageError


def files(root, **content):
    for name, data in content.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


def device(root, where, name, number, **content):
    """Make a device in a tree like /sys, and return its folder."""
    base = root / "devices" / where / "block" / name
    base.mkdir(parents=True)
    files(base, **({"dev": f"{number}\n", "size": "2000409264\n", "removable": "0\n"} | content))
    links = root / "dev" / "block"
    links.mkdir(parents=True, exist_ok=True)
    (links / number).symlink_to(base)
    return base


def told(root, number, udev="/nonexistent"):
    return physical.told_by_linux("/dev/x", number, str(root), str(udev))


def test_a_stick(tmp_path):
    base = device(tmp_path, "pci0/usb1/1-2/host6", "sdb", "8:16", device__model="Ultra  Fit    \n")
    files(base, removable="1\n")
    files(tmp_path, **{"udev__b8:16": "S:disk/by-id/x\nE:ID_SERIAL_SHORT=4C5300\nE:ID_BUS=usb\nE:ID_MODEL=Other\n"})
    found = told(tmp_path, "8:16", tmp_path / "udev")
    assert (found.model, found.serial, found.transport, found.removable) == ("Ultra Fit", "4C5300", "usb", True)
    assert found.size == 2000409264 * 512
    assert found.names == ("4C5300", "Ultra Fit")
    assert not found.made_up
    assert str(found) == "/dev/x: 954 GiB, Ultra Fit, serial 4C5300, usb, removable"


@pytest.mark.parametrize(
    ("where", "content", "serial", "transport"),
    [
        ("pci0/ata1/host0", {"device__vpd_pg80": b"\0\x80\0\x08 WD-1234"}, "WD-1234", "ata"),
        ("pci0/nvme/nvme0", {"device__serial": "S5GX \n"}, "S5GX", "nvme"),
        ("pci0/virtio3", {"serial": "root-disk\n"}, "root-disk", "virtio"),
        ("platform/mmc0", {"device__serial": "0x1234\n"}, "0x1234", "mmc"),
        ("platform/x", {}, "", ""),
    ],
)
def test_serial_numbers(tmp_path, where, content, serial, transport):
    device(tmp_path, where, "d", "9:0", **content)
    found = told(tmp_path, "9:0")
    assert (found.serial, found.transport) == (serial, transport)
    assert found.names == ((serial,) if serial else ("d",))


def test_a_partition_is_of_its_disk(tmp_path):
    base = device(tmp_path, "pci0/ata1", "sda", "8:0", device__model="Big\n")
    part = base / "sda1"
    part.mkdir()
    files(part, partition="1\n", dev="8:1\n", size="8\n")
    (tmp_path / "dev/block/8:1").symlink_to(part)
    found = told(tmp_path, "8:1")
    assert (found.of, found.model, found.kernel_name, found.size) == ("sda", "Big", "sda1", 4096)


def test_what_the_kernel_makes_up_is_no_disk(tmp_path, monkeypatch):
    device(tmp_path, "virtual", "loop3", "7:3")
    assert told(tmp_path, "7:3").made_up
    monkeypatch.setattr(physical, "STAND_INS", {"loop3"})
    assert not told(tmp_path, "7:3").made_up


def test_texts_are_the_disks_to_choose(tmp_path):
    device(tmp_path, "pci0", "sdc", "8:32", device__model=b"\x1b[31mevil\xff" + b"m" * 9000, size="nonsense")
    found = told(tmp_path, "8:32")
    assert len(found.model) <= physical.SHOWN
    assert found.model.isprintable()
    assert found.size == 0


def test_what_is_no_device_is_no_disk(tmp_path):
    assert told(tmp_path, "8:99") is None
    assert physical.disk_at(str(tmp_path)) is None
    assert physical.disk_at(str(tmp_path / "gone")) is None


def disk(**more):
    return physical.Disk("/dev/x", "x", 10, "Model", "Serial", **more)


@pytest.mark.parametrize(
    ("found", "name", "says"),
    [
        (disk(), None, "--yes-really 'Serial'"),
        (disk(), "x", "is another disk than was named"),
        (disk(), "Serial", None),
        (disk(), "Model", None),
        (physical.Disk("/dev/x", "x", 10), "x", None),
    ],
)
def test_who_may_write_over_it(monkeypatch, found, name, says):
    monkeypatch.setattr(physical, "disk_at", lambda path: found)
    with physical.confirmed(name):
        if says is None:
            assert physical.check_meant("/dev/x")
        else:
            with pytest.raises(UsageError, match=says):
                physical.check_meant("/dev/x")


def test_a_partition_is_no_place_for_a_disk(monkeypatch):
    for found, wrong in ((disk(of="y"), True), (disk(of="y", made_up=True), False), (disk(), False), (None, False)):
        monkeypatch.setattr(physical, "disk_at", lambda path, found=found: found)
        if wrong:
            with pytest.raises(UsageError, match="a partition of y"):
                physical.check_whole("/dev/x")
        else:
            physical.check_whole("/dev/x")


def test_others_need_no_name(monkeypatch):
    for found in (None, disk(made_up=True), disk(of="y")):
        monkeypatch.setattr(physical, "disk_at", lambda path, found=found: found)
        assert not physical.check_meant("/dev/x")


def statfs(source, point):
    data = bytearray(darwin.STATFS)
    struct.pack_into("1024s1024s", data, 88, os.fsencode(point), os.fsencode(source))
    return bytes(data)


def test_mounts_of_macos():
    data = statfs("/dev/disk1s2", "/") + statfs("/dev/disk12", "/b") + statfs("/dev/disk1", "/c") + b"cut"
    mounts = list(darwin.parse_mounts(data))
    assert mounts == [("/dev/disk1s2", "/"), ("/dev/disk12", "/b"), ("/dev/disk1", "/c")]
    assert darwin.on_disk(iter(mounts), "disk1") == ["/", "/c"]
    assert darwin.on_disk(iter(mounts), "disk2") == []
