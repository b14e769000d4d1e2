"""A bounded run of the fuzz target, from whole file systems on: ours, and those of mke2fs in the corpus."""

import random
import time
import zlib
from pathlib import Path

import pytest

from tests.fuzz.ext4_target import fuzz_one, seeds

ROUNDS = 60
MAX_SECONDS = 5
CORPUS = sorted((Path(__file__).parent / "corpus" / "ext4").glob("*"))
HOSTILE = [0, 1, 0xFF, 0x80, 0x7F]


def starts() -> list[tuple[str, bytes]]:
    return [(f"ours-{at}", data) for at, data in enumerate(seeds())] + [(p.name, p.read_bytes()) for p in CORPUS]


@pytest.mark.parametrize(("name", "clean"), starts(), ids=lambda value: value if isinstance(value, str) else "")
def test_damaged_file_systems_raise_format_errors_only(name, clean):
    written = [at for at in range(0, len(clean), 4) if clean[at : at + 4] != b"\0\0\0\0"]
    for number in range(ROUNDS):
        source = random.Random(f"ext4.{name}.{number}")
        data = bytearray(clean)
        for _ in range(source.choice([1, 1, 2, 5, 20])):
            at = source.choice([*range(1024, 1400, 4)] if source.random() < 0.2 else written) + source.randrange(4)
            data[at] = source.choice([*HOSTILE, source.randrange(256)])
        cut = len(data) if source.random() < 0.9 else source.randrange(len(data))
        started = time.process_time()
        try:
            fuzz_one(bytes(data[:cut]))
        except Exception as error:
            raise AssertionError(f"replay: {name}, number {number}, sum {zlib.crc32(data[:cut]):#x}") from error
        assert time.process_time() - started < MAX_SECONDS, f"replay: {name}, number {number}"


def test_noise_raises_format_errors_only():
    for number in range(200):
        source = random.Random(number)
        data = bytearray(source.randbytes(source.randrange(20000)))
        if len(data) > 2048:
            data[1024 + 56 : 1024 + 58] = b"\x53\xef"
            data[1024 + 0x4C : 1024 + 0x50] = bytes(4)
            data[1024 + 24 : 1024 + 28] = bytes(4)
        fuzz_one(bytes(data))
