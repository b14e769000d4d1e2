"""A VMDK disk is a bytearray: any operations on it, in any order, with qemu-img's word for it after each flush."""

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from blockwright.format.vmdk.check import check
from blockwright.format.vmdk.create import SPLIT
from blockwright.format.vmdk.descriptor import MONOLITHIC_FLAT, MONOLITHIC_SPARSE, SPLIT_FLAT, SPLIT_SPARSE
from blockwright.units import KiB
from tests.support.tools import run, tool
from tests.support.vmdk import Lent, Shelf, child_of, new, opened, save

SIZE = 700 * KiB
OFFSETS = st.integers(0, SIZE - 1)
LENGTHS = st.sampled_from([1, 511, 512, 4096, 5000, 65536, 200_000])
KINDS = ["child", MONOLITHIC_SPARSE, SPLIT_SPARSE, MONOLITHIC_FLAT, SPLIT_FLAT]


class Machine(RuleBasedStateMachine):
    """The disk and its model. ``kind`` and ``folder`` are set by the test."""

    kind = MONOLITHIC_SPARSE
    folder = None

    @initialize()
    def start(self):
        self.shelf = Shelf()
        self.content = bytearray(SIZE)
        if self.kind == "child":
            self.shelf.files["parent.vmdk"] = parent = new(SIZE // 2 // 512 * 512)
            below = random.Random(1).randbytes(parent_size := SIZE // 2 // 512 * 512)
            with opened(Lent(parent)) as disk:
                disk.write(0, below)
                disk.flush()
            with opened(Lent(parent), writable=False) as disk:
                self.file = child_of(disk, SIZE)
            self.content[:parent_size] = below
        else:
            self.file = new(SIZE, self.kind, self.shelf)
        self.open()

    def open(self):
        self.disk = opened(Lent(self.file), self.shelf)

    @rule(offset=OFFSETS, length=LENGTHS, seed=st.integers(0, 255))
    def write(self, offset, length, seed):
        data = random.Random(seed).randbytes(min(length, SIZE - offset))
        self.disk.write(offset, data)
        self.content[offset : offset + len(data)] = data

    @rule(offset=OFFSETS, length=LENGTHS, unmap=st.booleans())
    def zero(self, offset, length, unmap):
        length = min(length, SIZE - offset)
        self.disk.zero(offset, length, may_unmap=unmap)
        self.content[offset : offset + length] = bytes(length)

    @rule(offset=OFFSETS, length=LENGTHS)
    def discard(self, offset, length):
        length = min(length, SIZE - offset)
        self.disk.discard(offset, length)
        self.content[offset : offset + length] = self.disk.read(offset, length)

    @rule()
    def flush(self):
        self.disk.flush()
        self.verify()

    @rule()
    def reopen(self):
        self.disk.close()
        self.verify()
        self.open()

    def verify(self):
        assert list(check(self.file, self.shelf)) == []
        with opened(Lent(self.file), self.shelf, writable=False) as disk:
            assert disk.read(0, SIZE) == self.content
        if self.kind == MONOLITHIC_SPARSE and self.folder is not None:
            path = save(self.file, self.folder / "disk.vmdk")
            (self.folder / "raw").write_bytes(self.content)
            run([tool("qemu-img"), "check", "-f", "vmdk", path])
            run([tool("qemu-img"), "compare", "-f", "vmdk", "-F", "raw", path, self.folder / "raw"])

    @invariant()
    def reads_as_the_model(self):
        if hasattr(self, "disk"):
            assert self.disk.read(0, SIZE) == self.content
            told = bytearray(SIZE)
            for extent in self.disk.extents():
                if not extent.flags & 2:
                    told[extent.offset : extent.end] = b"\1" * extent.length
            assert all(told[at] or not self.content[at] for at in range(0, SIZE, 256))

    def teardown(self):
        if hasattr(self, "disk"):
            self.disk.close()
            self.verify()


def explore(kind, folder, examples: int, steps: int) -> None:
    class Here(Machine):
        pass

    Here.kind, Here.folder = kind, folder
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_operations(kind, tmp_path):
    explore(kind, tmp_path, 5, 12)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_many_operations(kind, tmp_path):
    explore(kind, tmp_path if kind != MONOLITHIC_SPARSE else None, 150, 40)


def test_a_border_between_extents_is_nothing_to_a_disk():
    shelf = Shelf()
    file = new(SPLIT + 64 * KiB, SPLIT_SPARSE, shelf)
    with opened(Lent(file), shelf) as disk:
        disk.zero(SPLIT - 100, 200)
        disk.write(SPLIT - 1, b"ab")
        disk.flush()
        assert disk.read(SPLIT - 2, 4) == b"\0ab\0"
    assert list(check(file, shelf)) == []
