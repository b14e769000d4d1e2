"""Sizes that are told by how much they change, +5G and -5G, and mean the same wherever a size is changed."""

import pytest

from blockwright.build.definition import Definition, RootOptions
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import UsageError
from blockwright.fs.ext4 import resize as ext4
from blockwright.fs.fat import resize as fat
from blockwright.testing.crash import CrashDevice
from blockwright.units import MiB
from tests.support.inprocess import blockwright, document


@pytest.mark.parametrize("kind", ["ext4", "ext2", "fat32"])
def test_a_file_system_becomes_so_much_larger_or_smaller_than_it_is(tmp_path, kind):
    image = tmp_path / "image"
    blockwright("fs", "mkfs", image, "--type", kind, "--size", "80M")
    with FileDevice(image, writable=True) as device:
        device.resize(100 * MiB)  # so that it counts from the file system's size
    for change, size in (("+8M", 88), ("-16M", 72), ("-0", 72), ("+1M", 73)):
        assert document("fs", "resize", image, change)["size"] == size * MiB
    assert image.stat().st_size == 100 * MiB


def test_a_disk_and_a_bare_image_change_by_so_much_too(tmp_path):
    disk, bare = tmp_path / "disk.img", tmp_path / "bare.img"
    blockwright("disk", "create", disk, "8M", "--table", "gpt")
    blockwright("disk", "create", bare, "8M")
    blockwright("disk", "resize", disk, "-3M")
    blockwright("disk", "size", "--shrink", bare, "-2M")
    assert (disk.stat().st_size, bare.stat().st_size) == (5 * MiB, 6 * MiB)
    found = blockwright("disk", "size", bare, "-2M", code=2).stderr
    assert b"--shrink cuts off what lies behind 4194304" in found


@pytest.mark.parametrize("command", [("fs", "resize"), ("disk", "resize"), ("disk", "size")])
def test_what_is_no_change_of_a_size_is_refused_in_one_line(tmp_path, command):
    image = tmp_path / "image"
    blockwright("fs", "mkfs", image, "--size", "8M")
    for size, told in (
        ("-9M", b"size '-9437184': expected less than the 8388608 bytes that there are"),
        ("-8M", b"size '-8388608': expected less than the 8388608 bytes that there are"),
        ("-", b"size '': expected a number with an optional unit"),
        ("-wide", b"o such option"),
        ("--5M", b"o such option"),
    ):
        assert told in blockwright(*command, image, size, code=2).stderr
    assert b"--minimun" in blockwright(*command, image, "-1M", "--minimun", code=2).stderr
    assert image.stat().st_size == 8 * MiB


@pytest.mark.parametrize(("kind", "module"), [("ext2", ext4), ("fat16", fat)])
def test_what_was_interrupted_is_not_counted_from(tmp_path, kind, module):
    """At each power cut: either nothing says that a resize is under way, or only a size finishes it."""
    image = tmp_path / "image"
    blockwright("fs", "mkfs", image, "--type", kind, "--size", "12M")
    device = CrashDevice(MemoryDevice(content=image.read_bytes() + bytes(4 * MiB)))
    module.resize(device, lambda present: present + 4 * MiB)
    refused = 0
    for count in range(len(device.events) + 1):
        disk = device.cut(count)
        told = ""
        try:
            assert module.resize(disk, lambda present: present).size in (12 * MiB, 16 * MiB)
        except UsageError as error:
            told = str(error)
        if told:
            assert told == "resize: one was interrupted: expected the size to finish it with, without + or -"
            assert module.resize(disk, 16 * MiB).size == 16 * MiB
            refused += 1
    assert refused


@pytest.mark.parametrize(
    "line",
    [
        "build files -o new.img --size 0",
        "build files -o new.img --root-size 0",
        "build files -o new.img --esp-size 0k",
        "build files -o new.img --table none --size 0",
        "build files -o new.img --partition mount=/,size=0",
        "build -f none.toml files -o new.img",
        "build -f number.toml files -o new.img",
        "disk create new.img 0",
        "disk create new.qcow2 0 --table gpt",
        "disk add disk.img --size 0",
        "disk set disk.img:1 --size 0",
        "disk resize disk.img 0",
        "disk size disk.img 0 --shrink",
        "fetch-and-create files --size 0",
        "fs mkfs new.ext4 --size 0",
        "fs mkfs new.fat --type fat --size 0.0M",
        "fs resize disk.img:1 0",
        "loop attach disk.img --size 0",
        "pool grow main 0",
        "pool grow main --metadata 0",
        "serve files --size 0",
        "volume create v --size 0",
        "volume grow w 0",
    ],
)
def test_nothing_is_made_of_no_bytes(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    (tmp_path / "files").mkdir()
    (tmp_path / "none.toml").write_text('size = "0"\n')
    (tmp_path / "number.toml").write_text("size = 0\n")
    blockwright("disk", "create", "disk.img", "8M", "--table", "gpt")
    blockwright("disk", "add", "disk.img", "--size", "2M")
    before = (tmp_path / "disk.img").read_bytes()
    blockwright("pool", "create", "main")
    blockwright("volume", "create", "w", "--size", "1M")
    told = blockwright(*line.split(), code=1 if "toml" in line else 2).stderr
    assert b"size '0" in told
    assert b": expected at least one byte\n" in told
    assert not [each.name for each in tmp_path.iterdir() if each.name.startswith("new")]
    assert (tmp_path / "disk.img").read_bytes() == before


def test_a_definition_made_in_python_is_of_some_bytes_too():
    with pytest.raises(UsageError, match="build: size: expected at least one byte, found 0"):
        Definition(size=0).check()
    with pytest.raises(UsageError, match="build: root-size: expected at least one byte, found 0"):
        Definition(root=RootOptions(size=0)).check()
