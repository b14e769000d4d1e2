"""A bounded run of the fuzz target, from whole definitions on."""

import random

from tests.fuzz.definition_target import fuzz_one, seeds

ROUNDS = 2000
WORDS = [
    b"{",
    b"}",
    b"=",
    b"\n",
    b'"',
    b"\0",
    b"=\n",
    b"[Partition]",
    b"%",
    b"\xff",
    b"image x {",
    b"/*",
    b"9" * 40,
    b"\\\n",
]


def test_damaged_definitions_raise_documented_errors_only():
    for whole in seeds():
        fuzz_one(whole)
    for number in range(ROUNDS):
        source = random.Random(f"definition.{number}")
        data = bytearray(source.choice(seeds()))
        for _ in range(source.choice([1, 1, 2, 5, 20])):
            at = source.randrange(1, len(data) + 1)
            end = min(len(data), at + source.choice([0, 0, 1, 3, 30]))
            data[at:end] = source.choice([*WORDS, source.randbytes(2), bytes(data[end : end + 9])])
        try:
            fuzz_one(bytes(data))
        except Exception as error:
            raise AssertionError(f"replay: number {number}: {bytes(data)!r}") from error


def test_deep_and_long_texts_end():
    for text in (
        b"ga " + b"a{" * 5000,
        b"g" + b"image x { a = { " + b"1," * 30000,
        b"t" + b"a.b=" * 9000,
        b"t" + b"[" * 9000,
    ):
        fuzz_one(text)
