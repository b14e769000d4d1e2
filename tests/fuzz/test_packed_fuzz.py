"""A bounded run of the fuzz target, from whole files on."""

import gzip
import lzma
import random
import sys
import time

import pytest

from tests.fuzz.packed_target import fuzz_one

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROUNDS = 100
MAX_SECONDS = 5


DISK = random.Random("seed").randbytes(9000) + bytes(300_000) + b"so many words " * 9000
FILES = {
    "gzip": gzip.compress(DISK) + gzip.compress(DISK[:5000]),
    "xz": lzma.compress(DISK, preset=0) + bytes(4) + lzma.compress(DISK[:5000], preset=0),
    "zstd": zstd.compress(DISK) + zstd.compress(DISK[:5000]),
}


@pytest.mark.parametrize("kind", FILES)
def test_damaged_files_raise_format_errors_only(kind):
    clean = FILES[kind]
    for number in range(ROUNDS):
        chance = random.Random(f"packed.{kind}.{number}")
        data = bytearray(clean)
        for _ in range(chance.choice([1, 2, 5])):
            place = chance.choice([chance.randrange(40), chance.randrange(len(data)), -1 - chance.randrange(40)])
            data[place] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        started = time.process_time()
        fuzz_one(bytes(data))
        assert time.process_time() - started < MAX_SECONDS, f"replay: {kind}, number {number}"
