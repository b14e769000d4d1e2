"""A qcow2 disk is a bytearray: any operations on it, in any order, with qemu-img's word for it after each flush."""

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import LimitExceeded, UsageError
from blockwright.format.qcow2.bitmap import bitmap_ranges, read_bitmaps
from blockwright.format.qcow2.bitmaps import clear_bitmap, create_bitmap, remove_bitmap
from blockwright.format.qcow2.check import LEAK, check
from blockwright.format.qcow2.create import Options, create
from blockwright.format.qcow2.open import read_header
from blockwright.format.qcow2.snapshot import open_snapshot, read_snapshots
from blockwright.format.qcow2.snapshots import apply_snapshot, create_snapshot, delete_snapshot
from blockwright.units import KiB
from tests.support.qcow2 import GEOMETRIES, opened, qemu_check, save

SIZE = 700 * KiB
KINDS = ["default", "version 2, small clusters", "clusters of 512", "2-bit refcounts", "subclusters"]
OFFSETS = st.integers(0, SIZE - 1)
LENGTHS = st.sampled_from([1, 511, 512, 4096, 5000, 65536, 200_000])


class Machine(RuleBasedStateMachine):
    """The disk, its model, the snapshots' models, and for each bitmap what the disk was when it marked nothing.

    ``kind``, ``over`` and ``folder`` are set by the test.
    """

    kind = "default"
    over = False
    folder = None

    @initialize()
    def start(self):
        options = GEOMETRIES[self.kind]
        below = random.Random(1).randbytes(SIZE // 2) if self.over else b""
        if self.over:
            options = replace(options, backing_file="below", backing_format="raw")
        self.below = MemoryDevice(content=below) if self.over else None
        self.file = MemoryDevice(0)
        create(self.file, SIZE, options)
        self.content = bytearray(below.ljust(SIZE, b"\0"))
        self.snapshots = {}
        self.bitmaps = {}
        self.open()

    def open(self):
        self.disk = opened(self.file, owns=False, below=self.lent())

    def lent(self):
        return None if self.below is None else ForwardingDevice(self.below, owns=False)

    @rule(offset=OFFSETS, length=LENGTHS, seed=st.integers(0, 255))
    def write(self, offset, length, seed):
        length = min(length, len(self.content) - offset)
        if length > 0:
            data = random.Random(seed).randbytes(length)
            self.disk.write(offset, data)
            self.content[offset : offset + length] = data

    @rule(offset=OFFSETS, length=LENGTHS, unmap=st.booleans())
    def zero(self, offset, length, unmap):
        length = min(length, len(self.content) - offset)
        if length > 0:
            self.disk.zero(offset, length, may_unmap=unmap)
            self.content[offset : offset + length] = bytes(length)

    @rule(offset=OFFSETS, length=LENGTHS)
    def discard(self, offset, length):
        length = min(length, len(self.content) - offset)
        if length > 0:
            self.disk.discard(offset, length)
            self.content[offset : offset + length] = self.disk.read(offset, length)

    @rule(size=st.sampled_from([SIZE, SIZE + 100 * KiB, SIZE // 2, 3 * SIZE]))
    def resize(self, size):
        self.disk.resize(size)
        self.content[size:] = bytes(max(0, size - len(self.content)))

    @rule(name=st.sampled_from("abc"))
    def snapshot(self, name):
        try:
            create_snapshot(self.disk, name, time_ns=10**18)
        except UsageError:
            assert name in self.snapshots
        except LimitExceeded:
            assert len(self.snapshots) >= 2
        else:
            self.snapshots[name] = bytes(self.content)

    @precondition(lambda self: self.snapshots)
    @rule(number=st.integers(0, 2))
    def go_back(self, number):
        name = sorted(self.snapshots)[number % len(self.snapshots)]
        try:
            apply_snapshot(self.disk, name)
        except UsageError:
            assert len(self.snapshots[name]) != len(self.content)
        except LimitExceeded:
            assert self.kind == "2-bit refcounts"
        else:
            self.content = bytearray(self.snapshots[name])

    @precondition(lambda self: self.snapshots)
    @rule(number=st.integers(0, 2))
    def forget(self, number):
        name = sorted(self.snapshots)[number % len(self.snapshots)]
        delete_snapshot(self.disk, name)
        del self.snapshots[name]

    @precondition(lambda self: GEOMETRIES[self.kind].version > 2)
    @rule(name=st.sampled_from("xy"), granularity=st.sampled_from([512, 64 * KiB]))
    def keep_changes(self, name, granularity):
        if name in self.bitmaps:
            clear_bitmap(self.disk, name)
        else:
            create_bitmap(self.disk, name, granularity=granularity)
        self.bitmaps[name] = bytes(self.content)

    @precondition(lambda self: self.bitmaps)
    @rule(number=st.integers(0, 1))
    def forget_changes(self, number):
        name = sorted(self.bitmaps)[number % len(self.bitmaps)]
        remove_bitmap(self.disk, name)
        del self.bitmaps[name]

    @rule()
    def flush(self):
        self.disk.flush()
        self.verify(leaks=True)

    @rule()
    def reopen(self):
        self.disk.close()
        self.verify(leaks=False)
        self.marked_is_what_changed()
        self.open()

    def marked_is_what_changed(self):
        """All that differs from what it was lies in what the bitmap of a closed image marks."""
        header = read_header(self.file)
        found = {each.name: each for each in read_bitmaps(self.file, header)}
        assert found.keys() == self.bitmaps.keys()
        for name, before in self.bitmaps.items():
            assert found[name].consistent
            copy = bytearray(before[: len(self.content)].ljust(len(self.content), b"\0"))
            for offset, length in bitmap_ranges(self.file, header, found[name]):
                copy[offset : offset + length] = self.content[offset : offset + length]
            assert copy == self.content

    def verify(self, *, leaks):
        wrong = [each for each in check(self.file) if not leaks or each.rule != LEAK]
        assert not wrong, wrong[0]
        header = read_header(self.file)
        for snapshot in read_snapshots(self.file, header):
            with open_snapshot(self.file, header, snapshot, owns=False, below=self.lent()) as disk:
                assert disk.read(0, disk.size) == self.snapshots[snapshot.name]
        if not self.over:
            qemu_check(save(self.file, self.folder / "model.qcow2"), leaks=leaks)

    @invariant()
    def reads_as_the_model(self):
        if hasattr(self, "disk"):
            assert self.disk.size == len(self.content)
            assert self.disk.read(0, self.disk.size) == self.content

    def teardown(self):
        if hasattr(self, "disk"):
            self.disk.close()
            self.verify(leaks=False)
            self.marked_is_what_changed()


@pytest.mark.soak
@pytest.mark.parametrize("over", [False, True], ids=["alone", "over another"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_operations_for_long(kind, over, tmp_path):
    _run(kind, over, tmp_path, examples=100)


@pytest.mark.parametrize("over", [False, True], ids=["alone", "over another"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_operations(kind, over, tmp_path):
    _run(kind, over, tmp_path, examples=2)


def _run(kind, over, folder, *, examples):
    machine = type("Machine", (Machine,), {"kind": kind, "over": over, "folder": folder})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_options_of_the_model_exist():
    assert set(KINDS) <= set(GEOMETRIES)
    assert isinstance(GEOMETRIES["default"], Options)
