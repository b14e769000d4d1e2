"""A bounded run of the fuzz target, from sound parts on."""

import random

from tests.fuzz.boot_target import fuzz_one, seeds

ROUNDS = 400


def test_damaged_parts_raise_format_errors_only() -> None:
    for kind, clean in enumerate(seeds()):
        fuzz_one(clean)
        for number in range(ROUNDS):
            source = random.Random(f"boot.{kind}.{number}")
            data = bytearray(clean)
            reach = min(len(data), source.choice([0x80, 0x400, 0x800, len(data)]))
            for _ in range(source.choice([1, 1, 2, 5])):
                data[source.randrange(1, reach)] = source.choice([0, 255, 1, 0x80, source.randrange(256)])
            cut = len(data) if source.random() < 0.8 else source.randrange(1, len(data))
            try:
                fuzz_one(bytes(data[:cut]))
            except Exception as error:
                raise AssertionError(f"replay: kind {kind}, number {number}") from error


def test_noise_raises_format_errors_only() -> None:
    for number in range(300):
        source = random.Random(number)
        fuzz_one(bytes([source.randrange(7)]) + source.randbytes(source.randrange(4000)))
