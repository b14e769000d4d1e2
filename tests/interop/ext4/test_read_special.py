"""What single file systems show: far and fragmented files, large attributes, backups, refusals by name."""

import os
import random
import re

import pytest

from blockwright.device.extent import HOLE, ZERO
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, NotThisFormat, Unsupported
from blockwright.fs.ext4 import read
from tests.support.e2fs import debugfs, make_source, mke2fs


@pytest.fixture(scope="module")
def far_source(tmp_path_factory):
    """Files whose maps need every level: far behind a hole, and in hundreds of pieces."""
    path = tmp_path_factory.mktemp("far") / "source"
    path.mkdir()
    rng = random.Random(7)
    with (path / "far").open("wb") as file:
        for offset in (0, 11 * 1024, 12 * 1024, 200 * 1024, 268 * 1024, 30 << 20, 70 << 20):
            file.seek(offset)
            file.write(rng.randbytes(5000))
    with (path / "pieces").open("wb") as file:
        for index in range(900):
            file.seek(8192 * index)
            file.write(rng.randbytes(4096))
    return path


@pytest.mark.parametrize(
    ("arguments", "levels"),
    [
        (("-t", "ext2", "-b", "1024"), None),
        (("-t", "ext2", "-b", "4096"), None),
        (("-t", "ext4", "-b", "1024"), 2),
        (("-t", "ext4", "-b", "4096"), 1),
        (("-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "4096"), 2),
    ],
)
def test_maps_of_every_depth(arguments, levels, far_source, tmp_path):
    image = mke2fs(tmp_path / "image", "48M", *arguments, source=far_source)
    debugfs(image, f"dump /far {tmp_path / 'far'}", f"dump /pieces {tmp_path / 'pieces'}")
    if levels is not None:
        assert max(map(int, re.findall(r"^ *(\d+)/", debugfs(image, "ex /pieces"), re.MULTILINE))) == levels
    with read.open(FileDevice(image)) as fs:
        for name in (b"far", b"pieces"):
            theirs = (tmp_path / name.decode()).read_bytes()
            assert theirs == (far_source / name.decode()).read_bytes()
            with fs.open(name) as device:
                assert device.read(0, device.size) == theirs
                holes = [extent for extent in device.extents() if extent.flags & HOLE]
                assert holes
                for hole in holes:
                    assert not any(theirs[hole.offset : hole.end])


def test_allocated_and_never_written_reads_as_zeros(tmp_path):
    image = mke2fs(tmp_path / "image", "16M", "-t", "ext4")
    (tmp_path / "data").write_bytes(b"d" * 100_000)
    debugfs(image, f"write {tmp_path / 'data'} file", "fallocate file 30 40", "sif file size 200000", write=True)
    with read.open(FileDevice(image)) as fs, fs.open(b"file") as device:
        assert device.read(0, device.size) == b"d" * 100_000 + bytes(100_000)
        flags = [(extent.offset, extent.flags) for extent in device.extents()]
        assert (30 * 4096, ZERO) in flags
        assert flags[-1] == (41 * 4096, HOLE | ZERO)


@pytest.mark.parametrize("size", [1, 200, 500, 4000, 4096])
def test_large_attributes(tmp_path, size):
    image = mke2fs(tmp_path / "image", "16M", "-t", "ext4", "-O", "ea_inode")
    value = random.Random(size).randbytes(size)
    (tmp_path / "value").write_bytes(value)
    debugfs(image, "write /dev/null file", f"ea_set -f {tmp_path / 'value'} file user.large", write=True)
    with read.open(FileDevice(image)) as fs:
        assert fs.xattrs(fs.resolve(b"file")) == {b"user.large": value}


def test_a_damaged_attribute_inode_is_found(tmp_path):
    image = mke2fs(tmp_path / "image", "16M", "-t", "ext4", "-O", "ea_inode")
    (tmp_path / "value").write_bytes(b"marker" * 4000)
    debugfs(image, "write /dev/null file", f"ea_set -f {tmp_path / 'value'} file user.large", write=True)
    data = bytearray(image.read_bytes())
    data[data.index(b"markermarker") + 100] ^= 1
    with read.open(MemoryDevice(content=data)) as fs, pytest.raises(Corrupt, match="hash"):
        fs.xattrs(fs.resolve(b"file"))


def test_backup_superblock(tmp_path):
    source = make_source(tmp_path / "source", small=True)
    image = mke2fs(tmp_path / "image", "20M", "-t", "ext4", "-b", "1024", source=source)
    data = bytearray(image.read_bytes())
    data[1024:4096] = bytes(3072)
    with pytest.raises(NotThisFormat):
        read.open(MemoryDevice(content=data))
    for block in (8193,):
        fs = read.open(MemoryDevice(content=data), superblock=block)
        assert b"file1" in fs.tree().entries
    with pytest.raises(NotThisFormat):
        read.open(MemoryDevice(content=data), superblock=8194)


def test_names_that_differ_in_case(tmp_path):
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    for name in ("Straße", "CAFÉ", "plain"):
        (source / "folder" / name).write_text(name)
    image = mke2fs(tmp_path / "image", "16M", "-t", "ext4", "-O", "casefold", source=source)
    with read.open(FileDevice(image)) as fs:
        folder = fs.resolve(b"folder")
        assert fs.find(folder, b"PLAIN") is None
        flags = fs.volume.inode(folder).flags
    debugfs(image, f"sif folder flags {flags | 0x40000000:#x}", write=True)
    with read.open(FileDevice(image)) as fs:
        for name in ("STRASSE", "straße", "café", "Cafe\u0301", "PLAIN", "pl\u00adain"):
            assert fs.find(folder, name.encode()) is not None, name
        assert fs.find(folder, b"other") is None
        assert fs.find(folder, b"\xff") is None


def test_encrypted_contents_are_refused_by_name(tmp_path):
    source = make_source(tmp_path / "source", small=True)
    image = mke2fs(tmp_path / "image", "16M", "-t", "ext4", "-O", "encrypt", source=source)
    debugfs(image, "sif /file100 flags 0x80800", "sif /a flags 0x80800", write=True)
    with read.open(FileDevice(image)) as fs:
        assert fs.stat(b"file100").size == 100
        with pytest.raises(Unsupported, match="encrypted"):
            fs.open(b"file100")
        with pytest.raises(Unsupported, match="encrypted"):
            list(fs.entries(fs.resolve(b"a")))
        with pytest.raises(Unsupported, match="encrypted"):
            fs.tree()


@pytest.mark.parametrize(
    ("bit", "word"), [(0x1, "compression"), (0x8, "journal"), (0x1000, "dirdata"), (0x80000000, "0x80000000")]
)
def test_unknown_features_are_refused_by_name(tmp_path, bit, word):
    image = mke2fs(tmp_path / "image", "4M", "-t", "ext2")
    data = bytearray(image.read_bytes())
    data[1024 + 0x60 : 1024 + 0x64] = (int.from_bytes(data[1024 + 0x60 : 1024 + 0x64], "little") | bit).to_bytes(
        4, "little"
    )
    with pytest.raises(Unsupported, match=word):
        read.open(MemoryDevice(content=data))


def test_a_checksum_that_does_not_hold(tmp_path):
    source = make_source(tmp_path / "source", small=True)
    image = mke2fs(tmp_path / "image", "16M", "-t", "ext4", source=source)
    with read.open(FileDevice(image)) as fs:
        inode = fs.volume.inode(fs.resolve(b"file100"))
    data = bytearray(image.read_bytes())
    data[inode.position + 2] ^= 1
    with read.open(MemoryDevice(content=data)) as fs:
        with pytest.raises(Corrupt, match="checksum") as caught:
            fs.stat(b"file100")
        assert caught.value.offset == inode.position
    with read.open(MemoryDevice(content=data), verify=False) as fs:
        assert fs.stat(b"file100").uid == inode.uid ^ 1


def test_warnings(tmp_path):
    image = mke2fs(tmp_path / "image", "16M", "-t", "ext4", "-O", "mmp,^metadata_csum")
    with image.open("r+b") as file:
        file.seek(1024 + 0x3A)
        file.write(b"\x02")
    with read.open(FileDevice(image)) as fs:
        assert len(fs.warnings) == 1
        block = fs.volume.superblock.s_mmp_block
    with image.open("r+b") as file:
        file.seek(block * 4096 + 4)
        file.write((77).to_bytes(4, "little"))
        file.seek(block * 4096 + 16)
        file.write(b"far-away-host\0")
    with read.open(FileDevice(image)) as fs:
        assert "errors" in fs.warnings[0]
        assert "far-away-host" in fs.warnings[1]


def test_a_short_device_is_refused(tmp_path):
    image = mke2fs(tmp_path / "image", "16M", "-t", "ext4")
    os.truncate(image, 15 << 20)
    with pytest.raises(Corrupt, match="blocks_count"):
        read.open(FileDevice(image))
