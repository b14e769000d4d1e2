"""Fingerprints of bodies that stream past, and where on a second pass they turn out to differ."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.device.memory import MemoryDevice
from blockwright.errors import SourceChanged
from blockwright.tree import passing as module
from blockwright.tree.content import BytesContent, Content, DeviceContent
from blockwright.tree.passing import CHUNK, Fingerprints, Pinpoint, fingerprint
from tests.support.trees import PatternContent


def place_all(place, contents: list[Content]) -> list[Content]:
    """Stream contents past a place, run behind run, as a reader of archives does."""
    placed = []
    for content in contents:
        position = iter([(start, length) for start, length in content.runs()])
        state = {"at": 0, "left": 0}

        def fill(buffer: memoryview, content=content, position=position, state=state) -> None:
            done = 0
            while done < len(buffer):
                if not state["left"]:
                    state["at"], state["left"] = next(position)
                part = min(state["left"], len(buffer) - done)
                content.read_into(state["at"], buffer[done : done + part])
                state["at"], state["left"], done = state["at"] + part, state["left"] - part, done + part

        placed.append(place(content.size, content.runs(), fill))
    return placed


@settings(max_examples=60)
@given(st.integers(0, 3 * CHUNK + 5), st.integers(0, 2**32))
def test_a_fingerprint_says_nothing_of_holes(size: int, seed: int) -> None:
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(size + 1), min(size + 1, 6)))
    runs = [(low, high - low) for low, high in zip(cuts[::2], cuts[1::2], strict=False)]
    runs = [each for number, each in enumerate(runs) if not number or sum(runs[number - 1]) < each[0]]
    sparse = PatternContent(size, runs, seed)
    whole = BytesContent(sparse.read(0, size))
    [passed] = place_all(Fingerprints().place, [sparse])
    assert passed.digest == fingerprint(whole) == fingerprint(sparse)


@pytest.mark.parametrize("at", [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 77])
def test_one_byte_is_found(at: int) -> None:
    first = bytearray(random.Random(1).randbytes(2 * CHUNK + 100))
    second = bytearray(first)
    second[at] ^= 0xFF
    contents = [BytesContent(b"before"), BytesContent(bytes(first)), BytesContent(b"behind")]
    [_, passed, _] = place_all(Fingerprints().place, contents)
    other = BytesContent(bytes(second))
    assert passed.digest != fingerprint(other)
    pinpoint = Pinpoint({passed.number: other})
    place_all(pinpoint.place, contents)
    shown = min(at + 16, (at // CHUNK + 1) * CHUNK)
    assert pinpoint.found == {1: (at, bytes(first[at:shown]))}


def test_data_in_a_hole_of_the_other_is_found_first() -> None:
    size = 4 * CHUNK
    body = PatternContent(size, [(3 * CHUNK, 10)], 5)
    changed = bytearray(body.read(0, size))
    changed[CHUNK + 3] = 1
    changed[3 * CHUNK] ^= 1
    pinpoint = Pinpoint({0: BytesContent(bytes(changed))})
    place_all(pinpoint.place, [body])
    assert pinpoint.found == {0: (CHUNK + 3, bytes(16))}


def test_a_stream_that_is_another_the_second_time_finds_nothing() -> None:
    pinpoint = Pinpoint({0: BytesContent(b"longer")})
    [passed] = place_all(pinpoint.place, [BytesContent(b"short")])
    assert pinpoint.found == {}
    with pytest.raises(SourceChanged):
        passed.read(0, 1)


def test_reading_a_file_of_many_runs_looks_at_few_of_them() -> None:
    """Cost by counting: a read finds its run by halving, so a file in n pieces is not n times n."""

    class Counting(tuple):
        __slots__ = ()
        looks = 0

        def __getitem__(self, index):
            Counting.looks += 1
            return super().__getitem__(index)

    count = 20_000
    runs = Counting((2 * number, 1) for number in range(count))
    content = DeviceContent(MemoryDevice(count), 2 * count, runs, range(count))
    for number in range(0, count, 100):
        content.read(2 * number, 1)
    assert Counting.looks < count // 100 * 40, Counting.looks


def test_small_bodies_cost_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """By counting what is hashed: a body of a few bytes is not a chunk."""
    hashed = []

    class State:
        def __init__(self, data: bytes, **_: int) -> None:
            self.update(data)

        def update(self, data: bytes) -> None:
            hashed.append(len(data))

        def digest(self) -> bytes:
            return bytes(32)

    monkeypatch.setattr(module.hashlib, "blake2b", State)
    place_all(Fingerprints().place, [BytesContent(b"small" * 10)] * 100)
    assert sum(hashed) == 100 * (50 + 8 + 8)
    hashed.clear()
    fingerprint(BytesContent(bytes(CHUNK) + b"x" * 10))
    assert sum(hashed) == 8 + 8 + 10
