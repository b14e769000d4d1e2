import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.codec.record import Record, raw, u8, u16, u32, u64


class Little(Record, size=32):
    first: int = u8(0x0)
    second: int = u16(0x1)
    word: int = u32(0x4, default=7)
    name: bytes = raw(0x8, 5)
    large: int = u64(0x10)


class Big(Record, size=16, byte_order=">"):
    word: int = u32(0x0)
    large: int = u64(0x8)


values = st.fixed_dictionaries(
    {},
    optional={
        "first": st.integers(0, 0xFF),
        "second": st.integers(0, 0xFFFF),
        "word": st.integers(0, 0xFFFFFFFF),
        "name": st.binary(min_size=5, max_size=5),
        "large": st.integers(0, (1 << 64) - 1),
    },
)


@given(values)
def test_what_is_packed_is_parsed(given_values):
    record = Little(**given_values)
    packed = record.pack()
    assert len(packed) == Little.SIZE == 32
    assert Little.parse(packed) == record
    for name, value in given_values.items():
        assert getattr(Little.parse(packed), name) == value


@given(st.binary(min_size=32, max_size=32))
def test_any_bytes_are_a_record(data):
    assert Little.parse(data).pack_into(packed := bytearray(data)) is None
    assert packed == data


def test_bytes_lie_where_the_fields_say():
    record = Little(first=1, second=0x0302, word=0x08070605, name=b"hello", large=0x1122334455667788)
    assert record.pack() == bytes.fromhex("01 0203 00 05060708 68656c6c6f 000000 8877665544332211 0000000000000000")
    assert Big(word=0x01020304, large=5).pack() == bytes.fromhex("01020304 00000000 0000000000000005")


def test_what_no_field_names_survives_an_edit_and_is_zero_when_new():
    buffer = bytearray(b"\xee" * 40)
    Little(first=1).pack_into(buffer, 4)
    assert buffer[4] == 1
    assert buffer[7] == 0xEE
    assert buffer[8:12] == b"\7\0\0\0"
    assert buffer[17:20] == b"\xee" * 3
    assert buffer[28:] == b"\xee" * 12
    assert Little().pack()[3] == 0


def test_parse_at_an_offset_of_any_buffer():
    packed = Little(word=99).pack()
    for kind in (bytes, bytearray, memoryview):
        assert Little.parse(kind(b"xyz" + packed), 3).word == 99
    with pytest.raises(struct.error):
        Little.parse(packed, 1)


def test_defaults():
    record = Little()
    assert (record.first, record.word, record.name) == (0, 7, bytes(5))


def test_short_bytes_are_padded():
    assert Little.parse(Little(name=b"ab").pack()).name == b"ab\0\0\0"


def test_replace_copies():
    record = Little(first=1)
    other = record.replace(first=2, word=3)
    assert (record.first, other.first, other.word) == (1, 2, 3)


def test_unknown_fields_are_refused():
    with pytest.raises(TypeError, match="has no field 'frist'"):
        Little(frist=1)
    with pytest.raises(TypeError, match="has no field 'frist'"):
        Little().replace(frist=1)


def test_a_record_is_equal_to_its_like_only():
    assert Little(first=1) == Little(first=1)
    assert Little(first=1) != Little(first=2)
    assert Little() != Big()
    assert Little() != Little().pack()
    with pytest.raises(TypeError):
        hash(Little())


def test_repr_names_the_fields():
    assert repr(Big(word=1)) == "Big(word=1, large=0)"


def test_declarations_that_cannot_be():
    with pytest.raises(TypeError, match="overlaps the field before it at byte 2"):

        class Overlap(Record, size=8):
            a: int = u32(0)
            b: int = u16(2)

    with pytest.raises(TypeError, match="end at byte 9, past its size 8"):

        class Long(Record, size=8):
            a: int = u64(1)


def test_a_value_that_does_not_fit_is_an_error_and_not_cut():
    with pytest.raises(struct.error):
        Little(first=256).pack()
