"""A bounded run of the fuzz target, from whole volumes on."""

import random

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.fs.fat import check
from tests.fuzz import fat_edit_target
from tests.fuzz.fat_target import MAX_BYTES, fuzz_one
from tests.support.fatvolumes import damage, fields, planned, small32

ROUNDS = 300
EDITED = 60


KINDS = {
    "fat16": lambda: planned(bits=16),
    "fat16 with sectors of 1024": lambda: planned(bits=16, sector_size=1024),
    "fat32": small32,
}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_volumes_raise_format_errors_only(kind):
    clean = KINDS[kind]()
    assert check.check(clean) == []
    places = fields(clean)
    data = clean.read(0, clean.size)
    assert len(data) <= MAX_BYTES
    for number in range(ROUNDS):
        source = random.Random(f"fat.{kind}.{number}")
        device = MemoryDevice(content=data)
        for _ in range(source.choice([1, 2, 4, 8])):
            damage(device, places, source)
        damaged = bytearray(device.read(0, len(data)))
        for _ in range(source.choice([0, 0, 4, 64])):
            damaged[source.randrange(100_000)] = source.randrange(256)
        cut = len(damaged) if source.random() < 0.9 else source.randrange(len(damaged))
        try:
            fuzz_one(bytes(damaged[:cut]))
        except Exception as error:
            raise AssertionError(f"replay: fat.{kind}.{number}") from error


def test_noise_behind_a_boot_sector_raises_format_errors_only():
    boot = planned(bits=16).read(0, 512)
    for number in range(150):
        source = random.Random(number)
        fuzz_one(boot + source.randbytes(source.randrange(60_000)).ljust(2_200_000, source.choice([b"\0", b"\xff"])))


@pytest.mark.parametrize("kind", KINDS)
def test_changes_to_damaged_volumes_raise_our_errors_only(kind):
    clean = KINDS[kind]()
    places = fields(clean)
    data = clean.read(0, clean.size)
    for number in range(EDITED):
        source = random.Random(f"fat-edit.{kind}.{number}")
        device = MemoryDevice(content=data)
        for _ in range(source.choice([1, 2, 4])):
            damage(device, places, source)
        try:
            fat_edit_target.fuzz_one(device.read(0, len(data)))
        except Exception as error:
            raise AssertionError(f"replay: fat-edit.{kind}.{number}") from error
