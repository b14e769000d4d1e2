"""What we write, a Linux kernel mounts: the same names, owners, modes, times, attributes, links and contents."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.fat.device import open_plan as open_fat
from blockwright.fs.fat.options import FatOptions
from blockwright.fs.fat.plan import plan as plan_fat
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent
from blockwright.tree.host import read_directory
from blockwright.tree.node import Directory, File
from tests.support.command import blockwright, files_in
from tests.support.disks import save
from tests.support.everything import everything
from tests.support.tools import run, tool


def ext4_image(directory: Path, block_size: int) -> Path:
    """A file system with everything in it, and room to write."""
    image = directory / "image.ext4"
    options = Ext4Options(block_size=block_size, free=0.3, inodes=4000)
    save(open_plan(plan(everything(block_size=block_size), options)), image)
    return image


def fat_images(directory: Path) -> None:
    """floppy.fat (FAT12), small.fat (FAT16) and large.fat (FAT32), with names of every kind."""
    for name, size in (("floppy.fat", 2880 << 10), ("small.fat", 16 << 20), ("large.fat", 80 << 20)):
        save(open_fat(plan_fat(fat_tree(), FatOptions(size=size))), directory / name)


def fat_tree() -> Directory:
    """Names that need long entries and names that do not; times are whole even seconds, as FAT keeps them."""
    time_ns = 1_600_000_000 * 10**9
    names = ["PLAIN.TXT", "lower.txt", "Mixed Case Name.text", "x" * 200, "BOOTX64.EFI", "r\u00e9sum\u00e9.txt"]
    files = {name.encode(): File(mtime_ns=time_ns, content=BytesContent(name.encode() * 3000)) for name in names}
    below = Directory(mtime_ns=time_ns, entries={**files})
    return Directory(mtime_ns=time_ns, entries={b"EFI": below, **files})


@pytest.mark.parametrize("size", [1024, 2048, 4096])
def test_everything_is_there(mount, tmp_path, size):
    point = mount(ext4_image(tmp_path, size), fstype="ext4")
    seen = read_directory(point)
    assert isinstance(seen.entries.pop(b"lost+found"), Directory)
    assert compare_trees(everything(block_size=size), seen, contents=True) == []


def test_the_comparison_can_fail(mount, tmp_path):
    point = mount(ext4_image(tmp_path, 4096), fstype="ext4")
    seen = read_directory(point)
    del seen.entries[b"lost+found"]
    expected = everything()
    expected.entries[b"small"].mtime_ns += 1
    del expected.entries[b"second"]
    aspects = {(each.path, each.aspect) for each in compare_trees(expected, seen, contents=True)}
    assert (b"small", "mtime_ns") in aspects
    assert (b"second", "missing") in aspects


@pytest.mark.parametrize("size", [1024, 4096])
def test_the_kernel_writes_and_leaves_it_clean(mount, tmp_path, size):
    image = ext4_image(tmp_path, size)
    point = mount(image, fstype="ext4", options="rw")
    for number in range(500):
        (point / "large" / f"new {number}").write_bytes(b"n" * number * 7)
    for number in range(0, 700, 3):
        for path in (point / "large").glob(f"{number:06d}-*"):
            path.unlink()
    (point / "megabytes").write_bytes(b"rewritten")
    (point / "islands").unlink()
    (point / "team" / "heir").mkdir()
    os.setxattr(point / "attributes", "user.more", b"m" * 300)
    os.truncate(point / "sparse", 1 << 20)
    (point / "first").unlink()
    shutil.rmtree(point / "deep")
    run(["umount", point])
    run([tool("e2fsck"), "-fn", image])


def test_resize2fs_grows_it_while_mounted(mount, tmp_path):
    image = tmp_path / "image"
    little = Directory(entries={b"file": File(content=BytesContent(b"kept"))})
    save(open_plan(plan(little, Ext4Options(size=1 << 30))), image)
    os.truncate(image, 100 << 30)
    point = mount(image, fstype="ext4", options="rw")
    device = run(["findmnt", "-n", "-o", "SOURCE", point]).stdout.strip()
    said = run([tool("resize2fs"), device], timeout=300)
    assert "on-line resizing required" in said.stdout + said.stderr
    assert os.statvfs(point).f_blocks * 4096 > 95 << 30
    (point / "after").write_bytes(b"a" * 5_000_000)
    assert (point / "file").read_bytes() == b"kept"
    run(["umount", point])
    run([tool("e2fsck"), "-fn", image], timeout=300)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    small, source = tmp_path / "small", tmp_path / "source"
    small.mkdir()
    source.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", small])
    try:
        (small / "mine").write_bytes(b"mine")
        (source / "large").write_bytes(os.urandom(3 << 20))
        for way in (["build", source, "-o", small / "mine", "--force"], ["build", "-", "-o", small / "other"]):
            archive = subprocess.run(["tar", "c", "-C", source, "."], capture_output=True, check=True).stdout
            done = blockwright(*way, code=1, input=archive if "-" in way else None)
            assert b"no space left" in done.stderr.lower()
            assert files_in(small) == ["mine"]
            assert (small / "mine").read_bytes() == b"mine"
    finally:
        run(["umount", small])


@pytest.mark.parametrize("name", ["floppy.fat", "small.fat", "large.fat"])
@pytest.mark.prepare(by=fat_images)
def test_fat_is_mounted(prepared, mount, name):
    point = mount(prepared / name, fstype="vfat", options="ro,utf8,tz=UTC,shortname=mixed")
    seen = read_directory(point)
    ignore = {"permissions", "uid", "gid", "links"}
    seen.mtime_ns = fat_tree().mtime_ns
    assert compare_trees(fat_tree(), seen, contents=True, ignore=ignore) == []
