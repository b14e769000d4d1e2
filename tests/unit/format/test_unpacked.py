"""What was unpacked is kept while there is room, and noise is told from what gets shorter."""

import random

from blockwright.format.unpacked import KEPT, Unpacked, is_noise
from blockwright.units import KiB


def test_what_was_asked_for_last_stays():
    pieces = Unpacked(KEPT // 3)
    for key in range(3):
        assert pieces.keep(key, bytes([key])) == bytes([key])
    assert pieces.find(0) == b"\0"
    pieces.keep(3, b"\3")
    assert [pieces.find(key) is not None for key in range(4)] == [True, False, True, True]
    pieces.clear()
    assert pieces.find(3) is None


def test_two_are_kept_however_large():
    pieces = Unpacked(2 * KEPT)
    for key in range(3):
        pieces.keep(key, b"x")
    assert [pieces.find(key) is not None for key in range(3)] == [False, True, True]


def test_noise():
    noise = random.Random(1).randbytes(64 * KiB)
    assert is_noise(memoryview(noise))
    assert not is_noise(memoryview(noise[: 32 * KiB] + bytes(32 * KiB)))
    assert not is_noise(memoryview(noise[:4096]))  # too little to be worth it
