"""A bounded run of the fuzz target, from what each reader takes on."""

import random

from tests.fuzz.scan_target import READERS, fuzz_one, seeds

ROUNDS = 4000
WORDS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\n",
    b"\n\n",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e999",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"%",
]


def test_damaged_reports_raise_documented_errors_only():
    whole = seeds()
    assert {each[:1] for each in whole} == set(READERS)
    for each in whole:
        fuzz_one(each)
    for number in range(ROUNDS):
        source = random.Random(f"scan.{number}")
        data = bytearray(source.choice(whole))
        for _ in range(source.choice([1, 1, 2, 5, 20])):
            at = source.randrange(1, len(data) + 1)
            end = min(len(data), at + source.choice([0, 0, 1, 3, 30]))
            data[at:end] = source.choice([*WORDS, source.randbytes(2), bytes(data[end : end + 9])])
        try:
            fuzz_one(bytes(data))
        except Exception as error:
            raise AssertionError(f"replay: number {number}: {bytes(data)!r}") from error


def test_deep_and_long_texts_end():
    for reader in READERS:
        for text in (
            b"[" * 60000,
            b'{"a":' * 9000,
            b"9" * 60000,
            b'"' * 60000,
            b"a:b" * 9000,
            b"\n" * 60000,
            b"a=" * 9000,
        ):
            fuzz_one(reader + text)
