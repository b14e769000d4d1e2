"""Tar headers: fields, numbers, checksums, dialects."""

import contextlib
import struct
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.errors import ArchiveRejected
from blockwright.tree.tar import layout
from blockwright.tree.tar.layout import number, parse_header
from tests.support.tarmaker import GNU, V7, base256, checksummed, header, octal


def test_every_field() -> None:
    found = parse_header(
        header(
            b"dir/name",
            kind=b"3",
            size=0o123,
            mode=0o4755,
            uid=1000,
            gid=1001,
            mtime=1_700_000_000,
            link=b"target",
            major=5,
            minor=6,
            prefix=b"a/b",
        )
    )
    assert found[:8] == (b"a/b/dir/name", 0o4755, 1000, 1001, 0o123, 1_700_000_000, b"3", b"target")
    assert (number(found.major, "major"), number(found.minor, "minor")) == (5, 6)


@pytest.mark.parametrize("length", [99, 100])
def test_a_name_may_fill_its_field(length: int) -> None:
    found = parse_header(header(b"n" * length, link=b"l" * length))
    assert (found.name, found.link) == (b"n" * length, b"l" * length)


def test_the_prefix_is_ustars_own() -> None:
    assert parse_header(header(b"n", prefix=b"p" * 155)).name == b"p" * 155 + b"/n"
    assert parse_header(header(b"n", prefix=b"p", magic=GNU)).name == b"n"
    assert parse_header(header(b"n", prefix=b"p", magic=V7)).name == b"n"


def test_star_keeps_times_in_the_prefix() -> None:
    times = octal(1, 12) + octal(2, 12)
    assert parse_header(header(b"n", prefix=b"p" * 131 + times, patches={508: b"tar\0"})).name == b"p" * 131 + b"/n"
    assert parse_header(header(b"n", prefix=times.rjust(155, b"\0"), patches={508: b"tar\0"})).name == b"n"


@given(st.integers(0, 8**11 - 1))
def test_octal(value: int) -> None:
    assert number(octal(value, 12), "n") == value
    assert number(b"%11o " % value, "n") == value
    assert number(b"%012o" % value, "n") == value


@given(st.integers(-(2**87), 2**87 - 1))
def test_base256(value: int) -> None:
    assert number(base256(value, 12), "n") == value


@given(st.integers(-(2**55), 2**55 - 1))
def test_base256_as_the_standard_library_has_it(value: int) -> None:
    field = base256(value, 8)
    assert number(field, "n") == tarfile.nti(field)


FORMS = {
    b"\0" * 8: 0,
    b" " * 8: 0,
    b"  \0\0\0\0\0\0": 0,
    b"0000644\0": 0o644,
    b"   644 \0": 0o644,
    b"644\0abcd": 0o644,
    b"644 abcd": 0o644,
    b"\x80" + bytes(6) + b"\x01": 1,
    b"\xff" * 8: -1,
}


@pytest.mark.parametrize("field", FORMS)
def test_forms_of_numbers(field: bytes) -> None:
    assert number(field, "n") == FORMS[field]


@pytest.mark.parametrize(
    "field",
    [
        b"0000648\0",
        b"-000001\0",
        b"+000001\0",
        b"0_00001\0",
        b"0x00001\0",
        b"0o00001\0",
        b"abc\0\0\0\0\0",
        b"1.0\0\0\0\0\0",
    ],
)
def test_what_is_no_number(field: bytes) -> None:
    with pytest.raises(ArchiveRejected, match="uid: expected an octal number"):
        parse_header(header(b"n", uid=field))


def test_the_checksum_is_of_unsigned_bytes_or_of_signed_ones() -> None:
    block = bytearray(header(b"\xff\x80 name"))
    parse_header(bytes(block))
    signed = sum(struct.unpack("148b8x356b", block)) + 256
    block[148:156] = b"%06o\0 " % signed
    parse_header(bytes(block))
    block[148:156] = b"%06o\0 " % (signed + 1)
    with pytest.raises(ArchiveRejected, match="checksum"):
        parse_header(bytes(block))


def test_the_checksum_is_exact_at_its_extremes() -> None:
    full = checksummed(b"n" * 100 + b"0" * 48 + bytes(8) + b"0" + b"\xff" * 355)
    assert parse_header(full).name == b"n" * 100
    # A sum that is wrong by 65521 is what Adler-32 over the whole block would not see.
    total = int(full[148:154], 8)
    with pytest.raises(ArchiveRejected, match="checksum"):
        parse_header(full[:148] + b"%06o\0 " % (total - 65521) + full[156:])


@given(st.integers(0, 511), st.integers(1, 255))
def test_any_changed_byte_is_seen(at: int, difference: int) -> None:
    block = bytearray(header(b"some/name", size=100, mtime=1_700_000_000))
    block[at] = (block[at] + difference) % 256
    try:
        found = parse_header(bytes(block))
    except ArchiveRejected:
        return
    # The padding of the checksum's own field is no part of the sum.
    assert 148 <= at < 156
    assert found == parse_header(header(b"some/name", size=100, mtime=1_700_000_000))


def test_the_cache_of_numbers_stays_small() -> None:
    for value in range(10_000):
        parse_header(header(b"n", uid=value))
    assert len(layout._small) <= layout._MAX_CACHE
    assert parse_header(header(b"n", uid=77)).uid == 77


@given(st.binary(min_size=512, max_size=512))
def test_noise_with_a_checksum(block: bytes) -> None:
    with contextlib.suppress(ArchiveRejected):
        parse_header(checksummed(block))
