"""Bitmaps of an image mark what changes, however often it is closed, and say nothing where they missed something."""

import random

import pytest

from blockwright.convert import flagged
from blockwright.errors import LimitExceeded, NotFound, NotSupported, UsageError
from blockwright.format.qcow2.bitmap import bitmap_ranges, read_bitmaps
from blockwright.format.qcow2.bitmaps import clear_bitmap, create_bitmap, record_bitmap, remove_bitmap
from blockwright.format.qcow2.check import check
from blockwright.format.qcow2.create import Options
from blockwright.format.qcow2.open import read_header
from blockwright.format.qcow2.pack import CompressingDevice
from blockwright.format.qcow2.recording import MAX_RECORDED
from blockwright.format.qcow2.snapshots import apply_snapshot, create_snapshot
from blockwright.units import KiB, MiB
from tests.support.qcow2 import GEOMETRIES, new, opened

SIZE = 2 * MiB + 512
KINDS = ["default", "clusters of 512", "clusters of 2 MiB", "subclusters", "2-bit refcounts", "zstd"]


def marked(file, name, *, size=SIZE):
    """Return the bytes that the bitmap on the disk marks, by its blocks of 4 KiB."""
    header = read_header(file)
    found = next(each for each in read_bitmaps(file, header) if each.name == name)
    assert found.consistent
    return {
        block
        for offset, length in bitmap_ranges(file, header, found)
        for block in range(offset // 4096, -(-(offset + length) // 4096))
    }


def blocks(offset, length, granularity=4096):
    low, high = offset // granularity * granularity, -(-(offset + length) // granularity) * granularity
    return set(range(low // 4096, -(-min(high, SIZE) // 4096)))


def with_bitmap(options=None, **wanted):
    """Return a file with an image that has a bitmap called marks."""
    file = new(SIZE, options or Options())
    with opened(file, owns=False) as disk:
        create_bitmap(disk, "marks", **{"granularity": 4096, **wanted})
    return file


@pytest.mark.parametrize("kind", KINDS)
def test_what_changes_is_marked_across_sessions(kind):
    chance = random.Random(kind)
    file, model = with_bitmap(GEOMETRIES[kind]), set()
    for _ in range(6):
        with opened(file, owns=False) as disk:
            for _ in range(chance.randrange(6)):
                offset = chance.randrange(SIZE)
                length = min(SIZE - offset, chance.choice((1, 512, 4096, 70_000, 500_000)))
                if chance.random() < 0.7:
                    disk.write(offset, chance.randbytes(length))
                else:
                    disk.zero(offset, length)
                model |= blocks(offset, length)
            disk.flush()
        assert marked(file, "marks") == model
        assert check(file) == []


def test_compressed_clusters_are_marked():
    file = with_bitmap(granularity=64 * KiB)
    with CompressingDevice(opened(file, owns=False)) as disk:
        disk.write(MiB, b"a" * 64 * KiB)
        disk.flush()
    assert marked(file, "marks") == blocks(MiB, 64 * KiB)
    assert check(file) == []


def test_one_that_is_disabled_stays_as_it_is_and_counts_on():
    file = with_bitmap()
    with opened(file, owns=False) as disk:
        disk.write(0, b"a")
        record_bitmap(disk, "marks", recorded=False)
        disk.write(MiB, b"b")
        record_bitmap(disk, "marks", recorded=True)
        disk.write(2 * MiB, b"c")
    assert marked(file, "marks") == {0, 512}
    assert check(file) == []


def test_cleared_removed_and_made_again():
    file = with_bitmap()
    with opened(file, owns=False) as disk:
        create_bitmap(disk, "other", recorded=False)
        disk.write(0, b"a" * MiB)
        clear_bitmap(disk, "marks")
        disk.write(MiB, b"b")
    assert marked(file, "marks") == {256}
    assert marked(file, "other") == set()
    with opened(file, owns=False) as disk:
        remove_bitmap(disk, "marks")
        with pytest.raises(NotFound, match="other"):
            remove_bitmap(disk, "marks")
        create_bitmap(disk, "marks")
        remove_bitmap(disk, "other")
        remove_bitmap(disk, "marks")
    assert read_bitmaps(file, read_header(file)) == []
    assert check(file) == []


def test_one_that_was_not_stored_says_nothing():
    file = with_bitmap()
    disk = opened(file, owns=False)
    disk.write(0, b"a")
    disk.flush()  # and then its process ends
    with opened(file, owns=False) as again:
        again.write(MiB, b"b")
        with pytest.raises(UsageError, match="says nothing"):
            clear_bitmap(again, "marks")
        assert again.contexts == {}
    (left,) = read_bitmaps(file, read_header(file))
    assert not left.consistent
    with opened(file, owns=False) as again:
        remove_bitmap(again, "marks")
    assert read_bitmaps(file, read_header(file)) == []


def test_whoever_only_reads_or_opens_leaves_them_alone():
    file = with_bitmap()
    before = file.read(0, file.size)
    with opened(file, owns=False) as disk:
        disk.read(0, SIZE)
        disk.flush()
    assert file.read(0, file.size) == before


def test_another_size_and_another_state_are_changes():
    file = new(MiB, Options())
    with opened(file, owns=False) as disk:
        disk.write(0, b"a")
        create_snapshot(disk, "s", time_ns=0)
        create_bitmap(disk, "marks", granularity=4096)
        disk.resize(2 * MiB)
    assert marked(file, "marks") == set(range(256, 512))
    with opened(file, owns=False) as disk:
        disk.resize(MiB)
        apply_snapshot(disk, "s")
    assert marked(file, "marks") == set(range(256))
    assert check(file) == []


def test_a_disk_tells_what_is_marked_while_it_is_written():
    with opened(with_bitmap()) as disk:
        (context,) = disk.contexts.values()
        ranges = flagged(disk, "qemu:dirty-bitmap:marks")
        assert list(ranges()) == []
        disk.write(MiB, b"a")
        assert list(ranges()) == [(MiB, 4096)]
        assert [each.flags for each in context.extents(0, SIZE)] == [0, 1, 0]
        assert list(flagged(disk, "blockwright:changed-since:marks")()) == [(MiB, 4096)]
        assert list(disk.contexts) == ["qemu:dirty-bitmap:marks"]
        with pytest.raises(NotSupported, match="qemu:dirty-bitmap:marks"):
            flagged(disk, "another")


@pytest.mark.parametrize(
    ("name", "wanted", "says"),
    [
        ("", {}, "1 to 1023"),
        ("n" * 1024, {}, "1 to 1023"),
        ("marks", {}, "there already"),
        ("new", {"granularity": 256}, "power of two"),
        ("new", {"granularity": 5000}, "power of two"),
        ("new", {"granularity": 1 << 32}, "power of two"),
    ],
)
def test_what_cannot_be_made(name, wanted, says):
    with opened(with_bitmap()) as disk, pytest.raises(UsageError, match=says):
        create_bitmap(disk, name, **wanted)


def test_version_2_has_none():
    with opened(new(SIZE, Options(version=2))) as disk, pytest.raises(UsageError, match="version 3"):
        create_bitmap(disk, "a")


@pytest.mark.parametrize("length", [5, 300, 1000])
def test_names_of_files_stay_where_they_are_or_leave_no_room(length):
    options = Options(backing_file="b" * length, backing_format="raw")
    file = new(SIZE, options)
    below = new(SIZE, Options())
    with opened(file, owns=False, below=below) as disk:
        create_bitmap(disk, "a")
    header = read_header(file)
    assert header.backing_file == b"b" * length
    assert header.backing_format == "raw"
    assert [each.name for each in read_bitmaps(file, header)] == ["a"]


def test_a_header_without_room_is_refused_and_unchanged():
    file = new(SIZE, Options(cluster_size=512, backing_file="b" * 390))
    before = file.read(0, file.size)
    with opened(file, owns=False, below=new(SIZE, Options())) as disk, pytest.raises(NotSupported, match="no room"):
        create_bitmap(disk, "a")
    assert file.read(0, file.size) == before


def crowded(monkeypatch):
    """Return a file whose image has one bitmap more than are kept."""
    file = new(SIZE, Options())
    with opened(file, owns=False) as disk:
        for number in range(MAX_RECORDED + 1):
            if number == MAX_RECORDED:
                monkeypatch.setattr("blockwright.format.qcow2.recording.MAX_RECORDED", MAX_RECORDED + 1)
            create_bitmap(disk, f"b{number}", granularity=64 * KiB)
    monkeypatch.undo()
    return file


def test_more_than_are_kept_have_the_disk_not_written_to(monkeypatch):
    file = crowded(monkeypatch)
    before = file.read(0, file.size)
    with opened(file, owns=False) as disk:
        for change in (lambda: disk.write(0, b"x"), lambda: disk.zero(0, 512), lambda: disk.resize(2 * SIZE)):
            with pytest.raises(LimitExceeded, match="at most 64 bitmaps"):
                change()
        with pytest.raises(LimitExceeded, match="remove some"):
            clear_bitmap(disk, "b0")
    assert file.read(0, file.size) == before


@pytest.mark.parametrize("gone", ["b0", "b64"])
def test_of_more_than_are_kept_some_can_be_removed(monkeypatch, gone):
    file = crowded(monkeypatch)
    with opened(file, owns=False) as disk:
        remove_bitmap(disk, gone)
        disk.write(MiB, b"x")
    assert check(file) == []
    left = read_bitmaps(file, read_header(file))
    assert len(left) == MAX_RECORDED
    assert all(marked(file, each.name) == blocks(MiB, 1, 64 * KiB) for each in left)
