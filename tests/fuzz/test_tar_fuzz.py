"""A bounded run of the tar target: archives that reach every part of the reader, damaged where it looks."""

import random
import re
import time

import pytest

from tests.fuzz.tar_target import fuzz_one, seeds
from tests.support.tarmaker import checksummed

ROUNDS = 3000
SECONDS = 3.0
NUMBERS = [b"0", b"-1", b"99999999999", b"9223372036854775807", b"18446744073709551616", b"", b"1.5", b"\xff"]
FIELDS = [
    (0, 100),
    (100, 8),
    (108, 8),
    (116, 8),
    (124, 12),
    (136, 12),
    (156, 1),
    (157, 100),
    (257, 8),
    (329, 8),
    (386, 110),
]


def damaged(clean: bytes, source: random.Random) -> bytes:
    data = bytearray(clean)
    for _ in range(source.choice([1, 1, 2, 4])):
        if not data:
            break
        kind = source.randrange(6)
        at = source.randrange(len(data))
        block = at // 512 * 512
        if kind == 0:
            data[at] = source.choice([0, 1, 0x2F, 0x80, 0xFF, source.randrange(256)])
        elif kind == 1:
            start, width = source.choice(FIELDS)
            data[block + start : block + start + width] = source.randbytes(width)
        elif kind == 2:
            start, width = source.choice(FIELDS)
            value = source.choice([b"\x80" + b"\xff" * (width - 1), b"\xff" * width, b"7" * width, bytes(width)])
            data[block + start : block + start + width] = value
        elif kind == 3:
            data[block : block + 512] = bytes(data[(other := source.randrange(len(data)) // 512 * 512) : other + 512])
        elif kind == 4:
            numbers = list(re.finditer(rb"[0-9]+", bytes(data)))
            chosen = source.choice(numbers) if numbers else None
            if chosen is not None:
                value = source.choice(NUMBERS)[: len(chosen[0])].rjust(len(chosen[0]), b"0")
                data[chosen.start() : chosen.end()] = value
        else:
            del data[block : block + 512 * source.randrange(3)]
        if data[block : block + 512].strip(b"\0") and source.random() < 0.8:
            data[block : block + 512] = checksummed(bytes(data[block : block + 512]).ljust(512, b"\0"))
    return bytes(data[: len(data) if source.random() < 0.9 else source.randrange(len(data) + 1)])


@pytest.mark.parametrize("seed", range(len(seeds())))
def test_damaged_archives_raise_format_errors_only(seed: int) -> None:
    clean = seeds()[seed]
    for number in range(ROUNDS):
        data = damaged(clean, random.Random(f"tar.{seed}.{number}"))
        started = time.process_time()
        try:
            fuzz_one(data)
        except Exception as error:
            raise AssertionError(f"replay: seed {seed}, number {number}") from error
        spent = time.process_time() - started
        assert spent < SECONDS, f"took {spent:.1f} s: seed {seed}, number {number}"


def test_noise_raises_format_errors_only() -> None:
    for number in range(200):
        source = random.Random(number)
        fuzz_one(checksummed(source.randbytes(512)) + source.randbytes(source.randrange(3000)))
