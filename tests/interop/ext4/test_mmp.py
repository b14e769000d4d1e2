"""Multiple mount protection: who says in its block that the file system is in use keeps everybody else out."""

import pytest

from blockwright.codec.checksum import crc32c_raw
from blockwright.device.file import FileDevice
from blockwright.errors import Corrupt, InUse
from blockwright.fs.ext4 import edit, read
from blockwright.fs.ext4.layout import Superblock
from blockwright.fs.ext4.mmp import CLEAN, FSCK, MAGIC
from blockwright.fs.ext4.resize import minimum_size, resize
from blockwright.tree.node import Directory
from blockwright.units import MiB
from tests.support.e2fs import mke2fs
from tests.support.tools import run, tool


@pytest.fixture
def image(tmp_path):
    return mke2fs(tmp_path / "image", "24M", "-t", "ext4", "-O", "mmp,metadata_csum")


def say(image, sequence=CLEAN, node=b"", device=b"", magic=MAGIC, *, sound=True):
    """Write the block as the kernel does, its checksum behind it."""
    with image.open("r+b") as file:
        superblock = Superblock.parse(file.read(2048), 1024)
        at = superblock.s_mmp_block * superblock.block_size
        file.seek(at)
        data = bytearray(file.read(1024))
        data[0:8] = magic.to_bytes(4, "little") + sequence.to_bytes(4, "little")
        data[16:80], data[80:112] = node.ljust(64, b"\0"), device.ljust(32, b"\0")
        checksum = crc32c_raw(superblock.checksum_seed, bytes(data[:1020])) ^ (not sound)
        data[1020:1024] = checksum.to_bytes(4, "little")
        file.seek(at)
        file.write(data)


WAYS = {"edit": edit.open, "resize": lambda device: resize(device, 20 * MiB), "plan": minimum_size}


def refused(image, error, words):
    before = image.read_bytes()
    for way in WAYS.values():
        with FileDevice(image, writable=True) as device, pytest.raises(error, match=words):
            way(device)
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("sequence", "node", "device", "words"),
    [
        (5, b"far-away", b"sdb1", "in use by far-away as sdb1"),
        (0xE24D4D4F, b"far-away", b"", "in use by far-away: unmount"),  # the kernel's largest number
        (1, b"", b"", "in use by another host"),
        (1, b"a\nb", b"", r"in use by 'a\\nb'"),
        (FSCK, b"far-away", b"sdb1", "in use by e2fsck"),
    ],
)
def test_who_uses_it_is_named(image, sequence, node, device, words):
    say(image, sequence, node, device)
    refused(image, InUse, words)
    with read.open(FileDevice(image)) as files:
        assert len(files.warnings) == 1


def test_a_block_that_does_not_hold_lets_nobody_in(image):
    say(image, magic=0x12345678)
    refused(image, Corrupt, "magic number")
    say(image, sound=False)
    refused(image, Corrupt, "multiple mount protection: expected checksum")
    with read.open(FileDevice(image)) as files:
        assert "checksum" in files.warnings[0]  # who only reads is told


def test_a_file_system_that_nobody_uses_is_changed(image):
    say(image, CLEAN, b"was-here", b"sdb1")
    with edit.open(FileDevice(image, writable=True)) as editor:
        editor.mkdir(b"/made", Directory())
    run([tool("e2fsck"), "-fn", image])
    with FileDevice(image, writable=True) as device:
        resize(device, 20 * MiB)
    run([tool("e2fsck"), "-fn", image])
    with read.open(FileDevice(image)) as files:
        assert not files.warnings
