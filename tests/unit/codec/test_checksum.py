import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.codec.checksum import crc16, crc32, crc32c, crc32c_raw

CHECK = b"123456789"


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (crc32, 0xCBF43926),
        (crc32c, 0xE3069283),
        (lambda data: crc16(0, data), 0xBB3D),
        (lambda data: crc32c_raw(0xFFFFFFFF, data), 0xE3069283 ^ 0xFFFFFFFF),
    ],
)
def test_check_values_of_the_catalogue(function, value):
    """The catalogue of parametrised CRC algorithms gives each one's sum of these nine bytes."""
    assert function(CHECK) == value


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_crc32c_of_rfc_3720(data, value):
    assert crc32c(data) == value


def bitwise(data, polynomial, register):
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (polynomial if register & 1 else 0)
    return register


@given(st.binary(max_size=80), st.integers(0, 0xFFFFFFFF))
def test_crc32c_raw_is_the_plain_register(data, start):
    assert crc32c_raw(start, data) == bitwise(data, 0x82F63B78, start)


@given(st.binary(max_size=80), st.integers(0, 0xFFFF))
def test_crc16_is_the_plain_register(data, start):
    assert crc16(start, data) == bitwise(data, 0xA001, start)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_sums_are_continued(first, second):
    assert crc32(second, crc32(first)) == crc32(first + second)
    assert crc32c(second, crc32c(first)) == crc32c(first + second)
    assert crc32c_raw(crc32c_raw(5, first), second) == crc32c_raw(5, first + second)
    assert crc16(crc16(5, first), second) == crc16(5, first + second)


@given(st.binary(max_size=80))
def test_crc32_is_zlib_s(data):
    assert crc32(memoryview(data)) == zlib.crc32(data)
    assert crc16(1, memoryview(data)) == crc16(1, bytearray(data))
