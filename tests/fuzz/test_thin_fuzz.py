"""A bounded run of the fuzz target, from whole metadata on."""

import random

from blockwright.device.memory import MemoryDevice
from blockwright.system.linux.thin import Metadata, check_metadata
from blockwright.system.linux.thin.layout import BLOCK
from tests.fuzz.thin_target import Counted, fuzz_one, seeds

ROUNDS = 400


def test_the_seed_is_whole():
    clean, whole = seeds()
    fuzz_one(clean)
    fuzz_one(whole)
    assert check_metadata(MemoryDevice(content=whole)) == []
    found = Metadata(MemoryDevice(content=clean))
    assert (len(list(found.devices())), len(list(found.snapshot().devices()))) == (25, 1)
    counted = Counted(content=clean)
    Metadata(counted)
    assert counted.reads == 1


def test_damaged_metadata_raises_format_errors_only():
    whole = seeds()
    used = {
        seed: [at for at in range(0, len(clean), 4) if clean[at : at + 4] != bytes(4)]
        for seed, clean in enumerate(whole)
    }
    for number in range(ROUNDS):
        source = random.Random(f"thin.{number}")
        clean = whole[number % 2]
        data = bytearray(clean)
        for _ in range(source.choice([1, 1, 2, 5, 20])):
            at = source.choice(used[number % 2]) + source.randrange(4)
            data[at] = source.choice([0, 1, 2, 255, 128, source.randrange(256)])
        if source.random() < 0.3:  # a block in the place of another
            to, of = source.randrange(64) * BLOCK, source.randrange(64) * BLOCK
            data[to : to + BLOCK] = data[of : of + BLOCK]
        cut = len(data) if source.random() < 0.9 else source.randrange(len(data))
        try:
            fuzz_one(bytes(data[:cut]))
        except Exception as error:
            raise AssertionError(f"replay: number {number}") from error
