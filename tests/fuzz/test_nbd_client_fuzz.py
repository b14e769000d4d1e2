"""A bounded run of the fuzz target, from whole conversations on."""

import random

from tests.fuzz.nbd_client_target import fuzz_one, seeds

ROUNDS = 6000


def test_damaged_conversations_raise_documented_errors_only():
    clean = list(seeds())
    for number in range(ROUNDS):
        chance = random.Random(number)
        data = bytearray(b"".join([chance.choice(clean)] + [each[2:] for each in chance.choices(clean[3:], k=2)]))
        for _ in range(chance.choice((1, 1, 2, 4))):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 2, 5, 255, 128, chance.randrange(256)))
        try:
            fuzz_one(bytes(data[: chance.choice((len(data), chance.randrange(2, len(data))))]))
        except Exception as error:
            raise AssertionError(f"replay: number {number}") from error


def test_seeds_are_accepted():
    for seed in seeds():
        fuzz_one(seed)
