"""Space divided by weight, and partitions placed by it."""

from hypothesis import example, given
from hypothesis import strategies as st

from blockwright.table.plan import Padding, Space, place
from blockwright.table.shares import Share, divide
from blockwright.units import MiB, align_up

GRAIN = 4096


def test_weights_share_what_is_left():
    assert divide([Share(0, None, 2000), Share(0, None, 1000)], 300 * GRAIN, GRAIN) == [200 * GRAIN, 100 * GRAIN]
    assert divide([Share(0, None, 0), Share(0, None, 1)], 10 * GRAIN, GRAIN) == [0, 10 * GRAIN]


def test_who_needs_more_gets_its_least_and_who_may_not_its_most():
    shares = [Share(50 * GRAIN, None, 1), Share(0, 10 * GRAIN, 1), Share(0, None, 1)]
    assert divide(shares, 90 * GRAIN, GRAIN) == [50 * GRAIN, 10 * GRAIN, 30 * GRAIN]


def test_what_nobody_may_have_stays():
    assert sum(divide([Share(0, 3 * GRAIN, 5), Share(0, None, 0, is_last=False)], 10 * GRAIN, GRAIN)) == 3 * GRAIN


@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.none() | st.integers(0, 99), st.integers(0, 3000)), min_size=1, max_size=9
    ),
    st.integers(0, 500),
)
@example([(0, None, 2248), (0, None, 201), (0, None, 142), (80, 67, 2130)], 244)
def test_everybody_is_within_bounds_and_the_room_is_kept(asked, more):
    shares = [Share(low, None if above is None else low + above, weight) for low, above, weight in asked]
    room = sum(share.least for share in shares) + more
    got = divide(shares, room, 1)
    assert sum(got) <= room
    for size, share in zip(got, shares, strict=True):
        assert share.least <= size
        assert share.most is None or size <= share.most
    if any(share.most is None for share in shares):
        assert sum(got) == room


@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.booleans(), st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=6
    ),
    st.sampled_from([512, 4096, MiB]),
    st.sampled_from([0, 1]),
)
def test_partitions_with_padding_and_records_never_touch(asked, alignment, record):
    before = alignment * record
    spaces = [
        Space(f"p{index}", size * MiB, rest, None, padding=Padding(gap * 4096, None, weight * 100), before=before)
        for index, (size, rest, gap, weight) in enumerate(asked)
    ]
    got = place(spaces, front=17408, back=16896, sector_size=512, size=999 * MiB, alignment=alignment)
    end = 17408
    for space, (start, size) in zip(spaces, got.runs, strict=True):
        assert start >= align_up(end, alignment) + before
        assert start % alignment == 0
        assert size >= space.size
        end = start + size + space.padding.least
    assert end <= 999 * MiB - 16896
