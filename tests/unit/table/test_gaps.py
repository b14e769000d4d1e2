"""Free runs between those that are taken, also where these reach out of what is looked at."""

from hypothesis import given
from hypothesis import strategies as st

from blockwright.table.gaps import free_runs

RUNS = st.lists(st.builds(lambda start, length: (start, start + length), st.integers(0, 40), st.integers(0, 12)))


@given(st.integers(0, 20), st.integers(0, 20), RUNS)
def test_free_is_what_no_run_takes(low, length, taken):
    found = free_runs(low, low + length, taken)
    free = [byte for byte in range(low, low + length) if not any(start <= byte < end for start, end in taken)]
    assert [byte for start, end in found for byte in range(start, end)] == free
    assert all(start < end for start, end in found)
