"""A VHD, VHDX or VDI disk is a bytearray: any operations on it, in any order, with qemu-img's word after a close."""

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from blockwright.device.extent import ZERO
from blockwright.errors import UsageError
from blockwright.units import KiB, MiB
from tests.support.blockimages import (
    KINDS,
    OVER,
    format_of,
    lent,
    new,
    opened,
    over,
    parent_of,
    qemu_check,
    qemu_compare,
    qemu_reads,
)
from tests.support.qcow2 import save

SIZE = 2500 * KiB
OFFSETS = st.integers(0, SIZE - 1)
LENGTHS = st.sampled_from([1, 511, 512, 4096, 5000, 65536, 700_000])
FULL = {"vhd, fixed", *OVER}
"""Kinds that keep their size."""


class Machine(RuleBasedStateMachine):
    """The disk and its model. ``kind`` and ``folder`` are set by the test."""

    kind = "vhd"
    folder = None

    @initialize()
    def start(self):
        self.parent, self.content = None, bytearray(SIZE)
        if self.kind in OVER:
            self.content = bytearray(random.Random(1).randbytes(MiB) + bytes(MiB)).ljust(SIZE, b"p")
            self.parent = parent_of(self.kind, bytes(self.content))
            self.file = over(self.kind, self.parent, "below")
        else:
            self.file = new(self.kind, SIZE)
        self.open()

    def open(self):
        self.disk = opened(self.kind, self.file, owns=False, below=lent(self.kind, self.parent))

    @rule(offset=OFFSETS, length=LENGTHS, seed=st.integers(0, 255))
    def write(self, offset, length, seed):
        length = min(length, len(self.content) - offset)
        data = random.Random(seed).randbytes(length)
        self.disk.write(offset, data)
        self.content[offset : offset + length] = data

    @rule(offset=OFFSETS, length=LENGTHS, unmap=st.booleans())
    def zero(self, offset, length, unmap):
        length = min(length, len(self.content) - offset)
        self.disk.zero(offset, length, may_unmap=unmap)
        self.content[offset : offset + length] = bytes(length)

    @rule(offset=OFFSETS, length=LENGTHS)
    def discard(self, offset, length):
        length = min(length, len(self.content) - offset)
        self.disk.discard(offset, length)
        self.content[offset : offset + length] = self.disk.read(offset, length)

    @rule(more=st.sampled_from([4096, 300 * KiB, MiB]))
    def resize(self, more):
        size = len(self.content) + more
        if self.kind in FULL or size > 8 * MiB:
            with pytest.raises(UsageError):
                self.disk.resize(size if self.kind in FULL else 512)
            return
        self.disk.resize(size)
        self.content = self.content.ljust(size, b"\0")

    @rule()
    def flush(self):
        self.disk.flush()
        with opened(self.kind, self.file, writable=False, owns=False, below=lent(self.kind, self.parent)) as other:
            assert other.read(0, other.size) == self.content

    @rule()
    def reopen(self):
        self.disk.close()
        self.verify()
        self.open()

    def verify(self):
        assert format_of(self.kind).check(self.file) == []
        if qemu_reads(self.kind):
            path, raw = save(self.file, self.folder / "model"), self.folder / "raw"
            raw.write_bytes(self.content)
            qemu_check(self.kind, path)
            qemu_compare(self.kind, path, raw)

    @invariant()
    def reads_as_the_model(self):
        if hasattr(self, "disk"):
            assert self.disk.size == len(self.content)
            assert self.disk.read(0, self.disk.size) == self.content
            for extent in self.disk.extents():
                part = self.content[extent.offset : extent.end]
                assert not extent.flags & ZERO or part.count(0) == len(part)

    def teardown(self):
        if hasattr(self, "disk"):
            self.disk.close()
            self.verify()


def attempt(kind, folder, *, examples, steps):
    class Case(Machine):
        pass

    Case.kind, Case.folder = kind, folder
    run_state_machine_as_test(
        Case,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


SLOW = {"vhdx, fixed", "vdi, fixed", "vhdx, sectors of 4 KiB"}
DAILY = [pytest.param(kind, marks=[pytest.mark.ci] if kind in SLOW else []) for kind in (*KINDS, *OVER)]


@pytest.mark.parametrize("kind", DAILY)
def test_any_operations(kind, tmp_path):
    attempt(kind, tmp_path, examples=5, steps=12)


@pytest.mark.soak
@pytest.mark.parametrize("kind", [*KINDS, *OVER])
def test_many_operations(kind, tmp_path):
    attempt(kind, tmp_path, examples=100, steps=40)
