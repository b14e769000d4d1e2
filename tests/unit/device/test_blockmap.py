import itertools

from hypothesis import given
from hypothesis import strategies as st

from blockwright.device.blockmap import PAGE, BlockMap

COUNT = 3 * PAGE + 100
positions = st.one_of(
    st.integers(0, COUNT), st.sampled_from([0, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE, COUNT])
)


@given(st.lists(st.tuples(positions, positions, st.integers(0, 3)), max_size=12), positions, positions)
def test_is_a_list_of_states(changes, low, high):
    states, blocks = bytearray(COUNT), BlockMap(COUNT)
    for start, end, state in changes:
        start, end = min(start, end), max(start, end)  # noqa: PLW2901 - in order
        states[start:end] = bytes([state]) * (end - start)
        blocks.set(start, end, state)
    low, high = min(low, high), max(low, high)
    told = list(blocks.runs(low, high))
    assert b"".join(bytes([state]) * (end - start) for start, end, state in told) == states[low:high]
    assert all(a[1] == b[0] and a[2] != b[2] for a, b in itertools.pairwise(told))
    if told:
        assert (told[0][0], told[-1][1]) == (low, high)
        assert blocks[low] == states[low]


def test_memory_follows_where_states_change():
    blocks = BlockMap(1 << 40)
    blocks.set(5, 6, 1)
    blocks.set(1 << 39, (1 << 39) + 10 * PAGE + 10, 2)
    assert sum(isinstance(page, bytearray) for page in blocks._pages.values()) == 2
    blocks.set(0, 2 * PAGE, 0)
    assert len(blocks._pages) == 11
    assert blocks[5] == 0
    assert blocks[(1 << 39) + 5 * PAGE] == 2


@given(st.lists(st.tuples(positions, positions, st.integers(0, 3)), max_size=12))
def test_pages_make_the_same_map(changes):
    blocks, copy = BlockMap(COUNT), BlockMap(COUNT)
    for start, end, state in changes:
        blocks.set(min(start, end), max(start, end), state)
    for index, states in blocks.pages():
        copy.put_page(index, states)
    assert list(copy.runs(0, COUNT)) == list(blocks.runs(0, COUNT))
    assert [index for index, _ in blocks.pages()] == sorted({index for index, _ in blocks.pages()})
