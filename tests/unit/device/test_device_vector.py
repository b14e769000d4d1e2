from hypothesis import given
from hypothesis import strategies as st

from blockwright.device.vector import Cutter, clear, total, zeros


@given(st.lists(st.binary(max_size=9)), st.lists(st.integers(0, 12)))
def test_pieces_are_the_bytes_in_order(parts, lengths):
    whole = b"".join(parts)
    cutter, position = Cutter([memoryview(part) for part in parts]), 0
    for length in lengths:
        length = min(length, len(whole) - position)  # noqa: PLW2901 - what is left
        pieces = cutter.take(length)
        assert b"".join(pieces) == whole[position : position + length]
        assert total(pieces) == length
        assert all(len(piece) for piece in pieces)
        position += length


@given(st.lists(st.binary(max_size=9)), st.integers(1, 4), st.integers(1, 12))
def test_batches_are_bounded_and_cover_all(parts, count, length):
    cutter, batches = Cutter([memoryview(part) for part in parts]), []
    while batch := cutter.take_at_most(count, length):
        assert len(batch) <= count
        assert total(batch) <= length
        batches += batch
    assert b"".join(batches) == b"".join(parts)


def test_pieces_are_views_and_not_copies():
    buffers = [bytearray(4), bytearray(4)]
    for piece in Cutter([memoryview(buffer) for buffer in buffers]).take(6):
        piece[:] = b"x" * len(piece)
    assert b"".join(buffers) == b"xxxxxx\0\0"


def test_clear_and_zeros_past_their_own_size():
    size = 2 * 2**20 + 5
    buffer = bytearray(b"\xff" * size)
    clear(memoryview(buffer)[1:])
    assert buffer == b"\xff" + bytes(size - 1)
    assert total(zeros(size)) == size
    assert not any(any(part) for part in zeros(5))
    assert zeros(0) == []
