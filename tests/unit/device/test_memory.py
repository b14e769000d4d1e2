import threading

import pytest

from blockwright.device import DATA, HOLE, ZERO, Extent
from blockwright.device.memory import PAGE, MemoryDevice, ZeroDevice
from blockwright.errors import OutOfRange
from blockwright.testing.threads import run_threads
from blockwright.units import MAX_SIZE, TiB


def test_a_tebibyte_with_little_in_it_is_cheap():
    device = MemoryDevice(TiB)
    device.write(TiB // 2 + 5, b"here")
    device.write(TiB - 1, b"!")
    assert device.allocated == 2 * PAGE
    extents = list(device.extents())
    assert [extent for extent in extents if extent.flags == DATA] == [
        Extent(TiB // 2, PAGE, DATA),
        Extent(TiB - PAGE, PAGE, DATA),
    ]
    assert sum(extent.length for extent in extents) == TiB
    device.zero(0, TiB)
    assert device.allocated == 0


def test_zeroing_what_is_not_there_takes_nothing():
    device = MemoryDevice(TiB)
    device.zero(5, TiB - 10, may_unmap=False)
    assert device.allocated == 0


def test_a_zero_that_may_not_unmap_keeps_the_page():
    device = MemoryDevice(content=b"x" * PAGE)
    device.zero(0, PAGE, may_unmap=False)
    assert device.allocated == PAGE
    assert device.read(0, PAGE) == bytes(PAGE)


def test_the_parts_of_a_page_that_are_not_zeroed_stay():
    device = MemoryDevice(content=b"x" * (3 * PAGE))
    device.zero(PAGE - 3, PAGE + 6)
    assert device.read(0, 3 * PAGE) == b"x" * (PAGE - 3) + bytes(PAGE + 6) + b"x" * (PAGE - 3)
    assert list(device.extents()) == [
        Extent(0, PAGE, DATA),
        Extent(PAGE, PAGE, HOLE | ZERO),
        Extent(2 * PAGE, PAGE, DATA),
    ]


def test_a_whole_page_is_kept_by_copy():
    data = bytearray(b"a" * PAGE)
    device = MemoryDevice(PAGE)
    device.write(0, data)
    data[:] = b"b" * PAGE
    assert device.read(0, 2) == b"aa"


def test_the_content_is_copied_and_the_size_may_be_larger():
    content = bytearray(b"abc")
    device = MemoryDevice(10, content)
    content[0] = 0
    assert device.read(0, 10) == b"abc" + bytes(7)


def test_two_threads_that_begin_one_page_write_to_the_same():
    class Slow(dict):
        def get(self, index, default=None):
            found = super().get(index, default)
            both.wait(60)  # so that both see that there is no page
            return found

    both = threading.Barrier(2)
    device = MemoryDevice(PAGE)
    device._pages = Slow()
    run_threads([lambda: device.write(0, b"a"), lambda: device.write(1, b"b")])
    device._pages = dict(device._pages)
    assert device.read(0, 2) == b"ab"


@pytest.mark.parametrize(("size", "content"), [(2, b"abc"), (-1, b""), (MAX_SIZE + 1, b"")])
def test_sizes_that_cannot_be(size, content):
    with pytest.raises(OutOfRange):
        MemoryDevice(size, content)
    with pytest.raises(OutOfRange):
        MemoryDevice(0).resize(MAX_SIZE + 1)


def test_closing_gives_the_memory_back():
    device = MemoryDevice(content=b"x" * PAGE)
    device.close()
    assert device.allocated == 0


def test_zero_device_forgets():
    device = ZeroDevice(1 << 62, writable=True)
    device.write(1 << 61, b"x")
    device.discard(0, 5)
    device.zero(0, 1 << 62, fast_only=True)
    assert device.read(1 << 61, 3) == bytes(3)
    assert list(device.extents()) == [Extent(0, 1 << 62, HOLE | ZERO)]


def test_zero_device_is_read_only_unless_told_otherwise():
    assert not ZeroDevice(5).traits.writable


def test_what_was_cut_off_does_not_come_back():
    device = MemoryDevice(content=b"x" * (2 * PAGE))
    device.resize(PAGE // 2)
    device.resize(2 * PAGE)
    assert device.read(0, 2 * PAGE) == b"x" * (PAGE // 2) + bytes(2 * PAGE - PAGE // 2)
