import random
import threading

import pytest

from blockwright.device.cache import CachedDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import UsageError
from blockwright.testing import FaultDevice, RecordingDevice
from blockwright.testing.threads import run_threads

CONTENT = random.Random(1).randbytes(100_001)
BLOCK = 1024


def cached(**options):
    inner = RecordingDevice(MemoryDevice(content=CONTENT))
    return CachedDevice(inner, **{"capacity": 64 * BLOCK, "block": BLOCK, **options}), inner


def reads(inner):
    return [(call.offset // BLOCK, -(-call.length // BLOCK)) for call in inner.named("read")]


def test_a_block_is_read_once():
    device, inner = cached()
    for _ in range(3):
        assert device.read(1500, 1000) == CONTENT[1500:2500]
    assert reads(inner) == [(1, 2)]
    assert (device.hits, device.misses) == (4, 2)


def test_neighbours_that_are_missing_are_read_with_one_call():
    device, inner = cached()
    device.read(3 * BLOCK, BLOCK)
    assert device.read(0, 8 * BLOCK) == CONTENT[: 8 * BLOCK]
    assert reads(inner) == [(3, 1), (0, 3), (4, 4)]


def test_the_last_block_may_be_short():
    device, _ = cached()
    assert device.read(100_000, 1) == CONTENT[100_000:]
    assert device.read(99_000, 1001) == CONTENT[99_000:]


def test_the_least_recently_used_goes_first():
    device, inner = cached(capacity=4 * BLOCK)
    for block in (0, 1, 2, 3):
        device.read(block * BLOCK, 1)
    device.read(0, 1)
    device.read(4 * BLOCK, 1)
    assert device.held == 4 * BLOCK
    before = len(reads(inner))
    device.read(0, 1)
    assert len(reads(inner)) == before
    device.read(BLOCK, 1)
    assert reads(inner)[before:] == [(1, 1)]


def test_memory_is_bounded():
    device, _ = cached(capacity=8 * BLOCK, read_ahead=4 * BLOCK)
    chance = random.Random(2)
    for _ in range(300):
        offset = chance.randrange(len(CONTENT))
        device.read(offset, min(len(CONTENT) - offset, chance.randrange(5000)))
        assert device.held <= 8 * BLOCK


def test_a_long_read_goes_past_the_cache():
    device, inner = cached()
    assert device.read(0, 17 * BLOCK) == CONTENT[: 17 * BLOCK]
    assert device.held == 0
    assert reads(inner) == [(0, 17)]


def test_read_ahead_only_for_a_reader_in_sequence():
    device, inner = cached(read_ahead=4 * BLOCK)
    device.read(0, 2 * BLOCK)
    assert reads(inner) == [(0, 2)]
    device.read(2 * BLOCK, BLOCK)
    assert reads(inner)[1:] == [(2, 5)]
    device.read(3 * BLOCK, BLOCK)
    assert len(reads(inner)) == 2
    device.read(50 * BLOCK, 1)
    assert reads(inner)[2:] == [(50, 1)]


def test_read_ahead_ends_with_the_device():
    device, inner = cached(read_ahead=16 * BLOCK)
    device.read(95 * BLOCK, BLOCK)
    device.read(96 * BLOCK, BLOCK)
    assert reads(inner)[1:] == [(96, 2)]


@pytest.mark.parametrize("change", ["write", "zero", "discard"])
def test_what_is_changed_is_dropped_and_the_rest_kept(change):
    device, inner = cached()
    device.read(0, 8 * BLOCK)
    {
        "write": lambda: device.write(3 * BLOCK + 5, b"new"),
        "zero": lambda: device.zero(3 * BLOCK + 5, 3),
        "discard": lambda: device.discard(3 * BLOCK + 5, 3),
    }[change]()
    expected = inner._inner.read(0, 8 * BLOCK)
    assert device.read(0, 8 * BLOCK) == expected
    assert reads(inner) == [(0, 8), (3, 1)]


def test_a_failed_write_drops_too():
    inner = FaultDevice(MemoryDevice(content=CONTENT), names={"write"})
    device = CachedDevice(inner, capacity=64 * BLOCK, block=BLOCK)
    device.read(0, BLOCK)
    inner._inner.write(0, b"torn")
    inner.fail_at = 0
    with pytest.raises(OSError, match="Input/output"):
        device.write(0, b"other")
    assert device.read(0, 4) == b"torn"


class Gated(ForwardingDevice):
    """Reads, and then waits until it may go on."""

    def __init__(self, inner):
        super().__init__(inner)
        self.reads = 0
        self.inside, self.go_on = threading.Event(), threading.Event()

    def _read_into(self, offset, buffers):
        self.reads += 1
        super()._read_into(offset, buffers)
        self.inside.set()
        self.go_on.wait(60)


def test_concurrent_readers_of_a_block_fetch_it_once():
    inner = Gated(MemoryDevice(content=CONTENT))
    device = CachedDevice(inner, capacity=64 * BLOCK, block=BLOCK)

    def read():
        assert device.read(10, 100) == CONTENT[10:110]

    def release():
        inner.inside.wait(60)
        while device.hits < 3:
            pass
        inner.go_on.set()

    run_threads([read, read, read, read, release])
    assert inner.reads == 1


def test_a_fetch_that_began_before_a_write_is_not_kept():
    inner = Gated(MemoryDevice(content=CONTENT))
    device = CachedDevice(inner, capacity=64 * BLOCK, block=BLOCK)
    reader = threading.Thread(target=device.read, args=(0, 10))
    reader.start()
    assert inner.inside.wait(60)
    device.write(0, b"new")
    assert device.held == 0
    inner.go_on.set()
    reader.join()
    assert device.read(0, 3) == b"new"


def test_an_error_reaches_everyone_who_waits_and_is_not_kept():
    inner = Gated(FaultDevice(MemoryDevice(content=CONTENT), names={"read"}))
    inner._inner.fail_at = 0
    device = CachedDevice(inner, capacity=64 * BLOCK, block=BLOCK)
    with pytest.raises(OSError, match="Input/output"):
        device.read(0, 10)
    inner.go_on.set()
    assert device.read(0, 10) == CONTENT[:10]


def test_an_error_ahead_does_not_fail_what_is_wanted():
    class BadEnd(ForwardingDevice):
        def _read_into(self, offset, buffers):
            if offset + sum(map(len, buffers)) > 4 * BLOCK:
                raise OSError(5, "bad sector")
            super()._read_into(offset, buffers)

    device = CachedDevice(
        BadEnd(MemoryDevice(content=CONTENT)), capacity=64 * BLOCK, block=BLOCK, read_ahead=8 * BLOCK
    )
    device.read(0, BLOCK)
    assert device.read(BLOCK, BLOCK) == CONTENT[BLOCK : 2 * BLOCK]
    with pytest.raises(OSError, match="bad sector"):
        device.read(4 * BLOCK, BLOCK)


def test_an_interrupted_fetch_does_not_leave_others_waiting():
    class Interrupted(ForwardingDevice):
        def _read_into(self, offset, buffers):
            raise KeyboardInterrupt

    device = CachedDevice(Interrupted(MemoryDevice(content=CONTENT)), capacity=64 * BLOCK, block=BLOCK)
    device._blocks[1] = memoryview(bytes(BLOCK))  # two runs, of which the second is never begun
    with pytest.raises(KeyboardInterrupt):
        device.read(0, 3 * BLOCK)
    assert device._fetches == {}


def test_blocks_that_do_not_do():
    for block, capacity in ((1000, 1 << 20), (1024, 4095), (0, 1 << 20)):
        with pytest.raises(UsageError):
            CachedDevice(MemoryDevice(10), block=block, capacity=capacity)


def test_closing_frees_and_closes():
    device, inner = cached()
    device.read(0, 1)
    device.close()
    assert device.held == 0
    assert inner.closed
