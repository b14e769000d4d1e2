"""Devices tell of holes in their own way: what moves, and what has to read as zeros, is right however they do."""

import random

import pytest

from blockwright.device.extent import HOLE, ZERO, Extent
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.fs.ext4 import edit, read
from blockwright.fs.ext4.check import check
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.profiles import profile
from blockwright.fs.ext4.resize import minimum_size, resize
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File
from blockwright.units import MiB

BLOCK = 4096


class Telling(ForwardingDevice):
    """Tells of zeros in sectors, every other one of them as a hole; of ``holes`` that nothing is known of them."""

    def __init__(self, inner, holes=range(0)):
        super().__init__(inner)
        self.holes = holes

    def _extents(self, offset, length):
        data = self._inner.read(offset, length)
        for at in range(0, length, 512):
            part = data[at : at + 512]
            flags = 0 if any(part) else ZERO | HOLE * ((offset + at) // 512 % 2)
            yield Extent(offset + at, len(part), HOLE if offset + at in self.holes else flags)


def made(size, kind="ext4", journal=None):
    chosen = profile(kind)
    options = Ext4Options(size=size, journal=journal, features=chosen.features, inode_size=chosen.inode_size)
    with open_plan(plan(Directory(), options)) as device:
        return MemoryDevice(content=device.read(0, device.size))


def test_zeros_told_in_pieces_smaller_than_a_block_are_moved_as_zeros():
    inner = made(24 * MiB, journal=0)
    chance = random.Random(3)
    content = b"".join(chance.randbytes(BLOCK) + bytes(64 * BLOCK) for _ in range(8))
    with edit.open(inner) as editor:
        for number in range(4):
            editor.put(b"/filler%d" % number, File(content=BytesContent(chance.randbytes(4 * MiB))))
        editor.put(b"/file", File(content=BytesContent(content)))
        editor.commit()
        for number in range(4):
            editor.rm(b"/filler%d" % number)
        editor.commit()
        inner = MemoryDevice(content=inner.read(0, inner.size))
    device = Telling(inner)
    with read.open(MemoryDevice(content=inner.read(0, inner.size))) as files:
        placed = files.placement(files.resolve(b"/file"))
    least = minimum_size(device)
    assert max(run.position + run.length for run in placed) > least, "nothing would move"
    resize(device, least)
    after = MemoryDevice(content=inner.read(0, inner.size))
    with read.open(after) as files, files.open(b"/file") as file:
        assert file.read(0, file.size) == content
    assert not check(MemoryDevice(content=inner.read(0, least)))


@pytest.mark.parametrize("kind", ["ext2", "ext3"])
def test_inode_tables_of_new_groups_are_zeroed_where_a_hole_is_all_that_is_known(kind):
    # Without checksums of groups nothing says that a table was never written.
    inner = made(100 * MiB, kind)
    small = inner.size
    inner.resize(300 * MiB)
    inner.write(small, b"\xee" * (inner.size - small))
    resize(Telling(inner, range(small, inner.size)))
    assert not check(MemoryDevice(content=inner.read(0, inner.size)))
