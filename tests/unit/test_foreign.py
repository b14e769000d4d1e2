"""What is told by its marks: each by bytes of ours, and those whose programs are there by what they make."""

import pytest

from blockwright.check import check
from blockwright.device.file import open_path
from blockwright.device.memory import MemoryDevice
from blockwright.errors import NotThisFormat
from blockwright.fs import foreign
from blockwright.inspect import inspect
from blockwright.resolve import open_file_system
from blockwright.units import KiB, MiB
from tests.support.inprocess import blockwright, document
from tests.support.tools import run, tool

MARKS = [
    ("luks", 0, b"LUKS\xba\xbe\0\1"),
    ("luks", 0, b"LUKS\xba\xbe\0\2"),
    ("bitlocker", 3, b"-FVE-FS-"),
    ("lvm2", 512 + 24, b"LVM2 001"),
    ("lvm2", 3 * 512 + 24, b"LVM2 001"),
    ("raid", 4096, (0xA92B4EFC).to_bytes(4, "little")),
    ("raid", 0, (0xA92B4EFC).to_bytes(4, "little")),
    ("bcache", 4096 + 24, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),
    ("verity", 0, b"verity\0\0"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("xfs", 0, b"XFSB"),
    ("btrfs", 64 * KiB + 64, b"_BHRfS_M"),
    ("ntfs", 0, b"\xebR\x90NTFS    "),
    ("refs", 0, b"\0\0\0ReFS\0\0\0\0"),
    ("exfat", 0, b"\xebv\x90EXFAT   "),
    ("f2fs", 1024, (0xF2F52010).to_bytes(4, "little")),
    ("erofs", 1024, (0xE0F5E1E2).to_bytes(4, "little")),
    ("squashfs", 0, b"hsqs"),
    ("hfsplus", 1024, b"H+\0\4"),
    ("hfsplus", 1024, b"HX\0\5"),
    ("apfs", 32, b"NXSB"),
    ("iso9660", 32 * KiB, b"\1CD001\1"),
]


@pytest.mark.parametrize(("name", "offset", "mark"), MARKS)
def test_a_mark_is_told_and_what_is_beside_it_is_none(name, offset, mark):
    device = MemoryDevice(MiB)
    device.write(510, b"\x55\xaa")  # as boot sectors of many end
    device.write(offset, mark)
    assert foreign.identify(device) == name
    [region] = inspect(device, source="x").regions
    assert (region.file_system, region.problem, region.foreign) == (None, "", name)
    with pytest.raises(NotThisFormat, match=f"found {name}, which is not read"):
        open_file_system(device, source="x")
    with pytest.raises(NotThisFormat, match=f"found {name}, which is not read"):
        list(check(device, source="x"))
    device.write(offset, bytes(len(mark)))
    device.write(offset + 1, mark)
    assert not foreign.identify(device)


@pytest.mark.parametrize("size", [0, 1, 512, 4096])
def test_a_disk_may_end_before_the_last_mark(size):
    assert not foreign.identify(MemoryDevice(size))


@pytest.mark.parametrize(
    ("name", "command"),
    [("swap", ["mkswap", "-q"]), ("xfs", ["mkfs.xfs", "-q", "-f"])],
)
def test_what_their_programs_make_is_told(tmp_path, name, command):
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(320 * MiB)
    run([tool(command[0]), *command[1:], path])
    with open_path(str(path)) as device:
        assert foreign.identify(device) == name
    assert f"  {name}\n" in blockwright("inspect", path).stdout.decode()
    assert document("inspect", path)["regions"][0]["foreign"] == name
