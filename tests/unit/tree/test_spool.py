"""Streamed bodies kept aside."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.device.memory import MemoryDevice
from blockwright.tree.spool import KEPT_IN_MEMORY, Spool, spooled
from tests.support.trees import PatternContent, content_bytes, contents


def fill_from(content):
    """What a stream would hand out: the content's data, run behind run."""
    data = content_bytes(content)
    rest = b"".join(data[start : start + length] for start, length in content.runs())
    position = 0

    def fill(buffer):
        nonlocal position
        buffer[:] = rest[position : position + len(buffer)]
        position += len(buffer)

    return fill


@given(st.lists(contents().filter(lambda content: content.size < 10_000_000), min_size=1, max_size=4))
def test_bodies_can_be_read_anywhere_later(bodies):
    spool = Spool(MemoryDevice(0))
    placed = [spool.place(body.size, body.runs(), fill_from(body)) for body in bodies]
    for body, kept in zip(bodies, placed, strict=True):
        assert (kept.size, tuple(kept.runs())) == (body.size, tuple(body.runs()))
        assert content_bytes(kept) == content_bytes(body)


def test_holes_take_no_room():
    device = MemoryDevice(0)
    body = PatternContent(10_000_000, ((5_000_000, 10), (9_000_000, 20)))
    Spool(device).place(body.size, body.runs(), fill_from(body))
    assert device.size == 30


def test_large_bodies_go_through_a_small_buffer():
    device = MemoryDevice(0)
    body = PatternContent(5 << 20)
    kept = Spool(device).place(body.size, body.runs(), fill_from(body))
    assert content_bytes(kept) == content_bytes(body)
    assert device.size == 5 << 20


class Dripping(io.RawIOBase):
    """Gives at most 64 KiB at once, as a pipe does that nothing buffers."""

    def __init__(self, data):
        self.left = data

    def readable(self):
        return True

    def read(self, length=-1):
        part, self.left = self.left[: min(length, 65536)], self.left[min(length, 65536) :]
        return part


@pytest.mark.parametrize("size", [0, 700, 65537, KEPT_IN_MEMORY - 1, KEPT_IN_MEMORY, 3 * KEPT_IN_MEMORY + 5])
def test_a_stream_that_gives_less_than_asked_is_kept_whole(size):
    data = bytes(at % 251 for at in range(size))
    with spooled(Dripping(data)) as content:
        assert content.size == size
        assert content_bytes(content) == data
