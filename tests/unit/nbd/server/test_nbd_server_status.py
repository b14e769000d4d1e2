import random

import pytest

from blockwright.device.extent import DATA, HOLE, ZERO, Extent
from blockwright.nbd.server import status
from blockwright.nbd.server.status import told, whole_blocks


def test_a_long_extent_becomes_several_of_whole_blocks():
    extents = [Extent(0, 10 << 32, HOLE)]
    parts = told(extents, block=4096, one=False, wide=False)
    assert sum(length for length, _ in parts) == 10 << 32
    assert all(length % 4096 == 0 and length < 1 << 32 and flags == HOLE for length, flags in parts)
    assert told(extents, block=4096, one=False, wide=True) == [(10 << 32, HOLE)]
    assert told(extents, block=512, one=True, wide=False) == [((1 << 32) - 512, HOLE)]


def test_one_is_one():
    extents = [Extent(0, 512, DATA), Extent(512, 512, HOLE)]
    assert told(extents, block=1, one=True, wide=True) == [(512, DATA)]


def test_a_reply_has_a_limit(monkeypatch):
    monkeypatch.setattr(status, "MAX_TOLD", 3)
    walked = []

    def endless():
        position = 0
        while True:
            walked.append(position)
            yield Extent(position, 512, position // 512 & 1)
            position += 512

    assert len(told(endless(), block=1, one=False, wide=True)) == 3
    assert len(walked) == 3


@pytest.mark.parametrize("block", [2, 512, 4096])
def test_whole_blocks_against_a_model(block):
    """Each block has the flags that all of its bytes have, and every border lies between blocks."""
    for number in range(300):
        source = random.Random(f"{block}.{number}")
        start = source.randrange(4) * block
        size = source.randrange(1, 12) * block + (source.randrange(block) if source.random() < 0.3 else 0)
        end, extents, position = start + size, [], start
        while position < end:
            length = min(source.choice([1, block // 2, block, source.randrange(1, 4 * block)]) or 1, end - position)
            extents.append(Extent(position, length, source.choice([DATA, HOLE, ZERO, HOLE | ZERO])))
            position += length
        found = list(whole_blocks(iter(extents), start, end, block))
        flags = [each.flags for each in extents for _ in range(each.length)]
        expected = []
        for low in range(0, size, block):
            shared = 3
            for each in flags[low : low + block]:
                shared &= each
            expected += [shared] * min(block, size - low)
        assert [each.flags for each in found for _ in range(each.length)] == expected, (block, number)
        assert found[0].offset == start
        assert found[-1].offset + found[-1].length == end
        assert all(each.offset % block == 0 for each in found)
