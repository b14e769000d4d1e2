"""A bounded run of the fuzz target, from whole images on."""

import random
import time
import zlib

import pytest

from blockwright.codec.checksum import crc32c
from blockwright.errors import FormatError
from blockwright.format.vhd.layout import checksum
from blockwright.units import KiB, MiB
from tests.fuzz.block_images_target import MAX_BYTES, fuzz_one
from tests.support.blockimages import KINDS, OVER, SizedCrash, format_of, new, opened, over, parent_of

ROUNDS = 40
MAX_SECONDS = 5
HOSTILE = [0, 1, 0xFF, 0x80, 0x7F, 0x40]
SEEDS = ["vhd", "vhdx", "vdi", "vhdx, with a log", *OVER]


def seed(kind: str) -> bytes:
    if kind in OVER:
        file = over(kind, parent_of(kind, bytes(2 * MiB)), "..\\x")
        return file.read(0, file.size)
    plain = kind.split(",", 1)[0]
    assert plain in KINDS
    file = new(plain, 2 * MiB)
    if kind == plain:
        with opened(plain, file, owns=False) as disk:
            disk.write(70_000, b"t" * 3000)
        assert format_of(plain).check(file) == []
        return file.read(0, file.size)
    crash = SizedCrash(file.read(0, file.size), MAX_BYTES)
    with opened(plain, crash, owns=False) as disk:
        disk.write(70_000, b"t" * 3000)
        disk.flush()
        left = crash.left(len(crash.events) - 3)
    assert [each.rule for each in format_of(plain).check(left)] == ["vhdx.log"]
    return left.read(0, left.size)


def summed(data: bytearray, chance: random.Random) -> None:
    """Set most checksums right, so that what lies behind them is tried as well."""
    if chance.random() < 0.1:
        return
    if data[:8] == b"conectix":
        for start, length, at in ((0, 512, 64), (len(data) - 512, 512, 64), (512, 1024, 36)):
            part = bytes(data[start : start + length])
            data[start + at : start + at + 4] = checksum(part, at).to_bytes(4, "big")
    for start, length in ((64, 4), (128, 4), (192, 64), (256, 64), (1024, 8)):
        part = bytes(data[start * KiB : (start + length) * KiB])
        if part[:4] in (b"head", b"regi", b"loge"):
            data[start * KiB + 4 : start * KiB + 8] = crc32c(part[:4] + bytes(4) + part[8:]).to_bytes(4, "little")


@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_images_raise_format_errors_only(kind):
    clean = seed(kind)
    assert len(clean) <= MAX_BYTES
    places = [at for at in range(0, len(clean), 4) if clean[at : at + 4] not in (bytes(4), b"\xff" * 4, b"tttt")]
    for number in range(ROUNDS):
        source = random.Random(f"blocks.{kind}.{number}")
        data = bytearray(clean)
        for _ in range(source.choice([1, 1, 2, 5, 20])):
            data[source.choice(places) + source.randrange(4)] = source.choice([*HOSTILE, source.randrange(256)])
        summed(data, source)
        cut = len(data) if source.random() < 0.9 else source.randrange(len(data))
        started = time.process_time()
        try:
            fuzz_one(bytes(data[:cut]))
        except Exception as error:
            raise AssertionError(f"replay: {kind}, number {number}, sum {zlib.crc32(data[:cut]):#x}") from error
        assert time.process_time() - started < MAX_SECONDS, f"replay: {kind}, number {number}"


def test_the_target_can_fail(monkeypatch):
    monkeypatch.setattr("tests.fuzz.block_images_target._read", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        fuzz_one(b"")
    assert issubclass(FormatError, Exception)
