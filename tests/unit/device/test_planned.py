import random
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.device import DATA, HOLE, ZERO, Extent, FileRun
from blockwright.device.planned import MIN_BACKED, PlannedDevice, SegmentTable


class Counting:
    """A source whose byte at n is n modulo 251, and which keeps what was asked."""

    def __init__(self):
        self.asked = []

    def read_into(self, offset, buffer):
        self.asked.append((offset, len(buffer)))
        buffer[:] = bytes((offset + index) % 251 for index in range(len(buffer)))


class Backed(Counting):
    def backing(self, offset, length):
        self.asked.append(("backing", offset, length))
        return nullcontext((FileRun(7, offset, length),))


segments = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60), st.booleans()), max_size=12)


@given(segments, st.randoms(use_true_random=False), st.data())
def test_reads_as_the_table_says(parts, shuffle, data):
    source, table, content, position, order = Counting(), SegmentTable(), bytearray(), 0, []
    for gap, length, literal in parts:
        content += bytes(gap)
        position += gap
        body = bytes((position + index) % 251 for index in range(length))
        order.append((position, body) if literal else (position, length, source, position))
        content += body
        position += length
    content += bytes(5)
    shuffle.shuffle(order)
    for item in order:
        if len(item) == 2:
            table.add_bytes(*item)
        else:
            table.add(*item)
    device = PlannedDevice(len(content), table, granularity=8)
    offset = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, len(content) - offset))
    buffer = bytearray(b"\xff" * length)  # what lies between segments is cleared, whatever was there
    device.read_into(offset, buffer)
    assert buffer == device.read(offset, length) == content[offset : offset + length]
    for extent in device.extents(offset, length):
        assert extent.flags in (DATA, HOLE | ZERO)
        assert extent.flags == DATA or not any(content[extent.offset : extent.end])


def test_a_source_is_asked_only_for_what_is_read():
    table, source = SegmentTable(), Counting()
    table.add(1000, 500, source, 70)
    PlannedDevice(4096, table).read(1100, 50)
    assert source.asked == [(170, 50)]


def test_extents_are_told_in_blocks():
    table = SegmentTable()
    for offset in (4096, 4096 * 2 + 100, 4096 * 9 + 4000):
        table.add_bytes(offset, b"x" * 90)
    table.add_bytes(4096 * 10, b"y")
    device = PlannedDevice(4096 * 11 + 17, table)
    assert list(device.extents()) == [
        Extent(0, 4096, HOLE | ZERO),
        Extent(4096, 8192, DATA),
        Extent(4096 * 3, 4096 * 6, HOLE | ZERO),
        Extent(4096 * 9, 8192, DATA),
        Extent(4096 * 11, 17, HOLE | ZERO),
    ]


def test_an_empty_plan_is_a_hole():
    assert list(PlannedDevice(100, SegmentTable()).extents()) == [Extent(0, 100, HOLE | ZERO)]
    assert PlannedDevice(100, SegmentTable()).read(0, 100) == bytes(100)


def test_overlap_and_overhang_are_bugs_of_the_planner():
    table = SegmentTable()
    table.add_bytes(10, b"12345")
    table.add_bytes(14, b"x")
    with pytest.raises(AssertionError, match="overlaps"):
        table.freeze()
    table = SegmentTable()
    table.add_bytes(10, b"12345")
    with pytest.raises(AssertionError, match="past the size"):
        PlannedDevice(14, table)


def test_nothing_is_added_for_nothing():
    table = SegmentTable()
    table.add_bytes(10, b"")
    assert len(table) == 0
    assert table.end == 0


class TestBacking:
    def device(self, length=3 * MIN_BACKED):
        self.source = Backed()
        table = SegmentTable()
        table.add(4096, length, self.source, 50)
        table.add_bytes(4096 + length, b"tail")
        return PlannedDevice(length + 3 * 4096, table)

    def runs(self, device, offset, length):
        with device.backing(offset, length) as runs:
            return runs

    def test_a_range_within_one_segment(self):
        assert self.runs(self.device(), 5000, 100) == (FileRun(7, 50 + 904, 100),)

    def test_the_leading_part_of_a_range_where_it_is_long(self):
        device = self.device()
        assert self.runs(device, 4096, device.size - 4096) == (FileRun(7, 50, 3 * MIN_BACKED),)

    def test_no_file_is_opened_for_a_short_leading_part(self):
        device = self.device()
        assert self.runs(device, 4096 + 3 * MIN_BACKED - 100, 8192) is None
        assert self.source.asked == []

    def test_none_for_holes_bytes_and_nothing(self):
        device = self.device()
        assert self.runs(device, 0, 100) is None
        assert self.runs(device, 4096 + 3 * MIN_BACKED, 4) is None
        assert self.runs(device, device.size - 10, 10) is None
        assert self.runs(device, 5000, 0) is None


def test_many_segments_are_found_by_bisection():
    table, chance = SegmentTable(), random.Random(1)
    for index in range(20_000):
        table.add_bytes(index * 8, bytes([index % 256]) * 4)
    device = PlannedDevice(160_000, table)
    for _ in range(200):
        index = chance.randrange(20_000)
        assert device.read(index * 8, 8) == bytes([index % 256]) * 4 + bytes(4)
