"""Pictures of devices: where their bytes are, what fills them within a budget, and broken ones too."""

import random
import stat
import xml.dom.minidom

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.draw import html, svg
from blockwright.draw.terminal import Style, draw
from blockwright.errors import Corrupt, FormatError
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.read import open as open_ext4
from blockwright.fs.reader import Entry, FileSystem, Stat
from blockwright.inspect import Region, Report, inspect
from blockwright.picture import Look, extents, take
from blockwright.picture.extents import Extents
from blockwright.picture.folders import Budget, contents_of
from blockwright.table.partition import MbrPartition, MbrTable
from blockwright.tree import BytesContent, Directory, File


def tree():
    big = File(0o644, content=BytesContent(b"x" * 300_000))
    deep = Directory(entries={b"c": Directory(entries={b"d": Directory(entries={b"e": big})})})
    return Directory(entries={b"a": Directory(entries={b"b": deep, b"same": big}), b"small": File(0o644)})


@pytest.fixture
def image():
    with open_plan(plan(tree(), Ext4Options(label="\u202elabel"))) as planned:
        return planned.read(0, planned.size)


def test_contents_are_counted_once_and_named_to_a_depth(image):
    with open_ext4(MemoryDevice(content=image)) as system:
        found = contents_of(system, Budget())
    assert (found.files, found.directories, found.complete) == (2, 6, True)
    top = found.root.children[0]
    assert top.name == "a"
    assert 300_000 <= top.size < 340_000
    assert found.root.size >= top.size + found.root.children[1].size


def test_a_budget_ends_the_count_and_is_told(image):
    with open_ext4(MemoryDevice(content=image)) as system:
        budget = Budget(2)
        found = contents_of(system, budget)
        assert budget.left == 0
        assert not found.complete
        assert not contents_of(system, budget).complete


class Looping(FileSystem):
    """A directory that holds itself, one that cannot be read, and names without end."""

    kind, label, uuid, root_inode = "loop", "", "", 2

    def usage(self):
        raise NotImplementedError

    def stat_inode(self, inode):
        if inode == 9:
            raise Corrupt("\x1b broken")
        return Stat(inode, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 4096, 0)

    def entries(self, inode):
        if inode == 3:
            raise Corrupt("broken")
        yield Entry(b"self", 2, stat.S_IFDIR)
        yield Entry(b"bad", 9, stat.S_IFDIR)
        yield Entry(b"unreadable", 3, stat.S_IFDIR)
        number = 100
        while True:
            number += 1
            yield Entry(b"%d" % number, number, stat.S_IFDIR)

    def find(self, inode, name): ...
    def link_target(self, inode): ...
    def xattrs(self, inode): ...
    def open_inode(self, inode): ...
    def placement(self, inode): ...
    def tree(self): ...
    def close(self): ...


def test_loops_and_damage_end_and_are_told():
    found = contents_of(Looping(), Budget(5000))
    assert not found.complete
    assert found.problem == "\\x1b broken"
    assert found.directories < 5002
    assert len(found.root.children) < 30


def test_extents_fall_into_bins(monkeypatch):
    device = MemoryDevice(1 << 20)
    device.write(0, b"x" * 65536)
    bins = Extents(device).bins(0, 1 << 20)
    assert sum(each.size for each in bins) == 1 << 20
    assert sum(each.data for each in bins) == 65536
    assert bins[-1].hole == bins[-1].size
    monkeypatch.setattr(extents, "MAX_EXTENTS", 1)
    cut = Extents(device).bins(0, 1 << 20)
    assert sum(each.unknown for each in cut) == (1 << 20) - 65536


def test_partitions_that_overlap_are_drawn_once():
    device = MemoryDevice(1 << 20)
    parts = [MbrPartition(1, 65536, 262144, 0x83, False, 1), MbrPartition(2, 131072, 65536, 0x83, False, 1)]
    parts.append(MbrPartition(3, 196608, 262144, 0x83, False, 1))
    table = MbrTable(1, 512, 1 << 20, tuple(parts))
    regions = tuple(Region(each.start, each.size, 0, each, None) for each in parts)
    found = take(device, Report("x", 1 << 20, 0, table, regions))
    assert sum(part.shown for part in found.parts) == 1 << 20
    assert [part.shown for part in found.parts if part.number] == [262144, 0, 131072]
    assert len(draw(found, Style(80))) > 5
    assert "</svg>" in svg.document(found)


@pytest.mark.slow
def test_damaged_images_have_whole_pictures(image):
    drawn = 0
    for number in range(70):
        source = random.Random(number)
        data = bytearray(image)
        for _ in range(source.choice([0, 1, 5, 50])):
            data[source.randrange(1024, 40_000)] = source.choice([0, 255, source.randrange(256)])
        device = MemoryDevice(content=bytes(data))
        try:
            found = take(device, inspect(device, source="\x1b]0;x"), Look(contents=True, places=()))
        except FormatError:
            continue
        assert found.source == "\\x1b]0;x"
        xml.dom.minidom.parseString(svg.document(found))
        xml.dom.minidom.parseString(html.document(found).split("\n", 1)[1])
        assert all(line.isprintable() for line in draw(found, Style(80)))
        drawn += 1
    assert drawn > 25
