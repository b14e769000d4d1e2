"""Who resizes waits for those who write, and who comes behind holds to the new end."""

import threading

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.device.steady import SteadyDevice
from blockwright.errors import OutOfRange


class Slow(MemoryDevice):
    """Takes a write when it is let."""

    def __init__(self, size):
        super().__init__(size)
        self.begun, self.let = threading.Event(), threading.Event()

    def _write(self, offset, buffers, *, durable):
        self.begun.set()
        assert self.let.wait(60)
        super()._write(offset, buffers, durable=durable)


def test_a_resize_waits_for_the_writes_under_way():
    inner = Slow(100)
    device = SteadyDevice(inner)
    writer = threading.Thread(target=device.write, args=(90, b"x" * 10))
    resizer = threading.Thread(target=device.resize, args=(50,))
    writer.start()
    assert inner.begun.wait(60)
    resizer.start()
    resizer.join(0.2)
    assert (resizer.is_alive(), device.size) == (True, 100)
    inner.let.set()
    writer.join()
    resizer.join()
    assert device.size == 50
    device.resize(100)
    assert device.read(0, 100) == bytes(100)


def test_what_was_checked_against_the_size_before_is_refused():
    device = SteadyDevice(MemoryDevice(100))
    device.resize(50)
    for late in (
        lambda: device._write(45, [memoryview(b"x" * 10)], durable=False),
        lambda: device._read_into(45, [memoryview(bytearray(10))]),
        lambda: device._zero(45, 10, may_unmap=True, fast_only=False, durable=False),
        lambda: device._discard(45, 10, durable=False),
    ):
        with pytest.raises(OutOfRange):
            late()
    assert not device._read_ready(45, [memoryview(bytearray(10))])
