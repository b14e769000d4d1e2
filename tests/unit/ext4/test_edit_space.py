"""Free runs of a bitmap, against a search bit by bit; what is freed, and when it may be written to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, NoSpace
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.edit.parts import Parts
from blockwright.fs.ext4.edit.recover import recovered
from blockwright.fs.ext4.edit.space import Space
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.tree.node import Directory
from blockwright.units import MiB


def runs_of(free: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for bit in range(free.bit_length()):
        if free >> bit & 1:
            if found and sum(found[-1]) == bit:
                found[-1] = (found[-1][0], found[-1][1] + 1)
            else:
                found.append((bit, 1))
    return found


@given(st.integers(1, (1 << 300) - 1), st.integers(1, 120))
def test_longest_run(free, count):
    start, length = Space._longest(free, count)
    longest = max(length for _, length in runs_of(free))
    assert length == min(count, longest)
    assert all(free >> bit & 1 for bit in range(start, start + length))


def empty_parts() -> Parts:
    """The parts of an editor over an empty file system of one group."""
    with open_plan(plan(Directory(), Ext4Options(size=8 * MiB, journal=0))) as planned:
        device = MemoryDevice(content=planned.read(0, planned.size))
    return Parts(recovered(device, source=None))


def test_what_is_freed_is_not_written_to_before_the_commit():
    parts = empty_parts()
    free = parts.superblock.fields.free_blocks_count
    taken = parts.space.allocate_runs(0, free)
    parts.keep()
    parts.committed()
    start, _ = taken[0]
    parts.space.free(start, 3)
    assert parts.superblock.fields.free_blocks_count == 3
    with pytest.raises(NoSpace, match="found 0, and 3 more once the changes so far are committed"):
        parts.space.allocate(start, 1)  # after a power cut these blocks are what they were
    parts.keep()
    parts.committed()
    assert parts.space.allocate(start, 3) == (start, 3)


@pytest.mark.parametrize("free", [(0, 1), (3, 1), (7, 1), (0, 8)])
def test_blocks_that_are_free_are_not_freed_again(free):
    parts = empty_parts()
    start, length = parts.space.allocate(0, 8)
    assert length == 8
    parts.space.free(start + free[0], free[1])
    group = parts.groups.group(0)
    before, count = parts.groups.blocks(group), parts.superblock.fields.free_blocks_count
    with pytest.raises(Corrupt, match="found some of them free"):
        parts.space.free(start, 8)
    assert (parts.groups.blocks(group), parts.superblock.fields.free_blocks_count) == (before, count)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2047), st.integers(1, 200)), min_size=1, max_size=30))
def test_allocated_runs_are_free_and_given_back(requests):
    parts = empty_parts()
    group = parts.groups.group(0)
    before, free = parts.groups.blocks(group), parts.superblock.fields.free_blocks_count
    taken: list[tuple[int, int]] = []
    for goal, count in requests:
        if count <= parts.superblock.fields.free_blocks_count:
            found = parts.space.allocate_runs(goal, count)
            assert sum(length for _, length in found) == count
            taken += found
    blocks = [block for start, length in taken for block in range(start, start + length)]
    assert len(set(blocks)) == len(blocks)
    assert not any(before >> block & 1 for block in blocks)
    assert parts.superblock.fields.free_blocks_count == free - len(blocks)
    for start, length in taken:
        parts.space.free(start, length)
    assert parts.groups.blocks(group) == before
    assert parts.superblock.fields.free_blocks_count == free
    parts.revert()
    assert not parts.changed
