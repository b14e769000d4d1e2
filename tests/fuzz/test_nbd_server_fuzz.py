"""A bounded run of the fuzz target: its seeds, and what becomes of them when they are damaged."""

import random

import pytest

from tests.fuzz import nbd_server_target
from tests.fuzz.nbd_server_target import fuzz_one, seeds

ROUNDS = 400


def test_seeds_are_served():
    for seed in seeds():
        fuzz_one(seed)


@pytest.mark.parametrize("part", range(4))
def test_damaged_streams_end_in_protocol_errors_only(part):
    clean = seeds()
    for number in range(ROUNDS):
        source = random.Random(f"nbd.{part}.{number}")
        data = bytearray(source.choice(clean))
        for _ in range(source.choice([1, 2, 5, 50])):
            data[source.randrange(len(data))] = source.choice([0, 255, 1, 128, source.randrange(256)])
        cut = len(data) if source.random() < 0.8 else source.randrange(len(data))
        try:
            fuzz_one(bytes(data[:cut]))
        except Exception as error:
            raise AssertionError(f"replay: part {part}, number {number}") from error


def test_noise_ends_in_protocol_errors_only():
    for number in range(ROUNDS):
        source = random.Random(number)
        fuzz_one(source.randbytes(source.randrange(3000)))


def test_the_target_can_fail(monkeypatch):
    monkeypatch.setattr(nbd_server_target, "device", lambda kind: 7 / 0)
    with pytest.raises(ZeroDivisionError):
        fuzz_one(seeds()[1])
    with pytest.raises(AssertionError):
        nbd_server_target.check_chunks(bytes(18) + b"\x67\x44\x66\x98" + bytes(12), extended=False)
    with pytest.raises(AssertionError):
        nbd_server_target.check_chunks(
            bytes(18) + b"\x66\x8e\x33\xef\0\1\0\1" + bytes(8) + b"\0\0\1\0", extended=False
        )
