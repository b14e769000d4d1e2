"""A bounded run of the target of container images: documents and layers, damaged where they are looked at."""

import random
import time

import pytest

from blockwright.oci.manifest import parse_config, parse_docker, parse_index, parse_manifest
from tests.fuzz import oci_target
from tests.fuzz.oci_target import fuzz_one, seeds
from tests.fuzz.test_tar_fuzz import damaged

ROUNDS = 1200
SECONDS = 3.0
PIECES = [
    b"null",
    b"[]",
    b"{}",
    b"-1",
    b"1e999",
    b'""',
    b'"sha256:"',
    b"true",
    b"[[",
    b"[2]",
    b'"\\ud800"',
    b"9" * 30,
]


def changed(clean: bytes, source: random.Random) -> bytes:
    """The document with tokens that stand for others."""
    data = bytearray(clean)
    for _ in range(source.choice([1, 1, 3])):
        at = source.randrange(len(data) + 1)
        data[at : at + source.choice([0, 1, 4, 20])] = source.choice(PIECES)
    return bytes(data)


def test_the_seeds_are_sound() -> None:
    lower, upper = seeds()[-1].split(oci_target.BETWEEN)
    oci_target._layers(lower, upper)
    parsers = (parse_index, parse_manifest, parse_config, parse_docker)
    for parse, seed in zip(parsers, seeds(), strict=False):
        parse(seed)


@pytest.mark.parametrize("seed", range(len(seeds())))
def test_damaged_images_raise_format_errors_only(seed: int) -> None:
    clean = seeds()[seed]
    for number in range(ROUNDS):
        source = random.Random(f"oci.{seed}.{number}")
        data = damaged(clean, source) if seed == len(seeds()) - 1 else changed(clean, source)
        started = time.process_time()
        try:
            fuzz_one(data)
        except Exception as error:
            raise AssertionError(f"replay: seed {seed}, number {number}") from error
        spent = time.process_time() - started
        assert spent < SECONDS, f"took {spent:.1f} s: seed {seed}, number {number}"
