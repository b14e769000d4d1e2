"""Bodies that stream past once: where they go, what is written when, and what does not fit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.device.copy import copy
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import NoSpace, UsageError
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.plan_floating import DESCRIPTOR_ZONE
from blockwright.fs.ext4.read import open as open_ext4
from blockwright.fs.ext4.stream import BATCH, StreamPlacer
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import EMPTY, PlacedContent
from blockwright.tree.node import Directory, File, Node
from blockwright.units import GiB, KiB, MiB, TiB
from tests.support.everything import everything
from tests.support.streaming import place_content, stream_tree
from tests.support.trees import PatternContent, trees

BLOCK_SIZES = (1024, 2048, 4096)


def finished(tree: Directory, options: Ext4Options) -> MemoryDevice:
    """The whole file system, streamed and completed."""
    device = MemoryDevice(64 * GiB if options.size is None else options.size)
    _, planned = stream_tree(tree, options, device)
    with open_plan(planned) as rest:
        copy(rest, device, target_is_zero=True)
    device.resize(planned.size)
    return device


def equal(tree: Directory, device: MemoryDevice) -> None:
    with open_ext4(device) as system:
        found = system.tree()
        if b"lost+found" not in tree.entries:
            del found.entries[b"lost+found"]
        assert [str(one) for one in compare_trees(tree, found, contents=True)] == []


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("size", [None, 300 * MiB])
def test_everything_streams(block_size, size):
    tree = everything()
    if block_size < 4096:
        del tree.entries[b"longest link"], tree.entries[b"attributes"]
    equal(tree, finished(tree, Ext4Options(block_size=block_size, size=size)))


@given(st.data())
@settings(max_examples=40)
def test_any_tree_streams(data):
    block_size = data.draw(st.sampled_from(BLOCK_SIZES))
    tree = data.draw(trees(block_size=block_size, xattr_budget=block_size - 200))
    if not isinstance(tree.entries.get(b"lost+found"), Directory):
        tree.entries.pop(b"lost+found", None)
    size = data.draw(st.sampled_from([None, 100 * MiB]))
    equal(tree, finished(tree, Ext4Options(block_size=block_size, size=size)))


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("total", [0, 100 * KiB, 7 * MiB, 40 * MiB, 300 * MiB])
def test_the_size_is_within_a_group_of_the_exact_one(block_size, total):
    count = 20
    entries: dict[bytes, Node] = {b"%d" % i: File(content=PatternContent(total // count)) for i in range(count)}
    tree, options = Directory(entries=entries), Ext4Options(block_size=block_size)
    exact = plan(tree, options).size
    _, streamed = stream_tree(tree, options, MemoryDevice(GiB))
    assert exact <= streamed.size <= exact + 8 * block_size * block_size


class Watched(ForwardingDevice):
    """Keeps where writes went."""

    def __init__(self, inner):
        super().__init__(inner)
        self.written = []

    def _write(self, offset, buffers, *, durable):
        self.written.append((offset, sum(map(len, buffers))))
        super()._write(offset, buffers, durable=durable)


def test_small_bodies_are_written_together_and_large_ones_in_pieces():
    device = Watched(MemoryDevice(GiB))
    placer = StreamPlacer(device, Ext4Options())
    for _ in range(1000):
        place_content(PatternContent(5000), placer.place)
    assert len(device.written) <= 1000 * 8192 // BATCH + 1
    place_content(PatternContent(3 * BATCH + 1), placer.place)
    placer.finish(Directory(), Ext4Options())
    assert all(length <= BATCH for _, length in device.written)
    assert [offset for offset, _ in device.written] == sorted(offset for offset, _ in device.written)


def test_bodies_lie_where_no_superblock_does():
    placer = StreamPlacer(MemoryDevice(GiB), Ext4Options(block_size=1024))
    found = []
    for _ in range(40):
        placed = place_content(PatternContent(MiB), placer.place)
        assert isinstance(placed, PlacedContent)
        found += [(run.position, run.position + run.length) for run in placed.placed]
    assert found == sorted(found)
    for group in (1, 3, 5):
        start = (1 + group * 8192) * 1024
        assert not [run for run in found if run[0] < start + 513 * 1024 and start < run[1]]


def test_bodies_that_are_not_in_the_tree_become_free():
    options, device = Ext4Options(), MemoryDevice(GiB)
    placer = StreamPlacer(device, options)
    kept = place_content(PatternContent(10_000), placer.place)
    place_content(PatternContent(10 * MiB), placer.place)
    also = place_content(PatternContent(20_000), placer.place)
    tree = Directory(entries={b"kept": File(content=kept), b"also": File(content=also)})
    planned = placer.finish(tree, options)
    assert planned.summary.free_blocks >= 10 * MiB // 4096
    copy(open_plan(planned), device, target_is_zero=True)
    device.resize(planned.size)
    wanted = {b"kept": File(content=PatternContent(10_000)), b"also": File(content=PatternContent(20_000))}
    equal(Directory(entries=wanted), device)


def test_a_given_size_is_refused_as_soon_as_a_body_does_not_fit():
    placer = StreamPlacer(MemoryDevice(100 * MiB), Ext4Options(size=100 * MiB))
    for _ in range(9):
        place_content(PatternContent(10 * MiB), placer.place)
    asked = []
    with pytest.raises(NoSpace, match=r"needs 10485760 more bytes, has \d+"):
        placer.place(10 * MiB, ((0, 10 * MiB),), asked.append)
    assert not asked, "nothing of the body was read"


def test_inodes_that_a_given_size_does_not_have():
    options = Ext4Options(size=16 * MiB, bytes_per_inode=65536)
    placer = StreamPlacer(MemoryDevice(16 * MiB), options)
    tree = Directory(entries={b"%d" % i: File() for i in range(400)})
    with pytest.raises(NoSpace, match="inodes do not fit the size: needs 411, given 256"):
        placer.finish(tree, options)


def test_directories_that_a_given_size_has_no_room_for():
    options = Ext4Options(size=4 * MiB, journal=0)
    placer = StreamPlacer(MemoryDevice(4 * MiB), options)
    place_content(PatternContent(3700 * KiB), placer.place)
    placer.finish(Directory(), options)
    with pytest.raises(NoSpace, match=r"needs \d+ more bytes"):
        placer.finish(Directory(entries={b"%d" % i: Directory() for i in range(100)}), options)


def test_a_stream_longer_than_its_descriptors(monkeypatch):
    monkeypatch.setitem(DESCRIPTOR_ZONE, 1024, 1)
    placer = StreamPlacer(MemoryDevice(TiB), Ext4Options(block_size=1024))
    place_content(PatternContent(100 * MiB), placer.place)
    with pytest.raises(NoSpace, match="needs 31457280 more bytes"):
        place_content(PatternContent(30 * MiB), placer.place)


def test_an_empty_body_takes_nothing():
    placer = StreamPlacer(MemoryDevice(MiB), Ext4Options())
    placed = place_content(EMPTY, placer.place)
    assert placed.size == 0
    assert list(placed.runs()) == []


def test_options_must_not_change_on_the_way():
    placer = StreamPlacer(MemoryDevice(MiB), Ext4Options())
    with pytest.raises(UsageError, match="began with"):
        placer.finish(Directory(), Ext4Options(block_size=1024))
    placer.finish(Directory(), Ext4Options(seed=b"another", time_ns=5, label="late"))


def test_only_the_placer_plans_placed_bodies():
    placer = StreamPlacer(MemoryDevice(GiB), Ext4Options())
    tree = Directory(entries={b"f": File(content=place_content(PatternContent(10), placer.place))})
    with pytest.raises(UsageError, match="lies in an output already"):
        plan(tree, Ext4Options())


def test_the_superblock_can_be_written_last():
    tree, device = everything(), MemoryDevice(64 * GiB)
    _, planned = stream_tree(tree, Ext4Options(), device)
    table = planned.segments(superblock=False)
    assert 1024 not in table.starts
    whole = planned.segments()
    assert len(whole) == len(table) + 1
    assert sum(whole.lengths) == sum(table.lengths) + len(planned.primary)
    assert planned.primary[0x38:0x3A] == b"\x53\xef"
