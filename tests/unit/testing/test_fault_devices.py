"""The devices that fail, record and crash do what they say."""

import random

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.testing import Call, CrashDevice, FaultDevice, RecordingDevice

SECTOR = 512


def test_recording_keeps_calls_in_order_with_their_flags():
    device = RecordingDevice(MemoryDevice(1000))
    device.write(5, b"ab", b"c", durable=True)
    device.zero(1, 2, may_unmap=True)
    device.zero(1, 2, may_unmap=False, durable=True)
    device.read(0, 7)
    device.flush()
    list(device.extents(3, 4))
    device.close()
    assert device.calls == [
        Call("write", 5, 3, ("durable",)),
        Call("zero", 1, 2, ("may_unmap",)),
        Call("zero", 1, 2, ("durable",)),
        Call("read", 0, 7),
        Call("flush"),
        Call("extents", 3, 4),
        Call("close"),
    ]
    assert device.named("flush", "close") == device.calls[4:5] + device.calls[6:]


class TestFault:
    def run(self, device):
        device.write(0, b"x")
        device.read(0, 1)
        device.flush()
        device.write(1, b"y")

    def test_without_a_number_nothing_fails_and_all_is_counted(self):
        device = FaultDevice(MemoryDevice(10))
        self.run(device)
        assert (device.count, device.failed) == (4, False)

    @pytest.mark.parametrize("k", range(4))
    def test_the_call_of_that_number_fails_and_does_nothing(self, k):
        inner = RecordingDevice(MemoryDevice(10))
        device = FaultDevice(inner, k)
        with pytest.raises(OSError, match="Input/output"):
            self.run(device)
        assert len(inner.calls) == k
        assert device.failed
        device.write(1, b"y")  # only one call fails

    def test_only_what_is_named_is_counted(self):
        device = FaultDevice(MemoryDevice(10), 1, names={"write"}, error=lambda: ValueError("mine"))
        with pytest.raises(ValueError, match="mine"):
            self.run(device)
        assert device.count == 2

    def test_lasting(self):
        device = FaultDevice(MemoryDevice(10), 1, lasting=True)
        device.read(0, 1)
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output"):
                device.read(0, 1)


class TestCrash:
    def test_what_was_before_is_never_written_to(self):
        before = MemoryDevice(content=b"before")
        device = CrashDevice(before)
        device.write(0, b"after!")
        assert device.read(0, 6) == b"after!"
        assert before.read(0, 6) == b"before"
        device.close()
        assert before.closed

    def test_cut_gives_each_prefix(self):
        device = CrashDevice(MemoryDevice(content=b"...."))
        device.write(0, b"a")
        device.zero(1, 1)
        device.flush()
        device.discard(2, 1)
        device.write(3, b"d")
        states = [device.cut(count).read(0, 4) for count in range(len(device.events) + 1)]
        assert states == [b"....", b"a...", b"a\0..", b"a\0..", b"a\0\0.", b"a\0\0d"]

    def test_what_was_flushed_is_there_and_the_rest_may_be(self):
        device = CrashDevice(MemoryDevice(4))
        device.write(0, b"a")
        device.flush()
        device.write(1, b"b")
        device.write(2, b"c", durable=True)
        device.write(3, b"d")
        chance = random.Random(1)
        states = {device.torn(5, chance).read(0, 4) for _ in range(100)}
        assert states == {b"a\0c\0", b"abc\0", b"a\0cd", b"abcd"}

    def test_two_writes_to_one_place_do_not_change_places(self):
        device = CrashDevice(MemoryDevice(1))
        device.write(0, b"1")
        device.write(0, b"2", durable=True)
        chance = random.Random(1)
        assert {device.torn(2, chance).read(0, 1) for _ in range(50)} == {b"2"}

    def test_a_write_is_torn_between_sectors_only(self):
        device = CrashDevice(MemoryDevice(8 * SECTOR))
        device.write(100, b"x" * (3 * SECTOR))
        chance = random.Random(1)
        ends = {device.torn(1, chance).read(0, 8 * SECTOR).rstrip(b"\0").__len__() for _ in range(100)}
        assert ends == {0, SECTOR, 2 * SECTOR, 3 * SECTOR}

    def test_cuts_are_told_for_every_event(self):
        device = CrashDevice(MemoryDevice(4))
        device.write(0, b"a")
        device.flush()
        told = [text for text, _ in device.cuts(random.Random(1), torn_for_each=1)]
        assert len(told) == 6
        assert told[2] == "power cut behind event 1 of 2"


def update(device, *, flush):
    """Write a record and then the mark that says it is whole, as journals do."""
    device.write(0, b"R" * (2 * SECTOR))
    if flush:
        device.flush()
    device.write(4 * SECTOR, b"!", durable=True)


def broken_states(*, flush):
    device = CrashDevice(MemoryDevice(8 * SECTOR))
    update(device, flush=flush)
    return [
        text
        for text, disk in device.cuts(random.Random(1), torn_for_each=20)
        if disk.read(4 * SECTOR, 1) == b"!" and disk.read(0, 2 * SECTOR) != b"R" * (2 * SECTOR)
    ]


def test_a_missing_flush_is_found_and_a_right_one_is_not_blamed():
    assert broken_states(flush=False)
    assert not broken_states(flush=True)
