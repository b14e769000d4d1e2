"""Disks that become larger with their last partition and file system, and smaller; cut off at every write."""

import random
from uuid import UUID

import pytest

from blockwright.check import check
from blockwright.device.base import ResizableDevice
from blockwright.device.copy import copy
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.disk.edit import DiskEditor
from blockwright.disk.mkfs import make_ext4
from blockwright.disk.resize import resize
from blockwright.errors import NoSpace, UsageError
from blockwright.fs.fat.device import open_plan
from blockwright.fs.fat.options import FatOptions
from blockwright.fs.fat.plan import plan as fat_plan
from blockwright.resolve import open_editor, open_file_system
from blockwright.table import edit
from blockwright.table import read as tables
from blockwright.table.check import check as check_table
from blockwright.table.gaps import Wish
from blockwright.table.gpt import change as gpt
from blockwright.table.gpt.names import TYPES
from blockwright.table.gpt.plan import plan
from blockwright.table.mbr import change as mbr
from blockwright.testing.crash import CrashDevice
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File
from blockwright.units import MiB
from tests.support.inprocess import blockwright, document
from tests.support.tools import run, tool

KINDS = ["gpt", "mbr", "logical"]
BODY = random.Random(1).randbytes(300_000)


def table_of(kind, size):
    if kind in ("gpt", "fat"):
        table = plan([], seed=b"resize", size=size)
        table, _ = gpt.add(table, TYPES["esp"], Wish(2 * MiB), guid=UUID(int=1))
        return [gpt.add(table, TYPES["linux-generic"], Wish(), guid=UUID(int=2))[0]]
    table, _ = mbr.add(mbr.new_table(size, disk_signature=7), 0x0C, Wish(2 * MiB))
    if kind == "mbr":
        return [mbr.add(table, 0x83, Wish())[0]]
    outer, _ = mbr.add(table, 0x0F, Wish())
    return [outer, mbr.add(outer, 0x83, Wish(), logical=True)[0]]


def fill(device, kind):
    """A disk with two partitions, the last of them with a file system and a file in it."""
    for table in table_of(kind, device.size):
        edit.write(device, table)
    last = table.partitions[-1]
    with Window(device, last.start, last.size, owns=False) as window:
        if kind == "fat":
            copy(open_plan(fat_plan(Directory(), FatOptions(seed=b"resize", bits=16, size=last.size))), window)
        else:
            make_ext4(window, seed=b"resize", time_ns=10**18)
        with open_editor(Window(window, 0, owns=False), source="disk") as editor:
            editor.put(b"/file", File(0o600, content=BytesContent(BODY)))
    return last.number


def verified(device, number):
    """The last partition's size, where all that the disk holds is whole."""
    found = [(place.name, each) for place in check(device, source="disk") for each in place.findings]
    assert found == []
    part = tables.read(device).partition(number)
    with open_file_system(Window(device, part.start, part.size, owns=False), source="disk") as files:
        with files.open(b"/file") as file:
            assert file.read(0, file.size) == BODY
        return part.size, files.usage().size


@pytest.fixture(params=KINDS)
def image(request, tmp_path):
    path = tmp_path / "disk.img"
    with open(path, "wb") as file:
        file.truncate(20 * MiB)
    with FileDevice(path, writable=True) as device:
        number = fill(device, request.param)
    return path, number


def test_a_disk_grows_with_partition_and_file_system(image):
    path, number = image
    told = document("disk", "resize", path, "50M")
    assert (told["old_size"], told["size"], told["number"]) == (20 * MiB, 50 * MiB, number)
    with FileDevice(path) as device:
        part, system = verified(device, number)
    assert part >= 44 * MiB
    assert system > part - MiB
    assert told["file_system"]["size"] == system
    before = path.read_bytes()
    assert blockwright("disk", "resize", path, "--partition", str(number)).stdout.decode() == f"{path}:{number}\n"
    assert path.read_bytes() == before
    run([tool("sfdisk"), "--verify", path])


def test_what_is_not_the_last_or_does_not_fit_is_refused(image):
    path, _ = image
    before = path.read_bytes()
    with DiskEditor(str(path)) as disk:
        with pytest.raises(UsageError, match="partition 1: expected the last one on the disk, found"):
            resize(disk, 50 * MiB, number=1)
        with pytest.raises(NoSpace, match=r"they reach to|at the least"):
            resize(disk, 10 * MiB)
        with pytest.raises(UsageError, match="expected a multiple of 512 bytes"):
            resize(disk, 50 * MiB + 1)
    assert path.read_bytes() == before


def test_free_room_at_the_end_is_cut_off(tmp_path):
    path = tmp_path / "disk.img"
    for kind in ("gpt", "mbr"):
        blockwright("disk", "create", path, "64M", "--table", kind, "--force")
        blockwright("disk", "add", path, "--size", "8M")
        blockwright("disk", "resize", path, "10M")
        assert path.stat().st_size == 10 * MiB
        assert "clean" in blockwright("check", path).stdout.decode()
        blockwright("disk", "resize", path, "9M", code=1 if kind == "gpt" else 0)


def with_fat(path, *options):
    """A disk of 16 MiB whose one partition is a FAT with a file in it."""
    blockwright("disk", "create", path, "16M", "--table", "gpt")
    blockwright("disk", "add", path, "--type", "esp")
    run([tool("mkfs.fat"), *options, "--offset", "2048", path, str(14 * 1024)])
    blockwright("fs", "write", f"{path}:1", "/EFI/file", "-p", input=BODY)


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_a_fat_grows_with_its_partition(bits, tmp_path):
    path = tmp_path / "disk.img"
    with_fat(path, "-F", str(bits), "-s", {12: "8", 16: "1", 32: "1"}[bits])
    size = 30 * MiB if bits == 16 else 48 * MiB if bits == 32 else 17 * MiB
    told = document("disk", "resize", path, str(size))
    assert told["file_system"]["kind"] == f"fat{bits}"
    assert told["file_system"]["size"] == told["partition_size"] > 14 * MiB
    assert b"fat: clean" in blockwright("check", path).stdout
    assert blockwright("fs", "cat", f"{path}:1", "/EFI/file").stdout == BODY
    before = path.read_bytes()
    blockwright("disk", "resize", path)
    assert path.read_bytes() == before


def test_a_fat_that_would_be_of_another_type_is_refused_before_anything_changes(tmp_path):
    path = tmp_path / "disk.img"
    with_fat(path, "-F", "16", "-s", "1")
    before = path.read_bytes()
    said = blockwright("disk", "resize", path, "64M", code=2).stderr.decode()
    assert "FAT16 has 65508 clusters at the most" in said
    assert path.read_bytes() == before


def test_a_fat_stays_as_it_is_when_asked(tmp_path):
    path = tmp_path / "disk.img"
    with_fat(path)
    told = document("disk", "resize", path, "32M", "--table-only")
    assert (told["partition_size"], told["file_system"]) == (30 * MiB, None)
    assert b"fat: clean" in blockwright("check", path).stdout


def test_a_fat_of_a_file_from_the_command_line(tmp_path):
    path = tmp_path / "esp.img"
    blockwright("fs", "mkfs", path, "--type", "fat16", "--size", "8M")
    blockwright("fs", "write", path, "/file", input=BODY)
    assert blockwright("fs", "resize", path, "24M").stdout == b"fat16: 8 MiB to 24 MiB\n"
    assert path.stat().st_size == 24 * MiB
    least = document("fs", "resize", path, "--minimum")["minimum"]
    told = document("fs", "resize", path, "min")
    assert (told["kind"], told["old_size"], told["size"], told["method"]) == ("fat16", 24 * MiB, least, "ordered")
    said = blockwright("fs", "resize", path, str(least - 512), code=2).stderr.decode()
    assert f"expected at least {least} bytes" in said
    assert said.count("\n") == 1
    assert blockwright("fs", "cat", path, "/file").stdout == BODY
    run([tool("fsck.fat"), "-n", path])


def test_a_partition_is_not_cut_below_its_file_system(image):
    path, number = image
    said = blockwright("disk", "set", path, str(number), "--size", "4M", code=2).stderr.decode()
    assert "bytes of the file system in it, found 4194304" in said
    blockwright("disk", "set", path, str(number), "--size", "4M", "--force")


def test_a_device_that_cannot_grow_keeps_its_size():
    with MemoryDevice(16 * MiB) as memory:
        edit.write(memory, plan([], seed=b"", size=16 * MiB))
        disk = editor_over(Window(memory, 0, owns=False))
        assert resize(disk, 16 * MiB).size == 16 * MiB
        with pytest.raises(UsageError, match="expected its own size of 16777216 bytes, which cannot change"):
            resize(disk, 32 * MiB)


@pytest.mark.parametrize("kind", [*KINDS, "fat"])
def test_cut_off_at_every_write_the_same_call_finishes(kind, monkeypatch):
    small = MemoryDevice(12 * MiB)
    number = fill(small, kind)
    small.resize(24 * MiB)  # the first step, which is whole by itself
    source = random.Random(f"resize.{kind}")
    whole = CrashDevice(small, owns=False)
    expected = finish(whole)
    assert expected[0] > 18 * MiB
    states = list(whole.cuts(source, torn_for_each=1))
    assert len(states) > 10
    for what, after in states:
        assert finish(after) == expected, f"resize.{kind}: {what}"
    assert verified(whole, number) == expected


def finish(device):
    """Do the work on a device, and return the sizes that came of it."""
    return verified(device, resize(editor_over(device), None).number)


def editor_over(device):
    disk = DiskEditor.__new__(DiskEditor)
    disk.name, disk.device, disk._given, disk._changed = "disk", device, None, False
    return disk


class Stopped(Exception):
    pass


class Uncut(CrashDevice, ResizableDevice):
    """A disk that is killed before its end is cut off."""

    def _resize(self, size):
        raise Stopped


@pytest.mark.parametrize("kind", ["gpt", "mbr"])
def test_cut_off_while_it_becomes_smaller_the_same_call_finishes(kind):
    large, source = MemoryDevice(32 * MiB), random.Random(f"smaller.{kind}")
    for table in table_of(kind, 16 * MiB):
        edit.write(large, edit.fit(table, large.size))
    before = tables.read(large).partitions
    whole = Uncut(large, owns=False)
    with pytest.raises(Stopped):
        resize(editor_over(whole), 16 * MiB)
    states = list(whole.cuts(source))
    assert len(states) > (3 if kind == "gpt" else 0)
    for what, after in states:
        with MemoryDevice(content=after.read(0, after.size)) as disk:
            assert tables.read(disk).partitions == before, what
            resize(editor_over(disk), 16 * MiB)
            assert disk.size == 16 * MiB
            assert tables.read(disk).partitions == before
            assert check_table(disk) == [], what
