"""A bounded run of the fuzz target, from sound inputs on, damaged as bytes and value by value."""

import json
import random

from tests.fuzz.pipeline_target import fuzz_one, seeds

ROUNDS = 400
VALUES = [None, [], {}, -1, 1 << 70, 1.5, float("nan"), True, "", "x", "\ud800", [[[]]], {"x": None}]
SPLICES = [b"null", b"[]", b"{}", b"-1", b'"x"', b"1e999", b"true", b"\xff", b'"', b"[[[["]


def places(value: object) -> list[tuple[object, object]]:
    """Every container in a document with each of its keys."""
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]
    return []


def test_damaged_inputs_raise_corrupt_only():
    for index, clean in enumerate(seeds()):
        fuzz_one(clean)
        for number in range(ROUNDS):
            source = random.Random(f"pipeline.{index}.{number}")
            if source.random() < 0.7:
                document = json.loads(clean)
                for _ in range(source.choice([1, 1, 2])):
                    container, key = source.choice(places(document))
                    container[key] = source.choice(VALUES)
                data = json.dumps(document).encode()
            else:
                damaged = bytearray(clean)
                at = source.randrange(len(damaged))
                damaged[at : at + source.randrange(12)] = source.choice(SPLICES)
                data = bytes(damaged)
            try:
                fuzz_one(data)
            except Exception as error:
                raise AssertionError(f"replay: seed {index}, number {number}: {data!r}") from error


def test_noise_raises_corrupt_only():
    for number in range(300):
        source = random.Random(number)
        fuzz_one(source.randbytes(source.randrange(2000)))
    fuzz_one(b"[" * 100000)
