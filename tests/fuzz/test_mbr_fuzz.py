"""A bounded run of the fuzz target, from whole tables on."""

import random

from blockwright.table.mbr import layout
from tests.fuzz.mbr_target import fuzz_one
from tests.support.mbr import CHAINED, disk

ROUNDS = 3000


def test_damaged_tables_raise_format_errors_only():
    clean = disk(CHAINED, sectors=1100)
    places = [sector * 512 + layout.PARTITIONS + byte for sector in CHAINED for byte in range(66)]
    fuzz_one(bytes(clean))
    for number in range(ROUNDS):
        source = random.Random(f"mbr.{number}")
        data = bytearray(clean)
        for _ in range(source.choice([1, 1, 2, 5])):
            data[source.choice(places)] = source.choice([0, 255, 1, 5, 0x0F, 128, source.randrange(256)])
        cut = len(data) if source.random() < 0.9 else source.randrange(len(data))
        try:
            fuzz_one(bytes(data[:cut]))
        except Exception as error:
            raise AssertionError(f"replay: number {number}") from error


def test_noise_raises_format_errors_only():
    for number in range(300):
        source = random.Random(number)
        data = bytearray(source.randbytes(source.randrange(20000)))
        for sector in range(0, len(data) - 512, 512):
            data[sector + 510 : sector + 512] = b"\x55\xaa"
            data[sector + layout.PARTITIONS + 4] = source.choice([5, 0x83])
        fuzz_one(bytes(data))
