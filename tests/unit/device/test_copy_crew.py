"""Copies in which a peer does the work: several threads, the same bytes."""

import random
import threading
from dataclasses import replace

import pytest

from blockwright.device import HOLE, ZERO, Traits
from blockwright.device.base import BlockDevice, Waits
from blockwright.device.copy import CopyResult, copy
from blockwright.device.copy_crew import CHUNK
from blockwright.device.copy_runs import MIN_HOLE, Run, join, runs_of, without_zeros
from blockwright.device.extent import Extent
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Cancelled, IntegrityError, Misaligned, UsageError
from blockwright.testing import FaultDevice
from blockwright.units import GiB, KiB, MiB


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert [thread for thread in threading.enumerate() if thread.name.startswith("copy")] == []


class Peer(ForwardingDevice):
    """Memory that counts as another machine's, and remembers how it was called."""

    def __init__(self, inner, **traits):
        super().__init__(inner, traits=replace(inner.traits, waits=Waits.PEER, **traits))
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.order = []
        self.together = None
        self.cancelled = threading.Event()

    def _call(self, name, offset, call):
        with self.lock:
            self.order.append((name, offset))
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            if self.together is not None:
                self.together.wait(30)
            return call()
        finally:
            with self.lock:
                self.inside -= 1

    def _read_into(self, offset, buffers):
        self._call("read", offset, lambda: super(Peer, self)._read_into(offset, buffers))

    def _write(self, offset, buffers, *, durable):
        self._call("write", offset, lambda: super(Peer, self)._write(offset, buffers, durable=durable))

    def _cancel(self):
        self.cancelled.set()


def disk(size, *runs, seed=1):
    device = MemoryDevice(size)
    for offset, length in runs:
        device.write(offset, random.Random(f"{seed} {offset}").randbytes(length))
    return device


def test_every_byte_arrives_whatever_the_order():
    for seed in range(30):
        chance = random.Random(seed)
        size = chance.randrange(1, 6 * MiB)
        runs = [
            (o, min(chance.choice((1, 5000, 2 * MiB)), size - o)) for o in (chance.randrange(size) for _ in "1234")
        ]
        source, target = Peer(disk(size, *runs)), MemoryDevice(size + 5)
        target.write(0, b"\xff" * (size + 5))
        result = copy(source, target, requests=chance.randint(1, 9), detect_zeroes=seed % 2 == 0, verify=True)
        assert target.read(0, size) == source.read(0, size), seed
        assert target.read(size, 5) == b"\xff" * 5
        assert result.copied + result.zeroed == size


def test_reads_are_in_flight_together():
    source, target = Peer(disk(4 * MiB, (0, 4 * MiB))), MemoryDevice(4 * MiB)
    source.together = threading.Barrier(4)  # breaks, and fails the copy, unless four come
    copy(source, target, requests=4)
    assert source.most == 4


def test_memory_is_bounded_by_the_requests(monkeypatch):
    source = Peer(disk(8 * MiB, (0, 8 * MiB)))
    copy(source, MemoryDevice(8 * MiB), requests=3)
    assert source.most <= 3
    for requests in (0, 1000):
        with pytest.raises(UsageError, match="requests in flight"):
            copy(source, MemoryDevice(8 * MiB), requests=requests)


def test_what_takes_one_call_at_a_time_gets_them_in_order():
    source, target = Peer(disk(6 * MiB, (0, 6 * MiB)), parallelism=1), Peer(MemoryDevice(6 * MiB), parallelism=1)
    copy(source, target, requests=5, target_is_zero=True)
    assert (source.most, target.most) == (1, 1)
    for device in (source, target):
        offsets = [offset for _, offset in device.order]
        assert offsets == sorted(offsets)
        assert len(offsets) == 6 * MiB // CHUNK
    assert source.read(0, 6 * MiB) == target.read(0, 6 * MiB)


def test_a_target_in_turn_waits_for_the_slowest_read():
    class Backwards(Peer):
        """Answers the first read when three others were answered."""

        answered = threading.Semaphore(0)

        def _read_into(self, offset, buffers):
            super()._read_into(offset, buffers)
            if offset:
                self.answered.release()
            else:
                for _ in range(3):
                    assert self.answered.acquire(timeout=30)

    source, target = Backwards(disk(6 * MiB, (0, 6 * MiB))), Peer(MemoryDevice(6 * MiB), parallelism=1)
    copy(source, target, requests=4, target_is_zero=True)
    assert [offset for _, offset in target.order] == list(range(0, 6 * MiB, CHUNK))
    assert source.read(MiB, 5 * MiB) == target.read(MiB, 5 * MiB)


def test_zeros_are_left_out_or_made():
    source = Peer(disk(4 * GiB, (0, MiB), (3 * GiB, MiB)))
    assert copy(source, MemoryDevice(4 * GiB), target_is_zero=True) == CopyResult(2 * MiB, 0, 0, 4 * GiB - 2 * MiB)
    target = disk(4 * GiB, (GiB, MiB), seed=2)
    assert copy(source, target) == CopyResult(2 * MiB, 0, 4 * GiB - 2 * MiB, 0)
    assert target.read(GiB, MiB) == bytes(MiB)


def test_only_the_ranges_are_copied():
    source, target = Peer(disk(4 * MiB, (0, 3 * MiB))), MemoryDevice(4 * MiB)
    target.write(0, b"\xff" * 4 * MiB)
    result = copy(source, target, ranges=lambda: ((0, 10), (MiB, 2 * MiB + 7)), verify=True)
    assert result == CopyResult(10 + 2 * MiB, 0, 7, 0)
    assert target.read(0, 12) == source.read(0, 10) + b"\xff\xff"
    assert target.read(MiB, 2 * MiB + 8) == source.read(MiB, 2 * MiB) + bytes(7) + b"\xff"


def test_targets_with_large_blocks_get_whole_ones():
    class Coarse(ForwardingDevice):
        def __init__(self, inner):
            super().__init__(inner, traits=replace(inner.traits, minimum_block=64 * KiB, waits=Waits.PEER))

    class Fine(BlockDevice):
        def __init__(self):
            super().__init__(2 * MiB, Traits(parallelism=4))

        def _read_into(self, offset, buffers):
            for buffer in buffers:
                buffer[:] = bytes(len(buffer))

        def _extents(self, offset, length):
            yield Extent(0, 5000, 0)
            yield Extent(5000, MiB + 123, HOLE | ZERO)
            yield Extent(MiB + 5123, MiB - 5123, 0)

    target = Coarse(disk(2 * MiB, (0, 2 * MiB)))
    copy(Fine(), target, detect_zeroes=True)
    assert not any(target.read(0, 2 * MiB))
    with pytest.raises(Misaligned):
        copy(Fine(), target, ranges=lambda: ((0, 512),))


def test_an_error_of_any_thread_ends_all_and_cancels_both():
    source, target = Peer(disk(8 * MiB, (0, 8 * MiB))), Peer(MemoryDevice(8 * MiB))
    failing = FaultDevice(source, 3, error=lambda: OSError(5, "medium"), names=("read",))
    with pytest.raises(OSError, match="medium"):
        copy(failing, target, requests=4)
    assert source.cancelled.is_set()
    assert target.cancelled.is_set()


def test_cancelling_from_progress_wakes_those_who_wait_for_the_peer():
    class Stuck(Peer):
        def _read_into(self, offset, buffers):
            if offset:
                assert self.cancelled.wait(60), "nobody cancelled"
                raise Cancelled("as asked")
            super()._read_into(offset, buffers)

    def progress(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(Stuck(disk(8 * MiB, (0, 8 * MiB))), MemoryDevice(8 * MiB), requests=4, progress=progress)


def test_a_thread_that_calls_behind_the_first_cancelling_is_cancelled_again():
    class Late(Peer):
        """Waits for a cancelling from the moment of a call on: an earlier one does not count."""

        failed = threading.Event()

        def __init__(self, inner):
            super().__init__(inner)
            self.cancelled = threading.Semaphore(0)

        def _cancel(self):
            self.cancelled.release()

        def _read_into(self, offset, buffers):
            if not offset:
                self.failed.set()
                raise OSError(5, "medium")
            assert self.failed.wait(30)
            assert self.cancelled.acquire(timeout=30)  # the first cancelling, which found no call
            assert self.cancelled.acquire(timeout=30), "nobody cancelled again"
            raise Cancelled("as asked")

    with pytest.raises(OSError, match="medium"):
        copy(Late(disk(2 * MiB, (0, 2 * MiB))), MemoryDevice(2 * MiB), requests=2)


def test_progress_never_goes_back_and_ends_at_the_end():
    seen = []
    source = Peer(disk(5 * MiB, (0, 5 * MiB)))
    copy(source, MemoryDevice(5 * MiB), requests=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (5 * MiB, 5 * MiB)


def test_verify_finds_what_the_target_lost():
    class Forgetful(MemoryDevice):
        def _write(self, offset, buffers, *, durable):
            super()._write(
                offset, [bytes(len(each)) for each in buffers] if offset == MiB else buffers, durable=durable
            )

    with pytest.raises(IntegrityError, match=f"byte {MiB}"):
        copy(Peer(disk(3 * MiB, (0, 3 * MiB), seed=9)), Forgetful(3 * MiB), verify=True)


def test_runs_join_short_zeros_and_keep_long_ones():
    zero = HOLE | ZERO
    extents = [
        Extent(0, 10, zero),
        Extent(10, 10, 0),
        Extent(20, MIN_HOLE - 1, zero),
        Extent(20 + MIN_HOLE - 1, 1, 0),
    ]
    assert list(join(extents)) == [Run(0, 10, True), Run(10, 10 + MIN_HOLE, False)]
    assert list(join([])) == []
    assert list(join([Extent(4096, 8192, zero)])) == [Run(4096, 8192, True)]
    assert list(runs_of(MemoryDevice(0), None, block=512)) == []


def test_zeros_in_data_are_found_at_whole_steps():
    data = bytearray(b"x" * MIN_HOLE + bytes(2 * MIN_HOLE) + b"y" + bytes(MIN_HOLE))
    assert without_zeros(100, data, len(data)) == [
        Run(100, MIN_HOLE, False),
        Run(100 + MIN_HOLE, 2 * MIN_HOLE, True),
        Run(100 + 3 * MIN_HOLE, MIN_HOLE + 1, False),
    ]
    assert without_zeros(0, bytearray(256 * KiB), 256 * KiB, block=64 * KiB) == [Run(0, 256 * KiB, True)]
