"""Tables of numbers in either byte order."""

from array import array

import pytest

from blockwright.codec.words import pack_words, unpack_words


@pytest.mark.parametrize("code", "BHIQ")
@pytest.mark.parametrize("order", ["little", "big"])
def test_both_ways(code, order):
    width = array(code).itemsize
    numbers = [0, 1, (1 << 8 * width) - 2]
    data = b"".join(number.to_bytes(width, order) for number in numbers)
    values = unpack_words(memoryview(data), code, order)
    assert values.tolist() == numbers
    assert pack_words(values, order) == data
    assert values.tolist() == numbers


def test_only_whole_numbers():
    with pytest.raises(ValueError, match="multiple"):
        unpack_words(b"12345", "I", "little")
