import threading
from contextlib import nullcontext

import pytest

from blockwright.device import DATA, HOLE, ZERO, BlockDevice, Extent, ResizableDevice, Traits
from blockwright.device.base import _FINAL, EXTENTS_SLICE
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Closed, Misaligned, NotSupported, OutOfRange, ReadOnly
from blockwright.testing import RecordingDevice

PRIMITIVES = {
    name
    for name, value in vars(BlockDevice).items()
    if name.startswith("_") and not name.startswith("__") and callable(value) and name.removeprefix("_") in _FINAL
}


class OneByteAtATime(BlockDevice):
    """The least that a device can be: only the required primitive."""

    def __init__(self, content, **traits):
        super().__init__(len(content), Traits(**traits))
        self.content = bytearray(content)

    def _read_into(self, offset, buffers):
        for buffer in buffers:
            buffer[:] = self.content[offset : offset + len(buffer)]
            offset += len(buffer)


class Plain(OneByteAtATime):
    def __init__(self, content):
        super().__init__(content, writable=True)
        self.writes = []

    def _write(self, offset, buffers, *, durable):
        data = b"".join(buffers)
        self.writes.append((offset, len(data), durable))
        self.content[offset : offset + len(data)] = data


def test_primitives_are_those_of_the_design():
    assert {
        "_read_into",
        "_read_ready",
        "_write",
        "_zero",
        "_discard",
        "_begin_flush",
        "_flush",
        "_extents",
        "_prefetch",
        "_cancel",
        "_backing",
        "_close",
    } == PRIMITIVES


@pytest.mark.parametrize("name", sorted(_FINAL))
def test_final_names_cannot_be_overridden(name):
    with pytest.raises(TypeError, match=f"{name}: is final"):
        type("Broken", (ResizableDevice,), {name: lambda self: None})


def test_every_public_name_is_final():
    public = {name for name in vars(BlockDevice) if not name.startswith("_")}
    assert public <= _FINAL
    assert "resize" in _FINAL


@pytest.mark.parametrize("primitive", sorted(PRIMITIVES))
def test_forwarding_device_forwards_every_primitive(primitive):
    assert primitive in vars(ForwardingDevice), f"ForwardingDevice does not forward {primitive}"
    assert primitive in vars(RecordingDevice.__mro__[1]), f"observers do not see {primitive}"
    seen = []

    class Inner(MemoryDevice):
        pass

    def record(self, *args, **kwargs):
        seen.append(primitive)
        if primitive == "_current_size":
            return 8
        return {"_extents": (Extent(0, 8, DATA),), "_backing": nullcontext(None)}.get(primitive)

    setattr(Inner, primitive, record)
    device = ForwardingDevice(Inner(8))
    device.read(0, 8)
    device.read_ready(0, bytearray(1))
    device.write(0, b"x")
    device.zero(0, 1)
    device.discard(0, 1)
    device.begin_flush()
    device.flush()
    list(device.extents())
    device.prefetch(0, 1)
    device.cancel()
    with device.backing(0, 1):
        pass
    device.close()
    assert set(seen) == {primitive}


def test_forwarding_passes_every_argument_on():
    calls = []

    class Inner(OneByteAtATime):
        def __init__(self):
            super().__init__(bytes(99), writable=True, fast_zero=True)

        def _write(self, offset, buffers, *, durable):
            calls.append(("write", offset, b"".join(buffers), durable))

        def _zero(self, offset, length, **flags):
            calls.append(("zero", offset, length, flags))

        def _discard(self, offset, length, *, durable):
            calls.append(("discard", offset, length, durable))

    device = ForwardingDevice(Inner())
    device.write(3, b"ab", b"c", durable=True)
    device.zero(1, 2, may_unmap=False, fast_only=True, durable=True)
    device.discard(4, 5, durable=True)
    assert calls == [
        ("write", 3, b"abc", True),
        ("zero", 1, 2, {"may_unmap": False, "fast_only": True, "durable": True}),
        ("discard", 4, 5, True),
    ]


def test_forwarding_owns_what_it_wraps_unless_told_otherwise():
    inner = MemoryDevice(8)
    ForwardingDevice(inner, owns=False).close()
    assert not inner.closed
    ForwardingDevice(inner).close()
    assert inner.closed


def test_defaults_of_the_least_device():
    device = OneByteAtATime(b"hello")
    assert device.read(1, 3) == b"ell"
    assert list(device.extents(1, 3)) == [Extent(1, 3, DATA)]
    device.flush()
    device.prefetch(0, 5)
    with device.backing(0, 5) as runs:
        assert runs is None
    for call in (lambda: device.write(0, b""), lambda: device.zero(0, 0), lambda: device.discard(0, 0)):
        with pytest.raises(ReadOnly):
            call()


def test_default_zero_writes_zeros_in_parts():
    device = Plain(b"\xff" * (2 * 2**20 + 7))
    device.zero(5, 2 * 2**20, durable=True)
    assert device.content == b"\xff" * 5 + bytes(2 * 2**20) + b"\xff" * 2
    assert [length for _, length, _ in device.writes] == [2**20, 2**20]
    assert all(durable for _, _, durable in device.writes)


def test_default_zero_is_not_fast():
    device = Plain(b"\xff" * 9)
    with pytest.raises(NotSupported):
        device.zero(0, 9, fast_only=True)
    assert device.content == b"\xff" * 9


def test_default_discard_does_nothing():
    device = Plain(b"abc")
    device.discard(0, 3)
    assert device.content == b"abc"


def test_a_writable_device_without_write_says_so():
    with pytest.raises(ReadOnly):
        OneByteAtATime(b"abc", writable=True).write(0, b"x")


def test_buffers_of_any_element_type_count_in_bytes():
    import array

    device = Plain(bytes(16))
    device.write(0, array.array("I", [1, 2]))
    words = array.array("I", [0, 0])
    device.read_into(0, words)
    assert list(words) == [1, 2]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 6), (6, 0), (5, 1), (2**70, 1), (0, -1)])
def test_out_of_range_names_both_numbers(offset, length):
    with pytest.raises(OutOfRange, match=f"5 bytes, found {length} bytes at {offset}"):
        OneByteAtATime(b"hello").read(offset, length)


@pytest.mark.parametrize(("offset", "length"), [(1, 512), (512, 511), (256, 256)])
def test_misaligned(offset, length):
    device = OneByteAtATime(bytes(2048), minimum_block=512)
    with pytest.raises(Misaligned, match="multiples of 512 bytes"):
        device.read(offset, length)
    with pytest.raises(Misaligned):
        device.extents(offset, length)


class TestExtents:
    def device(self, answer, size=100):
        class Told(OneByteAtATime):
            def _extents(self, offset, length):
                return answer

        return Told(bytes(size))

    def test_equal_neighbours_are_joined_and_empty_ones_dropped(self):
        told = [Extent(0, 10, DATA), Extent(10, 0, HOLE | ZERO), Extent(10, 20, DATA), Extent(30, 70, ZERO)]
        assert list(self.device(told).extents()) == [Extent(0, 30, DATA), Extent(30, 70, ZERO)]

    def test_answers_outside_the_range_are_cut_off(self):
        told = [Extent(0, 30, ZERO), Extent(30, 70, DATA)]
        assert list(self.device(told).extents(20, 20)) == [Extent(20, 10, ZERO), Extent(30, 10, DATA)]

    def test_they_are_lazy_and_joined_across_slices(self):
        asked = []

        class Long(OneByteAtATime):
            def _extents(self, offset, length):
                asked.append((offset, length))
                return (Extent(offset, length, DATA if offset >= 3 * EXTENTS_SLICE else ZERO),)

        device = Long(b"")
        device._size = 7 * EXTENTS_SLICE
        walk = device.extents()
        assert asked == []
        assert next(walk) == Extent(0, 3 * EXTENTS_SLICE, ZERO)
        assert [offset // EXTENTS_SLICE for offset, _ in asked] == [0, 1, 3]
        assert list(walk) == [Extent(3 * EXTENTS_SLICE, 4 * EXTENTS_SLICE, DATA)]

    def test_slices_grow_where_there_is_little_and_shrink_where_there_is_much(self):
        asked = []

        class Changing(OneByteAtATime):
            def _extents(self, offset, length):
                asked.append(length // EXTENTS_SLICE)
                if offset < 7 * EXTENTS_SLICE:
                    return (Extent(offset, length, ZERO),)
                return (Extent(offset + index, 1, (DATA, ZERO)[index % 2]) for index in range(20_000))

        device = Changing(b"")
        device._size = 32 * EXTENTS_SLICE
        list(device.extents())
        assert asked == [1, 2, 4, 8, 4, 2] + [1] * 11

    def test_the_range_is_checked_at_once(self):
        with pytest.raises(OutOfRange):
            self.device([]).extents(0, 101)


def call_until_refused(device):
    """Call until close has begun in another thread."""
    while True:
        device.prefetch(0, 0)


class TestClose:
    def test_waits_for_calls_in_flight(self):
        inside, go_on, events = threading.Event(), threading.Event(), []

        class Slow(OneByteAtATime):
            def _read_into(self, offset, buffers):
                inside.set()
                go_on.wait(60)
                events.append("read")

            def _close(self):
                events.append("close")

        device = Slow(b"abc")
        reader = threading.Thread(target=device.read, args=(0, 3))
        reader.start()
        inside.wait(60)
        closer = threading.Thread(target=device.close)
        closer.start()
        with pytest.raises(Closed):
            call_until_refused(device)
        go_on.set()
        reader.join()
        closer.join()
        assert events == ["read", "close"]

    def test_a_backing_in_use_is_a_call_in_flight(self):
        device, closed = MemoryDevice(8), threading.Event()

        def close():
            device.close()
            closed.set()

        with device.backing(0, 8):
            closer = threading.Thread(target=close)
            closer.start()
            assert not closed.wait(0.05)
        closer.join()
        assert closed.is_set()

    def test_is_idempotent_and_closes_once(self):
        events = []

        class Counting(OneByteAtATime):
            def _close(self):
                events.append("close")

        with Counting(b"") as device:
            device.close()
        device.close()
        assert events == ["close"]
        assert device.closed

    def test_a_failing_call_is_over(self):
        class Failing(OneByteAtATime):
            def _read_into(self, offset, buffers):
                raise OSError(5, "gone")

        device = Failing(b"abc")
        with pytest.raises(OSError, match="gone"):
            device.read(0, 1)
        device.close()


class TestResize:
    def test_growing_and_shrinking(self):
        device = MemoryDevice(content=b"hello")
        device.resize(3)
        device.resize(6)
        assert device.read(0, 6) == b"hel\0\0\0"

    def test_refusals(self):
        class Fixed(ResizableDevice):
            def _read_into(self, offset, buffers):
                pass

            def _resize(self, size):
                raise OSError(28, "full")

        with pytest.raises(ReadOnly):
            Fixed(5, Traits()).resize(3)
        with pytest.raises(OutOfRange):
            Fixed(5, Traits(writable=True)).resize(-1)
        device = Fixed(5, Traits(writable=True))
        with pytest.raises(OSError, match="full"):
            device.resize(9)
        assert device.size == 5
        device.close()
        with pytest.raises(Closed):
            device.resize(1)


def test_a_size_that_was_asked_for_before_another_one_was_set_is_not_told():
    class Slow(MemoryDevice):
        def _current_size(self):
            other.start()
            other.join(0.3)
            return 100

    device = Slow(100)
    other = threading.Thread(target=device.resize, args=(10,))
    device.refresh()
    other.join()
    assert device.size == 10
