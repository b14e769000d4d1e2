import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.fs.fat import layout

NS = 10**9


def test_times():
    assert layout.encode_time(1_600_000_001) == ((2020 - 1980) << 9 | 9 << 5 | 13, 12 << 11 | 26 << 5 | 20)
    date, time = layout.encode_time(1_600_000_001)
    assert layout.decode_time(date, time) == 1_600_000_000 * NS
    assert layout.decode_time(date, time, 150) == 1_600_000_001 * NS + 500_000_000


@pytest.mark.parametrize("seconds", [-1, 0, layout.EPOCH_S - 1])
def test_times_before_1980_are_its_beginning(seconds):
    assert layout.encode_time(seconds) == (1 << 5 | 1, 0)


def test_times_after_2107_are_its_end():
    assert layout.encode_time(1 << 40) == layout.encode_time(layout.END_S)
    assert layout.decode_time(*layout.encode_time(layout.END_S)) == layout.END_S * NS


@given(st.integers(layout.EPOCH_S, layout.END_S))
def test_times_come_back(seconds):
    assert layout.decode_time(*layout.encode_time(seconds)) == seconds // 2 * 2 * NS


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 255))
def test_any_time_is_one_or_none(date, time, tenths):
    assert layout.decode_time(date, time, tenths) is None or layout.decode_time(date, time, tenths) > 0


def test_checksum_of_a_short_name():
    assert layout.short_checksum(b"THEQUI~1FOX") == 7
