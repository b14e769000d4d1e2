"""A bounded run of the fuzz target, from whole images on."""

import random
import time
import zlib

import pytest

from blockwright.format.qcow2.check import check
from blockwright.format.qcow2.create import Options
from blockwright.format.qcow2.pack import CompressingDevice
from blockwright.units import KiB, MiB
from tests.fuzz.qcow2_target import MAX_BYTES, fuzz_one
from tests.support.qcow2 import new, opened

ROUNDS = 150
MAX_SECONDS = 5
HOSTILE = [0, 1, 0xFF, 0x80, 0x7F, 0x40]
KINDS = {
    "version 3": (Options(cluster_size=4 * KiB), False),
    "version 2": (Options(version=2, cluster_size=1 * KiB), False),
    "subclusters": (Options(extended_l2=True, cluster_size=16 * KiB), False),
    "compressed": (Options(compression="zstd", cluster_size=4 * KiB), True),
    "narrow refcounts": (Options(refcount_bits=2, cluster_size=512), False),
}


def seed(kind: str) -> bytes:
    options, compress = KINDS[kind]
    file = new(64 * MiB if kind != "narrow refcounts" else MiB, options)
    disk = opened(file, owns=False)
    if compress:
        disk = CompressingDevice(disk, threads=1)
    with disk:
        for number in range(8):
            disk.write(number * 50_000, random.Random(number).randbytes(3000) + bytes(5000) + b"t" * 2000)
        disk.zero(8192, 16384)
        disk.flush()
    data = file.read(0, file.size)
    assert len(data) <= MAX_BYTES
    assert check(file) == []
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_images_raise_format_errors_only(kind):
    clean = seed(kind)
    tables = [at for at in range(0, len(clean), 8) if clean[at : at + 8] != bytes(8)]
    tables = [at for at in tables if len(set(clean[at : at + 64])) < 40]
    for number in range(ROUNDS):
        source = random.Random(f"qcow2.{kind}.{number}")
        data = bytearray(clean)
        for _ in range(source.choice([1, 1, 2, 5, 20])):
            at = source.randrange(112) if source.random() < 0.4 else source.choice(tables) + source.randrange(8)
            data[at] = source.choice([*HOSTILE, source.randrange(256)])
        cut = len(data) if source.random() < 0.9 else source.randrange(len(data))
        started = time.process_time()
        try:
            fuzz_one(bytes(data[:cut]))
        except Exception as error:
            raise AssertionError(f"replay: {kind}, number {number}, sum {zlib.crc32(data[:cut]):#x}") from error
        assert time.process_time() - started < MAX_SECONDS, f"replay: {kind}, number {number}"
