"""`fs`, `inspect`, `check` and `convert` on disks that others made."""

import os
import random
from pathlib import Path

import pytest

from tests.support.command import blockwright, document, files_in
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A GPT by sgdisk with an ext4 by mke2fs in partition 3 and a FAT by mkfs.fat in partition 1."""
    tree, image = tmp_path / "tree", tmp_path / "disk.img"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(random.Random(1).randbytes(100_000))
    (tree / "link").symlink_to("sub/file")
    with open(tree / "sparse", "wb") as file:
        file.truncate(1 << 20)
        file.seek(500_000)
        file.write(b"data")
    os.utime(tree / "sub" / "file", ns=(0, 1_600_000_000_123_456_789))
    with open(image, "wb") as file:
        file.truncate(96 << 20)
    run([tool("sgdisk"), "-n", "1:2048:+40M", "-t", "1:ef00", "-n", "3:0:+48M", "-c", "3:data", image])
    run([tool("mkfs.fat"), "-F", "32", "-n", "BOOT", "--offset", "2048", image, str(40 << 10)])
    (tmp_path / "hello").write_text("hello")
    run([tool("mcopy"), "-i", f"{image}@@1048576", tmp_path / "hello", "::/A long name.txt"])
    run([tool("mke2fs"), "-q", "-t", "ext4", "-L", "data", "-d", tree, "-E", f"offset={41 << 20}", image, "48M"])
    return image


def test_inspect_tells_what_is_there(disk: Path) -> None:
    told = document("inspect", disk)
    assert told["size"] == 96 << 20
    assert told["findings"] == []
    first, second = told["regions"]
    assert (first["partition"]["number"], first["partition"]["type"]) == (1, "esp")
    assert (first["file_system"]["kind"], first["file_system"]["label"]) == ("fat32", "BOOT")
    assert (second["partition"]["number"], second["partition"]["name"]) == (3, "data")
    assert second["file_system"]["label"] == "data"
    assert "metadata_csum" in second["file_system"]["features"]
    text = blockwright("inspect", disk).stdout.decode()
    assert "fat32" in text
    assert "ext4" in text


def test_a_damaged_primary_table_is_read_from_the_backup_and_told(disk: Path) -> None:
    with open(disk, "r+b") as file:
        file.seek(512 + 40)
        file.write(b"\xff")
    assert len(document("inspect", disk)["regions"]) == 2
    assert document("check", disk, code=3)["places"][0]["findings"]
    assert b"damaged" in blockwright("inspect", disk).stdout


def test_fs_reads_both(disk: Path, tmp_path: Path) -> None:
    assert blockwright("fs", "cat", f"{disk}:1", "/A long name.txt").stdout == b"hello"
    assert blockwright("fs", "ls", f"{disk}:1").stdout == b"A long name.txt\n"
    assert (
        blockwright("fs", "cat", disk, "/link", "--partition", "3").stdout
        == (tmp_path / "tree" / "sub" / "file").read_bytes()
    )
    listing = blockwright("fs", "ls", "-R", f"{disk}:3").stdout.splitlines()
    assert listing == [b"link", b"lost+found", b"sparse", b"sub", b"sub/file"]
    assert b"link -> sub/file" in blockwright("fs", "ls", "-l", f"{disk}:3").stdout
    assert blockwright("fs", "ls", f"{disk}:3", "/sub/file").stdout == b"/sub/file\n"


def test_fs_get_keeps_holes(disk: Path, tmp_path: Path) -> None:
    got = tmp_path / "got"
    assert blockwright("fs", "get", f"{disk}:3", "sparse", got).stdout == os.fsencode(got) + b"\n"
    assert got.read_bytes() == (tmp_path / "tree" / "sparse").read_bytes()
    assert got.stat().st_blocks * 512 < 1 << 20
    blockwright("fs", "get", f"{disk}:3", "sparse", got, code=2)


def test_fs_stat_is_what_debugfs_says(disk: Path, tmp_path: Path) -> None:
    told = document("fs", "stat", f"{disk}:3", "/sub/file")
    assert told["size"] == 100_000
    assert told["mtime_ns"] // 10**9 == 1_600_000_000
    assert told["type"] == "file"
    said = run([tool("debugfs"), "-R", "stat /sub/file", f"{disk}?offset={41 << 20}"]).stdout
    assert f"Inode: {told['inode']} " in said
    link = document("fs", "stat", f"{disk}:3", "/link")
    assert (link["type"], link["target"]) == ("symlink", "sub/file")
    text = blockwright("fs", "stat", f"{disk}:3", "/link").stdout.decode()
    assert "sub/file" in text


def test_fs_df_is_what_dumpe2fs_says(disk: Path, tmp_path: Path) -> None:
    told = document("fs", "df", f"{disk}:3")
    part = tmp_path / "part"
    blockwright("convert", f"{disk}:3", part)
    said = run([tool("dumpe2fs"), "-h", part]).stdout
    free = int(said.split("Free blocks:")[1].split()[0])
    assert told["free"] == free * told["block_size"]
    assert told["inodes_free"] == int(said.split("Free inodes:")[1].split()[0])
    assert b"ext4" in blockwright("fs", "df", f"{disk}:3").stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["cat", "{disk}:3", "/nothing"], 5),
        (["cat", "{disk}:3", "/sub"], 2),
        (["cat", "{disk}:2", "/x"], 5),
        (["ls", "{disk}"], 1),
        (["ls", "{disk}:3", "/sub/file/below"], 5),
        (["get", "{disk}:1", "/nothing", "out"], 5),
        (["stat", "{disk}:1,5", "/"], 1),
    ],
    ids=str,
)
def test_fs_says_what_is_wrong(disk: Path, arguments: list[str], code: int) -> None:
    blockwright("fs", *[each.format(disk=disk) for each in arguments], code=code)


def test_check_is_clean_and_then_is_not(disk: Path) -> None:
    assert document("check", disk)["clean"]
    assert b"clean" in blockwright("check", disk).stdout
    before = disk.read_bytes()
    with open(disk, "r+b") as file:
        file.seek((41 << 20) + 1024 + 0x10)
        file.write(b"\x01")
    told = document("check", disk, code=3)
    assert [bool(place["findings"]) for place in told["places"]] == [False, False, True]
    assert told["places"][2]["start"] == 41 << 20
    assert len(before) == disk.stat().st_size


def test_convert_is_what_qemu_img_finds_equal(disk: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.img"
    assert blockwright("convert", disk, copy, "--verify").stdout == os.fsencode(copy) + b"\n"
    run([tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", disk, copy])
    assert copy.stat().st_blocks <= disk.stat().st_blocks + 64
    before = files_in(tmp_path)
    blockwright("convert", disk, copy, code=2)
    blockwright("convert", tmp_path / "nothing", tmp_path / "other", code=5)
    blockwright("convert", f"{disk}:9", tmp_path / "other", code=5)
    assert files_in(tmp_path) == before


def test_a_locked_disk_is_refused_and_its_holder_named(disk: Path) -> None:
    """A shell that writes holds nothing; QEMU's locks are tested with the devices. Reading beside is allowed."""
    with open(disk, "r+b"):
        document("inspect", disk)


def test_attributes_are_shown_as_text_and_told_in_hexadecimal(tmp_path: Path) -> None:
    tree, image = tmp_path / "tree", tmp_path / "image"
    tree.mkdir()
    (tree / "file").touch()
    os.setxattr(tree / "file", "user.text", b"words")
    os.setxattr(tree / "file", "user.bytes", b"\xff\x00\x01")
    blockwright("build", tree, "-o", image, "--table", "none")
    assert document("fs", "stat", image, "/file")["xattrs"] == {"user.bytes": "ff0001", "user.text": "776f726473"}
    text = blockwright("fs", "stat", image, "/file").stdout.decode()
    assert 'user.text="words"' in text
    assert "user.bytes=0xff0001" in text
