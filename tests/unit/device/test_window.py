import pytest

from blockwright.device import Traits, Waits
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import Misaligned, OutOfRange, ReadOnly
from blockwright.testing import Call, RecordingDevice


def test_every_call_is_shifted():
    inner = RecordingDevice(MemoryDevice(100_000))
    window = Window(inner, 1000, 500)
    window.read(1, 2)
    window.write(2, b"abc", durable=True)
    window.zero(3, 4, may_unmap=False, durable=True)
    window.discard(5, 6, durable=True)
    list(window.extents(7, 8))
    window.prefetch(9, 10)
    window.flush()
    window.close()
    assert inner.calls == [
        Call("read", 1001, 2),
        Call("write", 1002, 3, ("durable",)),
        Call("zero", 1003, 4, ("durable",)),
        Call("discard", 1005, 6, ("durable",)),
        Call("extents", 1007, 8),
        Call("prefetch", 1009, 10),
        Call("flush"),
        Call("close"),
    ]


def test_nothing_reaches_past_its_end():
    inner = MemoryDevice(content=b"x" * 30)
    window = Window(inner, 10, 10)
    window.zero(0, 10)
    assert inner.read(0, 30) == b"x" * 10 + bytes(10) + b"x" * 10
    with pytest.raises(OutOfRange):
        window.read(10, 1)


def test_to_the_end_by_default_and_within_one_another():
    window = Window(Window(MemoryDevice(content=b"0123456789"), 2), 3)
    assert window.size == 5
    assert window.start == 3
    assert window.read(0, 5) == b"56789"


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (0, 11), (11, 0), (5, 6), (0, -1), (11, None)])
def test_outside_the_device(start, length):
    with pytest.raises(OutOfRange):
        Window(MemoryDevice(10), start, length)


@pytest.mark.parametrize(("start", "length"), [(1, 512), (512, 511)])
def test_misaligned(start, length):
    inner = ForwardingDevice(MemoryDevice(4096), traits=Traits(minimum_block=512))
    with pytest.raises(Misaligned):
        Window(inner, start, length)


def test_read_only_has_no_way_to_write():
    inner = MemoryDevice(content=b"abc")
    window = Window(inner, 0, read_only=True)
    assert window.traits == Traits(parallelism=8, waits=Waits.NEVER, known_extents=True)
    for call in (lambda: window.write(0, b"x"), lambda: window.zero(0, 1), lambda: window.discard(0, 1)):
        with pytest.raises(ReadOnly):
            call()


def test_ownership():
    inner = MemoryDevice(10)
    Window(inner, 0, owns=False).close()
    assert not inner.closed
    Window(inner, 0).close()
    assert inner.closed
