"""What the other tests of qcow2 do not hold it to: memory, threads, sizes of the file, what the kernel may move."""

import os
import random
import threading
import time
from dataclasses import replace

import pytest

from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import NoSpace, NotSupported, UsageError
from blockwright.format.open import open_image
from blockwright.format.qcow2.bitmap import Bitmap
from blockwright.format.qcow2.check import check
from blockwright.format.qcow2.create import Options, create, plan_empty
from blockwright.format.qcow2.layout import new_refcounts, pack_refcounts, unpack_refcounts
from blockwright.testing import RecordingDevice
from blockwright.units import GiB, KiB, MiB, TiB
from tests.support.qcow2 import GEOMETRIES, new, opened


@pytest.mark.parametrize("order", range(7))
def test_refcounts_of_every_width(order):
    most = min((1 << (1 << order)) - 1, 1 << 40)
    chance = random.Random(order)
    geometry = Options(refcount_bits=1 << order, cluster_size=512).geometry
    counts = new_refcounts(geometry)
    for index in range(len(counts)):
        counts[index] = chance.randint(0, most)
    packed = pack_refcounts(counts, order)
    assert len(packed) == 512
    assert unpack_refcounts(packed, order) == counts
    if order == 0:
        assert [count for count in unpack_refcounts(b"\x05", 0)] == [1, 0, 1, 0, 0, 0, 0, 0]  # noqa: C416 - an array
    if order == 4:
        assert list(unpack_refcounts(b"\x01\x02", 4)) == [0x102]


def test_a_large_disk_opens_without_reading_it():
    file = RecordingDevice(new(TiB))
    with opened(file, writable=False) as disk:
        disk.read(700 * GiB, 4096)
        assert sum(call.length for call in file.named("read")) < MiB


def test_tables_in_memory_are_bounded():
    disk = opened(new(64 * MiB, Options(cluster_size=512)))
    disk._clusters.limit = 16
    content = bytearray(64 * MiB)
    chance = random.Random(1)
    for _ in range(300):
        offset = chance.randrange(len(content) - 1000)
        data = chance.randbytes(1000)
        disk.write(offset, data)
        content[offset : offset + 1000] = data
        assert len(disk._clusters.tables) <= 16 + 1
    assert disk.read(0, len(content)) == content
    disk.flush()
    assert check(disk.file) == []


class KeepingMemory(MemoryDevice):
    """A file of a file system that cannot give space back: what was written somewhere stays there."""

    def __init__(self, size):
        super().__init__(size)
        self._traits = replace(self._traits, discard=False)


def test_where_a_table_was_is_no_room_of_zeros():
    file = KeepingMemory(0)
    create(file, 8 * MiB, Options(cluster_size=512))
    with opened(file, owns=False) as disk:
        disk.write(0, b"x" * 8 * MiB)
    with opened(file, owns=False) as disk:
        for size in (16 * MiB, 32 * MiB):  # each time the table moves, and the one before it is free
            disk.resize(size)
        disk.flush()
        for offset in range(8 * MiB, 9 * MiB, 512):
            disk.write(offset + 100, b"y")
        assert disk.read(8 * MiB, MiB) == (bytes(100) + b"y" + bytes(411)) * (MiB // 512)
    assert check(file) == []


@pytest.mark.parametrize("name", ["default", "version 2", "subclusters"])
def test_what_others_left_behind_the_end_is_zeros_when_the_disk_grows(name):
    size = 3 * 64 * KiB + 512
    file = new(size, GEOMETRIES[name])
    with opened(file, owns=False) as disk:
        disk.write(size - 512, b"x" * 512)
        (place,) = disk.resolve(size - 512, size)
    file.write(place.host + 512, b"left here" * 56)
    with opened(file, owns=False) as disk:
        disk.resize(2 * size)
        assert disk.read(size - 512, size + 512) == b"x" * 512 + bytes(size)
    assert check(file) == []


def test_threads_that_allocate_free_and_flush_at_once():
    disk = opened(new(8 * MiB, Options(cluster_size=4 * KiB)), owns=False)
    errors = []

    def work(number):
        chance = random.Random(number)
        model = bytearray(MiB)
        try:
            for _ in range(150):
                offset, length = chance.randrange(MiB - 20_000), chance.choice((512, 4096, 20_000))
                kind = chance.choice(("write", "write", "zero", "flush", "read"))
                at = number * MiB + offset
                if kind == "write":
                    data = chance.randbytes(length)
                    disk.write(at, data)
                    model[offset : offset + length] = data
                elif kind == "zero":
                    disk.zero(at, length)
                    model[offset : offset + length] = bytes(length)
                elif kind == "flush":
                    disk.flush()
                assert disk.read(number * MiB, MiB) == model
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    disk.close()
    assert check(disk.file) == []


def test_what_is_freed_is_not_given_to_others_while_somebody_reads_there():
    file = new(4 * MiB, Options(cluster_size=4 * KiB))
    disk = opened(file, owns=False)
    disk.write(0, b"a" * 4096)
    disk.flush()
    disk._uses.append(None)  # a read that has found the cluster in the map
    host = next(disk.resolve(0, 4096)).host
    disk.discard(0, 4096)
    disk.flush()
    disk.flush()
    for number in range(1, 20):
        disk.write(number * 4096, b"b" * 4096)
    assert file.read(host, 4096) == b"a" * 4096
    disk._updates._retired[0][0].pop()  # it has ended
    disk.flush()
    disk.write(100 * 4096, b"c" * 4096)
    assert file.read(host, 4096) == b"c" * 4096


def test_space_is_given_back_and_the_end_is_cut_off(tmp_path):
    path = tmp_path / "disk.qcow2"
    with FileDevice(path, create=True) as file:
        create(file, 64 * MiB, Options())
    with open_image(FileDevice(path, writable=True), writable=True) as disk:
        disk.write(0, random.Random(1).randbytes(8 * MiB))
        disk.flush()
        before = os.stat(path).st_blocks
        disk.discard(0, 6 * MiB)
        disk.flush()
        if disk.file.traits.discard:
            assert os.stat(path).st_blocks <= before - 5 * MiB // 512
    assert os.path.getsize(path) < 9 * MiB


def test_a_file_that_cannot_grow_is_full_at_its_end():
    file = MemoryDevice(0)
    create(file, 64 * MiB, Options(cluster_size=4 * KiB))

    class Fixed(RecordingDevice):
        pass

    file.resize(file.size + 16 * 4 * KiB)
    disk = opened(Fixed(file))
    with pytest.raises(NoSpace):
        disk.write(0, bytes(b"x" * MiB))
    disk.write(0, b"y" * 4096)
    assert disk.read(0, 4096) == b"y" * 4096
    disk.flush()
    assert check(file) == []


def test_the_kernel_may_read_and_not_write_behind_our_back(tmp_path):
    path = tmp_path / "disk.qcow2"
    with FileDevice(path, create=True) as file:
        create(file, 4 * MiB, Options())
    with open_image(FileDevice(path, writable=True), writable=True) as disk:
        disk.write(0, b"a" * 100_000)
        with disk.backing(1000, 50_000) as runs:
            assert runs
            assert not any(run.writable for run in runs)
            assert os.pread(runs[0].fd, runs[0].length, runs[0].offset) == b"a" * runs[0].length
        with disk.backing(2 * MiB, 1000) as runs:
            assert runs is None


def test_fast_zeroes_are_fast_or_refused():
    disk = opened(new(64 * MiB))
    disk.write(0, b"a" * MiB)
    started = time.monotonic()
    disk.zero(0, 64 * MiB, fast_only=True)
    assert not any(disk.read(0, MiB))
    assert time.monotonic() - started < 30
    disk.write(0, b"a" * MiB)
    for call in (
        lambda: disk.zero(0, 100, fast_only=True),
        lambda: disk.zero(0, MiB, fast_only=True, may_unmap=False),
    ):
        with pytest.raises(NotSupported):
            call()
    assert disk.read(0, MiB) == b"a" * MiB


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (Options(cluster_size=3000), "cluster size"),
        (Options(cluster_size=256), "cluster size"),
        (Options(refcount_bits=3), "refcount bits"),
        (Options(version=1), "version 2 or 3"),
        (Options(version=2, refcount_bits=8), "version 2"),
        (Options(version=2, compression="zstd"), "version 2"),
        (Options(compression="lzma"), "zlib or zstd"),
        (Options(extended_l2=True, cluster_size=4096), "at least 16 KiB"),
        (Options(backing_format="raw"), "expected a backing file"),
        (Options(data_file_raw=True), "raw data file"),
        (Options(backing_file="x" * 2000), "name of a file"),
    ],
)
def test_options_that_contradict(options, text):
    with pytest.raises(UsageError, match=text):
        create(MemoryDevice(0), MiB, options)


def test_clusters_that_are_too_small_for_a_disk_say_for_which_they_are_not():
    with pytest.raises(UsageError, match="at most 137438953472 bytes"):
        plan_empty(TiB, Options(cluster_size=512))


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_an_empty_image_is_clean(kind):
    file = new(8 * GiB if kind != "clusters of 512" else GiB, GEOMETRIES[kind])
    assert check(file) == []


def test_a_bitmap_in_use_says_nothing():
    assert Bitmap("a", 65536, 0, 0, 0, valid=True).consistent
    assert not Bitmap("a", 65536, 1, 0, 0, valid=True).consistent
    assert not Bitmap("a", 65536, 0, 0, 0, valid=False).consistent
