import itertools

from hypothesis import given
from hypothesis import strategies as st

from blockwright.device.extent import DATA, HOLE, ZERO, Extent, clip, merge, shift

runs = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([DATA, ZERO, HOLE | ZERO])), max_size=30)


def contiguous(pairs, offset=0):
    extents = []
    for length, flags in pairs:
        extents.append(Extent(offset, length, flags))
        offset += length
    return extents


def flags_by_byte(extents):
    return {offset: extent.flags for extent in extents for offset in range(extent.offset, extent.end)}


def test_bits_are_those_of_nbd():
    assert (HOLE, ZERO) == (1, 2)


@given(runs)
def test_merge_keeps_every_byte_and_leaves_no_equal_neighbours(pairs):
    extents = contiguous(pairs)
    merged = list(merge(extents))
    assert flags_by_byte(merged) == flags_by_byte(extents)
    assert all(a.end == b.offset and a.flags != b.flags for a, b in itertools.pairwise(merged))
    assert all(extent.length for extent in merged)


def test_merge_does_not_join_across_a_gap():
    apart = [Extent(0, 2, DATA), Extent(3, 2, DATA)]
    assert list(merge(apart)) == apart


@given(runs, st.integers(0, 60), st.integers(0, 60))
def test_clip_keeps_what_lies_within(pairs, start, length):
    extents = contiguous(pairs)
    clipped = list(clip(extents, start, start + length))
    expected = {byte: flags for byte, flags in flags_by_byte(extents).items() if start <= byte < start + length}
    assert flags_by_byte(clipped) == expected


def test_clip_stops_asking_behind_the_end():
    def endless():
        offset = 0
        while True:
            yield Extent(offset, 10, DATA)
            offset += 10

    assert list(clip(endless(), 5, 20)) == [Extent(5, 5, DATA), Extent(10, 10, DATA)]


@given(runs, st.integers(-3, 100))
def test_shift_moves_and_keeps(pairs, distance):
    extents = contiguous(pairs)
    assert [(e.offset - distance, e.length, e.flags) for e in shift(extents, distance)] == extents
