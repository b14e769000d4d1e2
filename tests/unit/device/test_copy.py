import itertools
import os
import random
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.device import DATA, HOLE, ZERO, Extent, Traits, copy_kernel
from blockwright.device import copy as copying
from blockwright.device.base import BlockDevice, FileRun
from blockwright.device.copy import CopyResult, copy
from blockwright.device.copy_runs import CHUNK, MIN_HOLE
from blockwright.device.file import FileDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice, ZeroDevice
from blockwright.device.planned import PlannedDevice, SegmentTable
from blockwright.device.window import Window
from blockwright.errors import IntegrityError, NoSpace, SourceChanged
from blockwright.testing import FaultDevice, RecordingDevice
from blockwright.units import KiB, MiB

linux = pytest.mark.skipif(sys.platform != "linux", reason="copy_file_range")


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("copy")]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert threads() == []


class Patterned(BlockDevice):
    """Data and zeros as told, with data that says where it is."""

    def __init__(self, runs):
        self.runs, offset = [], 0
        for length, flags in runs:
            self.runs.append(Extent(offset, length, flags))
            offset += length
        super().__init__(offset, Traits(parallelism=4))
        self.content = b"".join(
            bytes(run.length) if run.flags & ZERO else random.Random(run.offset).randbytes(run.length)
            for run in self.runs
        )

    def _read_into(self, offset, buffers):
        for buffer in buffers:
            buffer[:] = self.content[offset : offset + len(buffer)]
            offset += len(buffer)

    def _extents(self, offset, length):
        return self.runs


lengths = st.one_of(
    st.integers(0, 9), st.sampled_from([4 * KiB, MIN_HOLE - 1, MIN_HOLE, MIN_HOLE + 1, CHUNK - 1, CHUNK, 3 * CHUNK])
)
runs = st.lists(st.tuples(lengths, st.sampled_from([DATA, ZERO, HOLE | ZERO])), max_size=6)


@given(runs, st.booleans(), st.booleans())
def test_the_target_reads_as_the_source(told, target_is_zero, detect_zeroes):
    source = Patterned(told)
    target = MemoryDevice(source.size + 7, b"" if target_is_zero else b"\xff" * (source.size + 7))
    tail = target.read(source.size, 7)
    seen = []
    result = copy(
        source,
        target,
        target_is_zero=target_is_zero,
        detect_zeroes=detect_zeroes,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert target.read(0, source.size) == source.content
    assert target.read(source.size, 7) == tail
    assert result.copied + result.zeroed + result.skipped == source.size
    assert (result.zeroed if target_is_zero else result.skipped) == 0
    assert [total for _, total in seen] == [source.size] * len(seen)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert not source.size or seen[-1][0] == source.size


def test_writes_are_ascending_long_and_once():
    source = Patterned([(100, DATA), (MIN_HOLE, ZERO), (5 * CHUNK, DATA), (8 * KiB, ZERO), (CHUNK, DATA)])
    target = RecordingDevice(MemoryDevice(source.size))
    copy(source, target, target_is_zero=True)
    writes = [(call.offset, call.length) for call in target.named("write")]
    assert target.named("zero", "discard", "flush", "read") == []
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(writes))
    assert len(writes) == 1 + 7
    assert all(offset % CHUNK == 0 for offset, _ in writes[2:])


def test_a_short_hole_between_data_is_copied_and_a_long_one_is_not():
    for hole, copied in ((MIN_HOLE - 1, True), (MIN_HOLE, False)):
        source = Patterned([(5, DATA), (hole, ZERO), (5, DATA)])
        result = copy(source, MemoryDevice(source.size), target_is_zero=True)
        assert result.skipped == (0 if copied else hole)


def test_zeros_are_found_in_data_when_asked_for():
    content = b"x" * MIN_HOLE + bytes(4 * MIN_HOLE) + b"y" + bytes(MIN_HOLE - 1) + bytes(MIN_HOLE // 2)
    source = Patterned([(len(content), DATA)])
    source.content = content
    assert copy(source, MemoryDevice(len(content)), target_is_zero=True).skipped == 0
    result = copy(source, MemoryDevice(len(content)), target_is_zero=True, detect_zeroes=True)
    assert result == CopyResult(2 * MIN_HOLE + MIN_HOLE // 2, 0, 0, 4 * MIN_HOLE)


def test_holes_cost_nothing():
    result = copy(ZeroDevice(1 << 50), MemoryDevice(1 << 50), target_is_zero=True)
    assert result == CopyResult(0, 0, 0, 1 << 50)
    result = copy(ZeroDevice(1 << 50), MemoryDevice(1 << 50))
    assert result == CopyResult(0, 0, 1 << 50, 0)


def test_a_smaller_target_is_refused_with_both_sizes():
    with pytest.raises(NoSpace, match="at least 100 bytes, found 99"):
        copy(MemoryDevice(100), MemoryDevice(99))


def big():
    return Patterned([(12 * CHUNK, DATA)])


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("at", [0, 1, 7, 11])
def test_an_exception_from_progress_cancels(error, at):
    calls = []

    def progress(done, total):
        calls.append(done)
        if len(calls) > at:
            raise error

    with pytest.raises(error):
        copy(big(), MemoryDevice(12 * CHUNK), progress=progress)
    assert len(calls) == at + 1
    assert threads() == []


@pytest.mark.parametrize("size", [CHUNK, 12 * CHUNK])
def test_an_error_of_either_device_ends_it(size):
    source = Patterned([(size, DATA)])
    for k in range(size // CHUNK):
        with pytest.raises(OSError, match="Input/output"):
            copy(FaultDevice(source, k, names={"read"}, owns=False), MemoryDevice(size))
        with pytest.raises(OSError, match="Input/output"):
            copy(source, FaultDevice(MemoryDevice(size), k, names={"write"}))
        assert threads() == []


def test_reading_runs_ahead_of_writing_within_bounds():
    ahead, written, most = 0, 0, 0

    class Source(Patterned):
        def _read_into(self, offset, buffers):
            nonlocal ahead, most
            super()._read_into(offset, buffers)
            ahead += 1
            most = max(most, ahead - written)

    class Target(MemoryDevice):
        def _write(self, offset, buffers, *, durable):
            nonlocal written
            time.sleep(0.005)
            super()._write(offset, buffers, durable=durable)
            written += 1

    copy(Source([(12 * CHUNK, DATA)]), Target(12 * CHUNK))
    assert 1 < most <= copying.READ_AHEAD


def test_verify_reads_back():
    source = big()
    copy(source, MemoryDevice(source.size), verify=True)

    class Wrong(MemoryDevice):
        def _write(self, offset, buffers, *, durable):
            data = bytearray(b"".join(buffers))
            if offset == 5 * CHUNK:
                data[77] ^= 1
            super()._write(offset, [memoryview(data)], durable=durable)

    with pytest.raises(IntegrityError, match=rf"expected .., found .. \(byte {5 * CHUNK + 77}\)"):
        copy(source, Wrong(source.size), verify=True)


def test_verify_flushes_first_and_nothing_else_does():
    target = RecordingDevice(MemoryDevice(10))
    copy(MemoryDevice(content=b"0123456789"), target)
    assert target.named("flush") == []
    copy(MemoryDevice(content=b"0123456789"), target, verify=True)
    assert len(target.named("flush")) == 1


@linux
class TestByTheKernel:
    """Long runs within one file are moved by copy_file_range."""

    @pytest.fixture
    def source(self, tmp_path):
        content = random.Random(4).randbytes(5 * MiB + 4097)
        (tmp_path / "source").write_bytes(content)
        with FileDevice(tmp_path / "source") as device:
            yield device

    @pytest.fixture
    def target(self, tmp_path, source):
        with FileDevice(tmp_path / "target", create=True) as device:
            device.resize(source.size + MiB)
            yield device

    def content(self, device):
        return device.read(0, device.size)

    def test_file_to_file(self, source, target):
        result = copy(source, target, target_is_zero=True)
        assert result.by_kernel == result.copied == source.size
        assert target.read(0, source.size) == self.content(source)

    def test_through_windows(self, source, target):
        result = copy(Window(source, 3, 2 * MiB, owns=False), Window(target, 5, 2 * MiB, owns=False))
        assert result.by_kernel == 2 * MiB
        assert target.read(0, 2 * MiB + 10) == bytes(5) + source.read(3, 2 * MiB) + bytes(5)

    def test_only_the_long_runs_of_a_plan(self, source, target):
        table = SegmentTable()
        table.add_bytes(0, b"head")
        small = b"small" * 100

        class Long:
            def read_into(self, offset, buffer):
                source.read_into(offset, buffer)

            def backing(self, offset, length):
                return source.backing(offset, length)

        table.add(4096, 4 * MiB + 5, Long(), 3)
        table.add_bytes(4 * MiB + 8192, small)
        plan = PlannedDevice(5 * MiB, table)
        result = copy(plan, target, target_is_zero=True)
        assert 3 * MiB <= result.by_kernel <= 4 * MiB + 5
        assert target.read(0, 5 * MiB) == plan.read(0, 5 * MiB)

    @pytest.mark.parametrize("number", [5, 18, 22, 28, 38, 95])
    @pytest.mark.parametrize("at", [0, 1])
    def test_a_refusal_means_reading(self, source, target, monkeypatch, number, at):
        real, calls = os.copy_file_range, []

        def refuse(fd, to, count, offset, place):
            calls.append(count)
            if len(calls) > at:
                raise OSError(number, "no")
            return real(fd, to, MiB, offset, place)

        monkeypatch.setattr(os, "copy_file_range", refuse)
        result = copy(source, target, target_is_zero=True)
        assert calls
        assert result.by_kernel == at * MiB
        assert result.copied == source.size
        assert target.read(0, source.size) == self.content(source)

    def test_a_short_count_is_continued(self, source, target, monkeypatch):
        real = os.copy_file_range
        monkeypatch.setattr(
            os,
            "copy_file_range",
            lambda fd, to, count, offset, place: real(fd, to, min(count, 99_999), offset, place),
        )
        assert copy(source, target).by_kernel == source.size
        assert target.read(0, source.size) == self.content(source)

    def test_a_source_cut_off_meanwhile_is_an_error(self, source, target):
        os.truncate(source.name, 2 * MiB)
        with pytest.raises(SourceChanged, match="ends early"):
            copy(source, target)

    def test_a_target_that_must_see_every_write_sees_it(self, source, target):
        recording = RecordingDevice(target, owns=False)
        assert copy(source, recording).by_kernel == 0
        assert sum(call.length for call in recording.named("write")) == source.size

    def test_files_behind_a_target_are_written_only_where_that_is_allowed(self, source, target):
        class Careful(ForwardingDevice):
            def _backing(self, offset, length):
                from contextlib import contextmanager

                @contextmanager
                def runs():
                    with self._inner.backing(offset, length) as found:
                        yield [run._replace(writable=False) for run in found]

                return runs()

        assert copy(source, Careful(target, owns=False)).by_kernel == 0

    def test_cancelling_ends_between_steps(self, source, target, monkeypatch):
        monkeypatch.setattr(copy_kernel, "KERNEL_STEP", MiB)

        def progress(done, total):
            raise Stop

        with pytest.raises(Stop):
            copy(source, target, progress=progress)

    def test_runs_that_are_cut_differently(self):
        from blockwright.device.base import FileRun

        runs = [FileRun(1, 0, 10), FileRun(2, 100, 20)]
        places = [FileRun(3, 0, 5), FileRun(4, 50, 30)]
        assert list(copy_kernel._aligned(runs, places)) == [
            (FileRun(1, 0, 5), FileRun(3, 0, 5)),
            (FileRun(1, 5, 5), FileRun(4, 50, 5)),
            (FileRun(2, 100, 20), FileRun(4, 55, 20)),
        ]


def test_what_the_kernel_did_not_copy_goes_to_its_places(tmp_path):
    content = random.Random("places").randbytes(5000)
    with open(tmp_path / "file", "wb+") as file:
        kernel = copy_kernel.KernelCopy(MemoryDevice(content=content), ZeroDevice(1), detect_zeroes=False)
        places = [FileRun(file.fileno(), 0, 1000, True), FileRun(file.fileno(), 6000, 3000, True)]
        kernel._fill(100, places, 500, 3500)
        wanted = bytes(500) + content[600:1100] + bytes(5000) + content[1100:3600]
        assert (tmp_path / "file").read_bytes() == wanted
