"""Numbers of a file system that would lead an editor astray are refused before anything is written."""

import struct

import pytest

from blockwright.codec.checksum import crc32c_raw
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt
from blockwright.fs.ext4 import edit
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.layout import group_checksum
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.replay import open_journal
from blockwright.fs.ext4.volume import Volume, read_superblock
from blockwright.tree.node import Directory, File
from blockwright.units import MiB


def planned(journal: int | None = None) -> MemoryDevice:
    with open_plan(plan(Directory(), Ext4Options(size=16 * MiB, journal=journal))) as device:
        return MemoryDevice(content=device.read(0, device.size))


def volume_of(device: MemoryDevice) -> Volume:
    return Volume(device, read_superblock(device), source=None, verify=True, super_block=None)


@pytest.mark.parametrize("more", [1, 16, 0xFFFF_0000])
def test_more_unused_inodes_than_there_are(more):
    """Else blocks before the inode table would be cleared, which are somebody's."""
    device = planned(journal=0)
    volume = volume_of(device)
    at, unused = volume.descriptor_position(0), volume.geometry.inodes_per_group + more
    descriptor = bytearray(volume.raw_descriptor(0))
    struct.pack_into("<H", descriptor, 0x1C, unused & 0xFFFF)
    struct.pack_into("<H", descriptor, 0x32, unused >> 16)
    struct.pack_into("<H", descriptor, 0x1E, group_checksum(volume.seed, 0, bytes(descriptor)))
    device.write(at, bytes(descriptor))
    before = device.read(0, device.size)
    editor = edit.open(device)
    with pytest.raises(Corrupt, match="unused inodes"):
        editor.put(b"/file", File())
    editor.commit()
    assert device.read(0, device.size) == before
    editor.close()


@pytest.mark.parametrize("first", [0, 1024, 0xFFFFFFFF])
def test_a_log_that_begins_outside_of_its_journal(first):
    """Block 0 is the journal's superblock, which a log from there on would be written over."""
    device = planned()
    journal = open_journal(volume_of(device))
    raw = bytearray(journal.block(0)[:1024])
    struct.pack_into(">I", raw, 0x14, first)
    struct.pack_into(">I", raw, 0xFC, 0)
    if journal.has_checksums:
        struct.pack_into(">I", raw, 0xFC, crc32c_raw(0xFFFFFFFF, bytes(raw)))
    device.write(journal.position, bytes(raw))
    before = device.read(0, device.size)
    with pytest.raises(Corrupt, match="first block"):
        edit.open(device)
    assert device.read(0, device.size) == before
