"""The helper that boots disks can fail: a disk with nothing on it starts nothing."""

import pytest

from tests.support.qemu import BootError, boot_disk


@pytest.fixture
def blank(tmp_path):
    disk = tmp_path / "blank, with a comma"
    with disk.open("wb") as file:
        file.truncate(1 << 20)
    return disk


def test_blank_disk_does_not_boot_by_bios(blank):
    with pytest.raises(BootError, match="No bootable device"):
        boot_disk(blank, firmware="seabios", interface="ide", expect=b"hello")


@pytest.mark.ci
def test_blank_disk_does_not_boot_by_uefi(blank):
    with pytest.raises(BootError, match="UEFI Interactive Shell"):
        boot_disk(blank, firmware="ovmf", expect=b"hello")


def test_console_is_read_until_what_is_expected(blank):
    console = boot_disk(blank, firmware="seabios", interface="ide", expect=b"not a bootable disk")
    assert "SeaBIOS" in console
    assert "not a bootable disk" in console


def test_a_guest_that_says_nothing_is_stopped(blank):
    with pytest.raises(BootError, match=r"was stopped within 0\.05 s"):
        boot_disk(blank, firmware="ovmf", expect=b"hello", timeout=0.05)
