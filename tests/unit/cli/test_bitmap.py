"""`disk bitmap`: what each verb makes of the marks, told by what a copy of only the changes brings."""

from pathlib import Path

import pytest

from blockwright.resolve import open_device
from blockwright.units import KiB, MiB
from tests.support.inprocess import blockwright, document

pytestmark = pytest.mark.unprivileged


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk of 4 MiB with the bitmap `daily`, which records."""
    (tmp_path / "raw").write_bytes(bytes(4 * MiB))
    blockwright("convert", tmp_path / "raw", tmp_path / "disk.qcow2")
    blockwright("disk", "bitmap", "create", tmp_path / "disk.qcow2", "daily", "--granularity", "64K")
    return tmp_path / "disk.qcow2"


def write(disk: Path, offset: int, data: bytes) -> None:
    with open_device(str(disk), writable=True) as device:
        device.write(offset, data)


def changed(disk: Path) -> list[int]:
    """The pieces of 64 KiB that a copy of what `daily` marks brings."""
    copy = disk.with_name("copy")
    copy.write_bytes(b"\xff" * 4 * MiB)
    blockwright("convert", "--changed-since", "daily", disk, copy)
    data, piece = copy.read_bytes(), 64 * KiB
    return [at // piece for at in range(0, len(data), piece) if data[at : at + piece] != b"\xff" * piece]


def listed(disk: Path) -> str:
    return blockwright("disk", "bitmap", "list", disk).stdout.decode()


def test_it_records_from_when_it_was_made(disk: Path) -> None:
    assert changed(disk) == []
    write(disk, 3 * 64 * KiB, b"a")
    assert changed(disk) == [3]
    assert listed(disk) == "name   granularity  state\ndaily       64 KiB  recording\n"


def test_disabled_it_stays_as_it_is_and_enabled_it_goes_on(disk: Path) -> None:
    write(disk, 0, b"a")
    blockwright("disk", "bitmap", "disable", disk, "daily")
    assert listed(disk).splitlines()[1].endswith("disabled")
    write(disk, MiB, b"b")
    assert changed(disk) == [0]
    blockwright("disk", "bitmap", "enable", disk, "daily")
    write(disk, 2 * MiB, b"c")
    assert changed(disk) == [0, 32]
    assert listed(disk).splitlines()[1].endswith("recording")


def test_cleared_it_marks_nothing_and_goes_on(disk: Path) -> None:
    write(disk, 0, b"a")
    blockwright("disk", "bitmap", "clear", disk, "daily")
    assert changed(disk) == []
    write(disk, MiB, b"b")
    assert changed(disk) == [16]


def test_removed_it_is_gone_and_others_stay(disk: Path) -> None:
    blockwright("disk", "bitmap", "create", disk, "weekly", "--disabled")
    blockwright("disk", "bitmap", "remove", disk, "daily")
    assert [each["name"] for each in document("disk", "bitmap", "list", disk)["bitmaps"]] == ["weekly"]
    blockwright("disk", "bitmap", "remove", disk, "weekly")
    assert listed(disk) == ""
    told = blockwright("disk", "bitmap", "clear", disk, "daily", code=5).stderr.decode()
    assert told == "blockwright: bitmap 'daily': the image has none\n"
    blockwright("check", disk)


@pytest.mark.parametrize("verb", ["clear", "remove", "enable", "disable"])
def test_one_that_is_not_there_is_named(disk: Path, verb: str) -> None:
    before = disk.read_bytes()
    told = blockwright("disk", "bitmap", verb, disk, "nightly", code=5).stderr.decode()
    assert told == "blockwright: bitmap 'nightly': expected one of 'daily'\n"
    assert disk.read_bytes() == before
