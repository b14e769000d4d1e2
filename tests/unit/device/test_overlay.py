import random
import threading
import time

import pytest

from blockwright.device import DATA, HOLE, ZERO, Extent, Traits, Waits
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import PAGE, MemoryDevice, ZeroDevice
from blockwright.device.overlay import Overlay
from blockwright.errors import NoSpace, NotSupported, ReadOnly, UsageError
from blockwright.testing import Call, FaultDevice, RecordingDevice
from blockwright.testing.threads import run_threads

BASE = random.Random(1).randbytes(64 * 1024)


def base():
    return Untouched()


class Untouched(MemoryDevice):
    """A base that fails the test when anything writes to it."""

    def __init__(self, content=BASE):
        super().__init__(len(content), b"")
        for offset in range(0, len(content), PAGE):
            self._pages[offset // PAGE] = bytearray(content[offset : offset + PAGE].ljust(PAGE, b"\0"))

    def _write(self, offset, buffers, *, durable):
        pytest.fail("the base was written to")

    _zero = _discard = _flush = _write


def test_the_base_is_never_written_to():
    overlay = Overlay(base(), block=512)
    overlay.write(100, b"x" * 5000)
    overlay.zero(10_000, 3000)
    overlay.discard(20_000, 3000)
    overlay.flush()
    expected = bytearray(BASE)
    expected[100:5100] = b"x" * 5000
    expected[10_000:13_000] = bytes(3000)
    expected[20_480:22_528] = bytes(2048)  # whole blocks: what a discard leaves is ours to choose
    assert overlay.read(0, len(BASE)) == expected


def test_a_write_within_a_block_copies_only_what_is_missing_and_only_once():
    bottom, top = RecordingDevice(base()), RecordingDevice(MemoryDevice(len(BASE)))
    overlay = Overlay(bottom, top, block=4096)
    overlay.write(5000, b"x" * 10)
    assert bottom.named("read") == [Call("read", 4096, 904), Call("read", 5010, 3182)]
    assert top.named("write") == [Call("write", 4096, 4096)]
    overlay.write(6000, b"y")
    assert len(bottom.named("read")) == 2
    assert top.named("write")[1:] == [Call("write", 6000, 1)]


def test_a_write_of_whole_blocks_reads_nothing():
    bottom = RecordingDevice(base())
    Overlay(bottom, block=4096).write(4096, b"x" * 8192)
    assert bottom.named("read") == []


def test_a_write_over_blocks_of_every_state():
    bottom = RecordingDevice(base())
    overlay = Overlay(bottom, block=512)
    overlay.write(512, b"t" * 512)
    overlay.zero(1024, 512)
    overlay.write(700, b"w" * 1000)  # top, zero, base
    expected = BASE[:512] + b"t" * 188 + b"w" * 1000 + BASE[1700:2048]
    assert overlay.read(0, 2048) == expected
    assert bottom.named("read")[:1] == [Call("read", 1700, 348)]


def test_zero_marks_whole_blocks_and_gives_the_top_s_space_back():
    top = MemoryDevice(len(BASE))
    overlay = Overlay(base(), top, block=512)
    overlay.write(0, b"x" * len(BASE))
    assert top.allocated == PAGE
    overlay.zero(0, len(BASE), fast_only=True)
    assert top.allocated == 0
    assert overlay.read(0, len(BASE)) == bytes(len(BASE))


def test_zero_that_may_not_unmap_takes_the_space_and_is_not_fast():
    top = MemoryDevice(len(BASE))
    overlay = Overlay(base(), top)
    with pytest.raises(NotSupported):
        overlay.zero(0, 4096, may_unmap=False, fast_only=True)
    assert overlay.read(0, 4096) == BASE[:4096]
    overlay.zero(3, 5000, may_unmap=False)
    assert top.allocated == PAGE
    assert overlay.read(0, 6000) == BASE[:3] + bytes(5000) + BASE[5003:6000]


def test_extents_are_those_of_the_layer_that_has_the_block():
    overlay = Overlay(ZeroDevice(40_960), block=4096)
    overlay.write(8192, b"x")
    overlay.zero(20_480, 4096)
    assert list(overlay.extents()) == [
        Extent(0, 8192, HOLE | ZERO),
        Extent(8192, 4096, DATA),
        Extent(12_288, 28_672, HOLE | ZERO),
    ]
    overlay = Overlay(base(), block=4096)
    overlay.zero(4096, 4096)
    assert list(overlay.extents(0, 12_288)) == [
        Extent(0, 4096, DATA),
        Extent(4096, 4096, HOLE | ZERO),
        Extent(8192, 4096, DATA),
    ]


def test_a_size_that_is_no_multiple_of_the_block():
    content = BASE[:5001]
    overlay = Overlay(Untouched(content), block=4096)
    overlay.write(5000, b"!")
    overlay.zero(4096, 100)
    overlay.zero(4500, 501)
    assert overlay.read(0, 5001) == content[:4096] + bytes(100) + content[4196:4500] + bytes(501)
    overlay.discard(4096, 905)
    assert overlay.read(4096, 905) == bytes(905)


@pytest.mark.parametrize("state", ["base", "zero", "top"])
def test_a_failing_write_changes_nothing_outside_its_range(state):
    for k in range(6):
        top = FaultDevice(MemoryDevice(len(BASE)), names={"write", "read"})
        overlay = Overlay(FaultDevice(base(), names={"read"}), top, block=4096)
        before = bytearray(BASE)
        if state != "base":
            overlay.zero(0, 16_384)
            before[:16_384] = bytes(16_384)
        if state == "top":
            overlay.write(0, BASE[:16_384])
            before[:16_384] = BASE[:16_384]
        broken = (overlay._base, top)[k % 2]
        broken.fail_at = broken.count + k // 2
        try:
            overlay.write(5000, b"w" * 4000)
        except OSError:
            pass
        else:
            before[5000:9000] = b"w" * 4000
        broken.fail_at = None
        now = overlay.read(0, len(BASE))
        assert now[:5000] == before[:5000]
        assert now[9000:] == before[9000:]


def test_a_failed_fill_leaves_the_block_in_the_base():
    overlay = Overlay(FaultDevice(base(), fail_at=0, names={"read"}), block=4096)
    with pytest.raises(OSError, match="Input/output"):
        overlay.write(10, b"x")
    assert overlay.read(0, 4096) == BASE[:4096]


def test_neighbours_in_one_block_do_not_lose_each_other_s_writes():
    class Slow(ForwardingDevice):
        def _read_into(self, offset, buffers):
            super()._read_into(offset, buffers)
            time.sleep(0.002)

    for _ in range(5):
        overlay = Overlay(Slow(base()), block=4096)
        barrier = threading.Barrier(4)

        def work(number, overlay=overlay, barrier=barrier):
            barrier.wait(60)
            overlay.write(1000 + number, bytes([number]))

        run_threads([lambda number=number: work(number) for number in range(4)])
        assert overlay.read(998, 8) == BASE[998:1000] + bytes(range(4)) + BASE[1004:1006]


def test_a_discard_waits_for_a_read_in_flight():
    inside, go_on = threading.Event(), threading.Event()

    class Top(MemoryDevice):
        def _read_into(self, offset, buffers):
            inside.set()
            go_on.wait(60)
            super()._read_into(offset, buffers)

    overlay = Overlay(base(), Top(len(BASE)), block=512)
    overlay.write(0, b"t" * 512)
    got = []
    reader = threading.Thread(target=lambda: got.append(overlay.read(0, 512)))
    reader.start()
    assert inside.wait(60)
    discarder = threading.Thread(target=overlay.discard, args=(0, 512))
    discarder.start()
    discarder.join(0.05)
    assert discarder.is_alive(), "the discard did not wait"
    go_on.set()
    reader.join()
    discarder.join()
    assert got == [b"t" * 512]


def test_flush_waits_for_a_write_in_flight():
    inside, go_on = threading.Event(), threading.Event()

    class Top(MemoryDevice):
        flushed = False

        def _write(self, offset, buffers, *, durable):
            inside.set()
            go_on.wait(60)
            super()._write(offset, buffers, durable=durable)

        def _flush(self):
            assert go_on.is_set()
            self.flushed = True

    top = Top(len(BASE))
    overlay = Overlay(base(), top)
    writer = threading.Thread(target=overlay.write, args=(0, b"x"))
    writer.start()
    assert inside.wait(60)
    flusher = threading.Thread(target=overlay.flush)
    flusher.start()
    flusher.join(0.05)
    assert flusher.is_alive(), "the flush did not wait"
    go_on.set()
    writer.join()
    flusher.join()
    assert top.flushed


def test_a_top_that_can_grow_is_grown(tmp_path):
    top = MemoryDevice(0)
    with Overlay(base(), top) as overlay:
        assert top.size == len(BASE)
        overlay.write(len(BASE) - 1, b"!")
    assert top.closed


def test_tops_that_do_not_do():
    with pytest.raises(NoSpace):
        Overlay(base(), ZeroDevice(10, writable=True))
    with pytest.raises(ReadOnly):
        Overlay(base(), ZeroDevice(len(BASE)))
    with pytest.raises(UsageError):
        Overlay(base(), block=3000)


def test_blocks_are_no_smaller_than_either_device_takes():
    blocked = ForwardingDevice(MemoryDevice(len(BASE)), traits=Traits(writable=True, minimum_block=8192))
    overlay = Overlay(base(), blocked)
    assert overlay.traits.minimum_block == 8192
    assert overlay.traits.preferred_block == 8192


def test_a_tebibyte_with_little_in_it_is_cheap():
    overlay = Overlay(MemoryDevice(1 << 40))
    overlay.write(1 << 39, b"x")
    overlay.zero(0, 1 << 38)
    assert [extent for extent in overlay.extents() if extent.flags == DATA] == [Extent(1 << 39, 4096, DATA)]
    assert overlay.read((1 << 39) - 1, 3) == b"\0x\0"


def test_waits_as_the_worst_of_both_and_reads_what_is_ready():
    class Slow(MemoryDevice):
        def _read_ready(self, offset, buffers):
            return False

    overlay = Overlay(ForwardingDevice(Slow(3 * 4096), traits=Traits(waits=Waits.ALWAYS)), MemoryDevice(3 * 4096))
    assert overlay.traits.waits is Waits.ALWAYS
    assert not overlay.traits.known_extents
    overlay.write(0, b"x" * 4096)
    overlay.zero(4096, 4096)
    buffer = bytearray(8192)
    assert overlay.read_ready(0, buffer)
    assert buffer == b"x" * 4096 + bytes(4096)
    assert not overlay.read_ready(4096, buffer)


def test_ownership():
    bottom, top = MemoryDevice(8), MemoryDevice(8)
    Overlay(bottom, top, owns=False).close()
    assert not bottom.closed
    assert not top.closed
    Overlay(bottom, top).close()
    assert bottom.closed
    assert top.closed
