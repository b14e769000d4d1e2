import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.device.compare import BLOCK, CHUNK, Difference, compare, differences
from blockwright.device.extent import DATA, ZERO, Extent
from blockwright.device.memory import PAGE, MemoryDevice, ZeroDevice
from blockwright.testing import RecordingDevice

contents = st.binary(max_size=60)


@given(contents, contents, st.sampled_from([1, 2, 4, 8]))
def test_differences_are_those_of_the_bytes(ours, theirs, block):
    told = list(differences(MemoryDevice(content=ours), MemoryDevice(content=theirs), block=block))
    size, common = max(len(ours), len(theirs)), min(len(ours), len(theirs))
    unequal = {index // block for index in range(common) if ours[index] != theirs[index]}
    expected = {byte for index in unequal for byte in range(index * block, min((index + 1) * block, size))}
    expected |= set(range(common, size))
    assert {byte for found in told for byte in range(found.offset, found.end)} == expected
    assert all(a.end < b.offset for a, b in itertools.pairwise(told))
    first = min((index for index in range(common) if ours[index] != theirs[index]), default=None)
    assert compare(MemoryDevice(content=ours), MemoryDevice(content=theirs)) == (
        first if first is not None else None if len(ours) == len(theirs) else common
    )


@pytest.mark.parametrize("at", [0, 1, BLOCK - 1, BLOCK, CHUNK - 1, CHUNK, 3 * CHUNK + 4, 3 * CHUNK + 16])
def test_one_byte_anywhere(at):
    content = bytearray(random.Random(1).randbytes(3 * CHUNK + 17))
    ours = MemoryDevice(content=content)
    content[at] ^= 0x80
    theirs = MemoryDevice(content=content)
    assert compare(ours, theirs) == at
    start = at // BLOCK * BLOCK
    assert list(differences(ours, theirs)) == [Difference(start, min(BLOCK, 3 * CHUNK + 17 - start))]


def test_differences_are_joined_across_chunks():
    ours, theirs = MemoryDevice(content=b"a" * 3 * CHUNK), MemoryDevice(content=b"b" * 3 * CHUNK)
    assert list(differences(ours, theirs)) == [Difference(0, 3 * CHUNK)]


def test_what_both_know_to_be_zeros_is_not_read():
    ours, theirs = RecordingDevice(MemoryDevice(1 << 40)), RecordingDevice(ZeroDevice(1 << 40))
    assert compare(ours, theirs) is None
    assert ours.named("read") == theirs.named("read") == []
    ours.write(1 << 39, b"x")
    assert compare(ours, theirs) == 1 << 39
    assert theirs.named("read") == []
    assert sum(call.length for call in ours.named("read")) <= PAGE


def test_zeros_that_are_not_known_to_be_are_equal_to_a_hole():
    allocated = MemoryDevice(content=bytes(2 * CHUNK + 5))
    assert compare(allocated, ZeroDevice(2 * CHUNK + 5)) is None
    assert compare(ZeroDevice(2 * CHUNK + 5), allocated) is None


class Blocks(MemoryDevice):
    """One that is read by blocks of 4 KiB only."""

    def __init__(self, content):
        super().__init__(content=content)
        self._traits = replace(self._traits, minimum_block=4096)


class Told(MemoryDevice):
    """One that tells of zeros by the byte."""

    def _extents(self, offset, length):
        yield Extent(0, 1000, DATA)
        yield Extent(1000, 9000, ZERO)
        yield Extent(10_000, self.size - 10_000, DATA)


@pytest.mark.parametrize("at", [None, 0, 999, 5000, 11_000])
def test_a_device_of_blocks_and_one_of_bytes(at):
    content = bytearray(b"a" * 1000 + bytes(9000) + b"b" * 6384)
    told = Told(content=bytes(content))
    if at is not None:
        content[at] = ord("z")
    assert compare(told, Blocks(bytes(content))) == at
    assert compare(Blocks(bytes(content)), told) == at


def test_differences_are_lazy():
    ours = RecordingDevice(MemoryDevice(content=b"a" * 8 * CHUNK))
    walk = differences(ours, MemoryDevice(content=b"ab" * 4 * CHUNK), block=1)
    assert ours.calls == []
    assert next(walk) == Difference(1, 1)
    assert len(ours.named("read")) == 1


def test_progress_reaches_the_end():
    seen = []
    compare(
        MemoryDevice(content=b"a" * 100),
        MemoryDevice(content=b"a" * 100),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (100, 100)
