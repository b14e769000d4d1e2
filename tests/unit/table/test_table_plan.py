import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.errors import NoSpace, UsageError
from blockwright.table.plan import Space, place
from blockwright.units import MiB

FRONT, BACK = 34 * 512, 33 * 512


def put(*spaces, **options):
    return place(spaces, front=FRONT, back=BACK, sector_size=512, **options)


def test_size_follows_from_what_is_asked_for():
    got = put(Space("esp", 3 * MiB), Space("root", 5 * MiB + 1))
    assert got.runs == ((MiB, 3 * MiB), (4 * MiB, 6 * MiB))
    assert got.size == 11 * MiB


def test_remaining_takes_what_is_left():
    got = put(Space("esp", 3 * MiB), Space("root", MiB, remaining=True), Space("swap", 2 * MiB), size=64 * MiB)
    assert got.runs == ((MiB, 3 * MiB), (4 * MiB, 57 * MiB), (61 * MiB, 2 * MiB))


def test_two_remaining_share():
    got = put(Space("a", 0, remaining=True), Space("b", 0, remaining=True), size=64 * MiB)
    assert got.runs[0][1] == 31 * MiB
    assert got.runs[1] == (32 * MiB, 31 * MiB)


def test_remaining_stops_before_a_pinned_start():
    got = put(Space("a", 0, remaining=True), Space("b", MiB, start=16 * MiB), size=64 * MiB)
    assert got.runs == ((MiB, 15 * MiB), (16 * MiB, MiB))


def test_exact_fit_may_end_off_the_alignment():
    got = put(Space("root", 3 * MiB - BACK), size=4 * MiB)
    assert got.runs == ((MiB, 3 * MiB - BACK),)


def test_no_space_names_both_numbers():
    with pytest.raises(NoSpace, match=rf"need {4 * MiB + BACK} bytes .* size of {4 * MiB}"):
        put(Space("root", 3 * MiB), size=4 * MiB)


def test_pinned_start_within_another_is_refused():
    with pytest.raises(NoSpace, match="b: expected to start at byte"):
        put(Space("a", 4 * MiB), Space("b", MiB, start=2 * MiB))


@pytest.mark.parametrize("options", [{"size": 1000}, {"size": 0}, {"alignment": 1000}, {"alignment": 0}])
def test_bad_arguments_are_usage_errors(options):
    with pytest.raises(UsageError):
        put(Space("a", 1), **options)


@given(
    st.lists(st.tuples(st.integers(0, 40 * MiB), st.booleans()), max_size=8),
    st.none() | st.integers(1, 1 << 18),
    st.sampled_from([512, 4096, 64 * 1024, MiB]),
)
def test_partitions_never_touch_each_other_or_the_table(asked, sectors, alignment):
    spaces = [Space(f"p{i}", size, remaining) for i, (size, remaining) in enumerate(asked)]
    size = None if sectors is None else sectors * 512
    try:
        got = put(*spaces, size=size, alignment=alignment)
    except NoSpace:
        assert size is not None
        assert size < put(*spaces, alignment=alignment).size
        return
    end = FRONT
    for space, (start, length) in zip(spaces, got.runs, strict=True):
        assert start >= end
        assert start % alignment == 0
        assert length % 512 == 0
        assert length >= max(space.size, 512)
        end = start + length
    assert end <= got.size - BACK
    assert got.size == (size or got.size)
    if any(remaining for _, remaining in asked) and size is not None:
        last = max(i for i, (_, remaining) in enumerate(asked) if remaining)
        if last == len(asked) - 1:
            assert got.size - BACK - end < alignment
