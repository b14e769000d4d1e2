import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.device.checkpoint import BLOCK, CHANGED, MAX_BLOCKS, MAX_NAME, Checkpoint
from blockwright.device.extent import Extent
from blockwright.errors import UsageError
from blockwright.units import MAX_SIZE, KiB, TiB

SIZE = 40 * KiB
ranges = st.tuples(st.integers(0, SIZE), st.integers(0, 3000)).map(lambda it: (it[0], min(it[1], SIZE - it[0])))


@given(st.lists(ranges, max_size=10), ranges, st.sampled_from([1, 512, 4096]))
def test_tells_exactly_the_blocks_that_were_touched(changes, asked, block):
    checkpoint, model = Checkpoint("c", SIZE, block=block), bytearray(SIZE)
    for offset, length in changes:
        checkpoint.mark(offset, length)
        if length:
            low, high = offset // block * block, -(-(offset + length) // block) * block
            model[low:high] = bytes([CHANGED]) * (min(high, SIZE) - low)
    offset, length = asked
    told = list(checkpoint.extents(offset, length))
    assert b"".join(bytes([each.flags]) * each.length for each in told) == model[offset : offset + length]
    assert all(one.end == other.offset and one.flags != other.flags for one, other in itertools.pairwise(told))


def test_a_whole_devices_answer_is_one_extent_while_nothing_changed():
    assert list(Checkpoint("c", TiB).extents(0, TiB)) == [Extent(0, TiB, 0)]
    assert list(Checkpoint("c", 0).extents(0, 0)) == []


def test_blocks_are_larger_where_there_would_be_too_many():
    checkpoint = Checkpoint("c", MAX_SIZE)
    assert MAX_SIZE // checkpoint.block < MAX_BLOCKS
    assert Checkpoint("c", MAX_BLOCKS * BLOCK).block == BLOCK
    assert Checkpoint("c", MAX_BLOCKS * BLOCK + 1).block == 2 * BLOCK
    checkpoint.mark(0, MAX_SIZE)
    assert list(checkpoint.extents(5, 10)) == [Extent(5, 10, CHANGED)]


def test_room_for_a_larger_device_keeps_what_changed():
    checkpoint = Checkpoint("c", 64 * KiB, block=1)
    checkpoint.mark(5, 1)
    checkpoint.mark(1000, 24)
    checkpoint.make_room(MAX_BLOCKS * 16)
    assert checkpoint.block == 16
    assert list(checkpoint.extents(0, 2048)) == [
        Extent(0, 16, CHANGED),
        Extent(16, 976, 0),
        Extent(992, 32, CHANGED),
        Extent(1024, 1024, 0),
    ]
    checkpoint.make_room(10)
    assert checkpoint.block == 16


@pytest.mark.parametrize("name", ["", "a\nb", "x" * (MAX_NAME + 1), "é" * (MAX_NAME // 2 + 1)])
def test_names_that_will_not_do(name):
    with pytest.raises(UsageError, match="expected a name"):
        Checkpoint(name, 1)


@pytest.mark.parametrize("block", [0, -4096, 3, 65535])
def test_blocks_that_will_not_do(block):
    with pytest.raises(UsageError, match="power of two"):
        Checkpoint("c", 1, block=block)


def test_marks_of_many_threads_all_count():
    checkpoint = Checkpoint("c", 1 << 30, block=4096)
    count = 8

    def mark(start):
        for index in range(start, 4000, count):
            checkpoint.mark(index * 3 * 4096, 1)

    threads = [threading.Thread(target=mark, args=(start,)) for start in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    changed = [each.offset for each in checkpoint.extents(0, 1 << 30) if each.flags]
    assert changed == [index * 3 * 4096 for index in range(4000)]
