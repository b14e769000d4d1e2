"""FAT volumes that we made larger or smaller: fsck.fat finds nothing, and mtools reads every file and adds more."""

import pytest

from blockwright.fs.fat.resize import minimum_size, resize
from blockwright.units import KiB, MiB
from tests.support.disks import save
from tests.support.fatresize import empty, file, fill, geometry, judge, seen
from tests.support.fatvolumes import planned
from tests.support.tools import run, tool

SHAPES = {
    "fat12": (400 * KiB, 1500 * KiB, "-F", "12", "-s", "1"),
    "fat16": (3 * MiB, 20 * MiB, "-F", "16", "-s", "1", "-f", "1"),
    "fat32": (40 * MiB, 200 * MiB, "-F", "32", "-s", "1", "-R", "64"),
    "sectors": (20 * MiB, 80 * MiB, "-F", "16", "-S", "4096", "-s", "1"),
}
ENV = {"TZ": "UTC"}


def read_back(path, contents, folder) -> None:
    """Fail unless mtools finds the same names and bytes."""
    run([tool("mcopy"), "-s", "-n", "-i", path, "::/*", folder], env=ENV)
    found = {}
    for each in folder.rglob("*"):
        name = b"/" + str(each.relative_to(folder)).encode()
        found[name] = None if each.is_dir() else each.read_bytes()
    assert found == contents


@pytest.mark.parametrize("shape", SHAPES)
def test_mtools_reads_every_file_back(shape, tmp_path):
    small, large, *options = SHAPES[shape]
    device = fill(empty(tmp_path, small, *options))
    contents = seen(device)
    path = tmp_path / "volume"
    for number, size in enumerate((large, None)):
        resize(device, minimum_size(device) if size is None else size)
        save(device, path)
        run([tool("fsck.fat"), "-n", path])
        folder = tmp_path / f"read {number}"
        folder.mkdir()
        read_back(path, contents, folder)


def test_mtools_fills_what_was_added(tmp_path):
    device = planned(bits=16)
    before = geometry(device)
    resize(device, 3 * before.size)
    path, source = tmp_path / "volume", tmp_path / "more"
    save(device, path)
    content = file(2 * before.size, 1).content
    data = bytearray(content.size)
    content.read_into(0, memoryview(data))
    source.write_bytes(data)
    run([tool("mcopy"), "-i", path, source, "::/more"], env=ENV)
    run([tool("fsck.fat"), "-n", path])
    run([tool("mcopy"), "-i", path, "::/more", tmp_path / "back"], env=ENV)
    assert (tmp_path / "back").read_bytes() == data


def test_a_judge_that_can_fail(tmp_path):
    device = fill(empty(tmp_path, 3 * MiB, "-F", "16", "-s", "1"))
    contents = seen(device)
    resize(device, 9 * MiB)
    where = geometry(device)
    device.write(where.fat_start() + 2 * 200, b"\x02\0")
    with pytest.raises(AssertionError):
        judge(device, contents, tmp_path / "volume")
