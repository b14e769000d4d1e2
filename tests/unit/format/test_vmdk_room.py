"""Room that was taken and given back is taken again, whole or in parts, and never twice."""

import random

from blockwright.format.vmdk.room import Room


def test_any_order():
    """Against a plain set of bytes: nobody gets what somebody has, and what is given back at the end moves it."""
    chance = random.Random("room")
    room, taken, most = Room(100), [], 100
    for _ in range(20_000):
        if taken and chance.random() < 0.5:
            start, length = taken.pop(chance.randrange(len(taken)))
            room.give_back(start, length)
        else:
            length = chance.choice((4, 4, 8, 32))
            start = room.spare(length)
            if start is None:
                start, room.end = room.end, room.end + length
            assert start >= 100
            assert start + length <= room.end
            assert all(end <= start or start + length <= first for first, end in ((a, a + n) for a, n in taken))
            taken.append((start, length))
            most = max(most, room.end)
        assert room.end == max((start + length for start, length in taken), default=100)
    assert most > 300, "both of them were tried"


def test_a_gap_is_filled_from_its_beginning_and_nothing_larger_goes_there():
    room = Room(100)
    room.give_back(20, 10)
    room.give_back(40, 10)
    room.give_back(30, 10)
    assert room.spare(31) is None
    assert [room.spare(10), room.spare(15), room.spare(10), room.spare(5)] == [20, 30, None, 45]
    assert room.spare(1) is None
    assert room.end == 100
