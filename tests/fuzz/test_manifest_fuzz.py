"""A bounded run of the targets that read text: sound inputs, damaged where readers look."""

import random
import time

import pytest

from tests.fuzz.manifest_target import TARGETS, fuzz_one, seeds

ROUNDS = 2000
SECONDS = 3.0
PIECES = (
    b"=",
    b"/",
    b"\\",
    b"*",
    b"[",
    b"]",
    b"(",
    b")",
    b"{1,9}",
    b"..",
    b" ",
    b"\n",
    b"\0",
    b"\xff",
    b"9" * 30,
    b"-1",
)
PIECES += (b"type=dir ", b"/set ", b"(/.*)?", b"**", b"!", b"^", b"$", b"|", b"[[:alpha:]]", b"\\M", b"+ep", b"link=")


def damaged(clean: bytes, source: random.Random) -> bytes:
    data = bytearray(clean)
    for _ in range(source.choice([1, 1, 2, 5])):
        at, kind = source.randrange(1, len(data)), source.randrange(5)
        if kind == 0:
            data[at] = source.randrange(256)
        elif kind == 1:
            data[at:at] = source.choice(PIECES)
        elif kind == 2:
            del data[at : at + source.randrange(1, 12)]
        elif kind == 3:
            other = source.randrange(1, len(data))
            data[at:at] = data[other : other + source.randrange(1, 30)]
        else:
            data[at : at + 4] = source.choice(PIECES)
        if len(data) < 2:
            return bytes(data) + b"\n"
    return bytes(data)


def test_seeds_are_sound():
    for target, seed in zip(TARGETS, seeds(), strict=True):
        target(seed[1:])


@pytest.mark.parametrize("seed", range(len(seeds())))
def test_damaged_text_raises_this_package_s_errors_only(seed: int) -> None:
    clean = seeds()[seed]
    for number in range(ROUNDS):
        data = damaged(clean, random.Random(f"manifest.{seed}.{number}"))
        started = time.process_time()
        try:
            fuzz_one(data)
        except Exception as error:
            raise AssertionError(f"replay: seed {seed}, number {number}: {data!r}") from error
        spent = time.process_time() - started
        assert spent < SECONDS, f"took {spent:.1f} s: seed {seed}, number {number}"
