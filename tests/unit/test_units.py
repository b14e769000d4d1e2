import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.errors import UsageError
from blockwright.units import (
    MAX_SIZE,
    GiB,
    KiB,
    MiB,
    TiB,
    align_down,
    align_up,
    ceil_div,
    format_size,
    parse_fraction,
    parse_size,
)

numbers = st.integers(0, MAX_SIZE)
divisors = st.integers(1, 1 << 40)


@given(numbers, divisors)
def test_alignment(value, alignment):
    up, down = align_up(value, alignment), align_down(value, alignment)
    assert up % alignment == down % alignment == 0
    assert down <= value <= up
    assert up - down == (alignment if value % alignment else 0)
    assert ceil_div(value, alignment) * alignment == up


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("17b", 17),
        ("34s", 34 * 512),
        ("64k", 64 * KiB),
        ("64K", 64 * KiB),
        ("64KiB", 64 * KiB),
        ("64kib", 64 * KiB),
        ("64KB", 64_000),
        ("4G", 4 * GiB),
        ("1.5GiB", 3 * GiB // 2),
        ("10MB", 10_000_000),
        ("2t", 2 * TiB),
        ("1p", 1 << 50),
        ("1E", 1 << 60),
        ("1EB", 10**18),
        (" 5 M ", 5 * MiB),
        ("0.001MB", 1000),
        ("9223372036854775807", MAX_SIZE),
    ],
)
def test_sizes_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k",
        "-1",
        "+1",
        "1.",
        ".5k",
        "1,5k",
        "0x10",
        "4Q",
        "4 GG",
        "1e3",
        "5bb",
        "5bib",
        "5sb",
        "5ib",
        "1.5",
        "0.3k",
        "1.0000000001G",
        "9223372036854775808",
        "8E",
        "99999999999999999999E",
        "1_000",
        "٣",
        "4G\n4G",
    ],
)
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="size"):
        parse_size(text)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        assert 0 <= parse_size(text) <= MAX_SIZE


def test_a_long_text_is_not_echoed_whole():
    with pytest.raises(UsageError) as caught:
        parse_size("x" * 10_000)
    assert len(str(caught.value)) < 300


@given(numbers)
def test_a_number_of_bytes_is_itself(value):
    assert parse_size(str(value)) == value


@pytest.mark.parametrize(("text", "fraction"), [("20%", 0.2), ("0%", 0), ("95%", 0.95), (" 12.5 %", 0.125)])
def test_fractions(text, fraction):
    assert parse_fraction(text) == pytest.approx(fraction)


@pytest.mark.parametrize("text", ["20", "%", "96%", "95.1%", "-1%", "1000%", "5%%", "abc%"])
def test_what_is_no_fraction(text):
    with pytest.raises(UsageError):
        parse_fraction(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (64 * MiB, "64 MiB"),
        (100 * MiB + MiB // 2, "100 MiB"),
        (3 * TiB // 2, "1.5 TiB"),
        (5000 << 50, "5000 PiB"),
    ],
)
def test_sizes_for_people(value, text):
    assert format_size(value) == text


@given(st.integers(0, 1 << 59))
def test_what_is_formatted_is_near_what_it_was(value):
    number, unit = format_size(value).split()
    again = float(number) * {"B": 1, "KiB": KiB, "MiB": MiB, "GiB": GiB, "TiB": TiB, "PiB": 1 << 50}[unit]
    assert abs(again - value) <= max(1, value * 0.051)
