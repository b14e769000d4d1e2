"""Disks of each kind in memory: what is written is read, by whoever opens the image again."""

import random
import sys
import threading

import pytest

from blockwright.device.copy import copy
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import Corrupt, NoSpace, NotFound, ReadOnly, UsageError
from blockwright.format.mapped import Kind
from blockwright.format.output import ImageOptions, image_output
from blockwright.format.vmdk.check import check
from blockwright.format.vmdk.create import GRAIN, SPLIT, Options, create, extents_of, plan_extent
from blockwright.format.vmdk.descriptor import (
    KINDS,
    MONOLITHIC_FLAT,
    MONOLITHIC_SPARSE,
    SPLIT_FLAT,
    SPLIT_SPARSE,
    STREAM,
    parse,
)
from blockwright.format.vmdk.layout import Flag, SparseHeader, entries
from blockwright.format.vmdk.sparse import read_header
from blockwright.units import GiB, KiB, MiB
from tests.support.vmdk import Lent, Shelf, child_of, content, new, opened

SIZE = 3 * MiB + 512
IN_PLACE = [kind for kind in KINDS if kind != STREAM]


@pytest.mark.parametrize("kind", IN_PLACE)
def test_what_is_written_is_read_again(kind):
    data, shelf = content(SIZE, kind), Shelf()
    file = new(SIZE, kind, shelf)
    with opened(Lent(file), shelf) as disk:
        assert disk.size == SIZE
        assert disk.read(0, SIZE) == bytes(SIZE)
        for offset in range(0, SIZE, 70_000):
            disk.write(offset, data[offset : offset + 70_000])
        disk.flush()
        assert disk.read(0, SIZE) == data
    with opened(Lent(file), shelf, writable=False) as disk:
        assert disk.read(0, SIZE) == data
        with pytest.raises(ReadOnly):
            disk.write(0, b"x")
    assert list(check(file, shelf)) == []


def test_both_directories_stay_equal():
    file = new(SIZE)
    with opened(Lent(file)) as disk:
        for offset in (0, 700_000, 2 * MiB):
            disk.write(offset, b"x" * 512)
        disk.flush()
    header = read_header(file)
    copies = []
    for where in (header.directory, header.redundant):
        (table,) = entries(file.read(where, 4))
        copies.append(file.read(table * 512, 2048))
    assert copies[0] == copies[1]
    assert sum(map(bool, entries(copies[0]))) == 3


def test_a_grain_is_allocated_once_and_written_in_place_then():
    file = new(SIZE)
    with opened(file) as disk:
        disk.write(5, b"a")
        size = file.size
        disk.write(GRAIN - 1, b"b")
        disk.zero(0, GRAIN)
        assert file.size == size
        disk.write(GRAIN, b"c")
        assert file.size == size + GRAIN
        assert disk.read(0, GRAIN + 1) == bytes(GRAIN) + b"c"
        assert [each.flags for each in disk.extents()] == [0, 3]


def test_two_threads_fill_one_grain():
    data = random.Random(5).randbytes(SIZE)
    file = new(SIZE)
    with opened(Lent(file)) as disk:

        def fill(first):
            for offset in range(first * 512, SIZE, 4 * 512):
                disk.write(offset, data[offset : offset + 512])

        threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        disk.flush()
        same = disk.read(0, SIZE) == data  # what differs would take minutes to show
    assert same
    assert file.size == plan_extent(SIZE, descriptor=True).end + -(-SIZE // GRAIN) * GRAIN
    assert list(check(file, Shelf())) == []


def test_a_walk_meets_a_grain_that_was_made_since_it_began():
    """Where the file ended then is no bound for it."""
    with opened(Lent(new(SIZE))) as disk:
        disk.write(0, b"table")
        walk = disk._inner._grains._grains(0, SIZE)
        next(walk)
        disk.write(5 * GRAIN, b"data")
        assert [kind for _, kind, _ in walk].count(Kind.DATA) == 1
        assert disk.read(5 * GRAIN, 4) == b"data"


def test_tables_that_are_missing_are_made():
    file = new(SIZE)
    header = read_header(file)
    for where in (header.directory, header.redundant):
        file.write(where, bytes(4))
    with opened(Lent(file)) as disk:
        assert disk.read(0, SIZE) == bytes(SIZE)
        disk.write(MiB, b"data")
        disk.flush()
    with opened(Lent(file), writable=False) as disk:
        assert disk.read(MiB, 4) == b"data"
    assert [each for each in check(file, Shelf()) if each.rule != "vmdk.leak"] == []


def test_the_first_write_changes_the_content_id_and_later_ones_do_not():
    file = new(SIZE)

    def told():
        return parse(file.read(512, 20 * 512)).content_id

    before = told()
    with opened(Lent(file)) as disk:
        disk.read(0, 100)
        disk.flush()
        assert told() == before
        disk.write(0, b"x")
        after = told()
        assert after != before
        disk.write(0, b"y")
        disk.zero(0, 4096)
        assert told() == after
    with opened(Lent(file)) as disk:
        disk.discard(0, 512)
        assert told() != after


def test_what_the_kernel_copies_to_a_flat_extent_changes_the_content_id(tmp_path):
    ids = set()
    for number in range(2):
        (tmp_path / "source").write_bytes(content(4 * MiB, f"source {number}"))
        with (
            FileDevice(tmp_path / "source") as source,
            image_output(
                str(tmp_path / "disk.vmdk"),
                source.size,
                ImageOptions("vmdk", Options(MONOLITHIC_FLAT)),
                force=True,
            ) as disk,
        ):
            copied = copy(source, disk, target_is_zero=True)
        if sys.platform == "linux":
            assert 0 < copied.by_kernel < copied.copied
        ids.add(parse((tmp_path / "disk.vmdk").read_bytes()).content_id)
    assert len(ids) == 2
    assert (tmp_path / "disk-flat.vmdk").read_bytes() == content(4 * MiB, "source 1")


def test_a_child_reads_its_parent_and_keeps_what_is_written():
    shelf, data = Shelf(), content(2 * MiB, "parent")
    shelf.files["parent.vmdk"] = parent = new(2 * MiB)
    with opened(Lent(parent)) as disk:
        disk.write(0, data)
        disk.flush()
    with opened(Lent(parent), writable=False) as disk:
        child = child_of(disk, SIZE)
    want = bytearray(data.ljust(SIZE, b"\0"))
    with opened(Lent(child), shelf) as disk:
        assert disk.read(0, SIZE) == want
        disk.write(100_000, b"child")
        disk.zero(300_000, 200_000)
        want[100_000:100_005] = b"child"
        want[300_000:500_000] = bytes(200_000)
        disk.flush()
    with opened(Lent(child), shelf, writable=False) as disk:
        assert disk.read(0, SIZE) == want
        assert "parent" in dict(disk.describe().details)
    with opened(Lent(parent), writable=False) as disk:
        assert disk.read(0, len(data)) == data
    with opened(Lent(parent)) as disk:
        disk.write(0, b"changed")
        disk.flush()
    with pytest.raises(Corrupt, match="it was changed"):
        opened(child, shelf)
    with pytest.raises(NotFound):
        opened(child, Shelf())


def test_extents_are_named_and_cut_as_products_do():
    size = 5 * GiB
    assert [(each.name, each.size) for each in extents_of(SPLIT_SPARSE, size, "a.vmdk")] == [
        (b"a-s001.vmdk", SPLIT),
        (b"a-s002.vmdk", SPLIT),
        (b"a-s003.vmdk", size - 2 * SPLIT),
    ]
    assert extents_of(SPLIT_FLAT, GiB, "b")[0].name == b"b-f001.vmdk"
    assert extents_of(MONOLITHIC_FLAT, GiB, "c.vmdk")[0].name == b"c-flat.vmdk"


def test_a_disk_over_several_extents():
    shelf = Shelf()
    file = new(SPLIT + MiB, SPLIT_SPARSE, shelf)
    assert len(shelf.files) == 2
    with opened(Lent(file), shelf) as disk:
        disk.write(SPLIT - 4, b"over the border")
        disk.flush()
    with opened(file, shelf, writable=False) as disk:
        assert disk.read(SPLIT - 4, 15) == b"over the border"
        assert dict(disk.describe().details)["extents"] == "2"


def test_what_cannot_be_made():
    for options, wrong in (
        (Options("vmfs"), "vmdk type: expected"),
        (Options(MONOLITHIC_SPARSE, level=3), "level: expected the type streamOptimized"),
        (Options(STREAM, level=10), "level: expected 0 to 9"),
        (Options(adapter="sata"), "vmdk adapter"),
    ):
        with pytest.raises(UsageError, match=wrong):
            options.check()
    with pytest.raises(UsageError, match="not empty"):
        create(MemoryDevice(0), 0, Options(), None)
    with pytest.raises(UsageError, match="several files"):
        create(MemoryDevice(0), MiB, Options(SPLIT_SPARSE), None)
    with pytest.raises(UsageError, match="at most"):
        create(MemoryDevice(0), 1 << 62, Options(), None)


def test_a_file_that_cannot_grow_is_full_in_time():
    file = new(MiB)
    room = Window(MemoryDevice(content=file.read(0, file.size) + bytes(GRAIN)), 0)
    with opened(room) as disk:
        disk.write(0, b"x")
        with pytest.raises(NoSpace):
            disk.write(GRAIN, b"y")
        assert disk.read(0, 1) == b"x"


def test_zeroed_grains_are_read_and_written_over():
    file = new(MiB)
    header = read_header(file)
    record = header.record.replace(flags=header.record.flags | Flag.ZEROED)
    file.write(0, record.pack())
    for where in (header.directory, header.redundant):
        (table,) = entries(file.read(where, 4))
        file.write(table * 512, (1).to_bytes(4, "little"))
    with opened(Lent(file)) as disk:
        assert disk.read(0, GRAIN) == bytes(GRAIN)
        disk.write(3, b"x")
        assert disk.read(0, 5) == b"\0\0\0x\0"
        disk.flush()
    assert list(check(file, Shelf())) == []


def test_the_header_of_a_new_image():
    file = new(10 * GiB)
    record = SparseHeader.parse(file.read(0, 512))
    assert (record.version, record.flags, record.grain_size, record.gtes_per_gt) == (1, 3, 128, 512)
    assert record.rgd_offset == 21
    assert record.overhead % 128 == 0
    assert file.size == record.overhead * 512
    assert file.allocated < 512 * KiB
