"""A bounded run of the fuzz target, from whole images on."""

import random
import time
import zlib

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.format.ova.layout import Machine
from blockwright.format.ova.write import OvaWriter
from blockwright.format.vmdk.check import check
from blockwright.units import KiB, MiB
from tests.fuzz.vmdk_target import MAX_BYTES, fuzz_one
from tests.support.vmdk import Lent, Shelf, content, new, opened, stream_of

ROUNDS = 150
MAX_SECONDS = 5
HOSTILE = [0, 1, 0xFF, 0x80, 0x7F, 0x40]
TEXT = b"""# Disk DescriptorFile
version=1
CID=12345678
parentCID=00000002
parentFileNameHint="parent.vmdk"
createType="twoGbMaxExtentSparse"
RW 4192256 SPARSE "disk-s001.vmdk"
RDONLY 100 FLAT "disk-f002.vmdk" 7
RW 63 ZERO
ddb.adapterType = "ide"
"""


def sparse() -> bytes:
    file = new(64 * MiB)
    with opened(Lent(file)) as disk:
        for number in range(8):
            disk.write(number * 50_000, random.Random(number).randbytes(3000) + bytes(5000) + b"t" * 2000)
        disk.write(40 * MiB, b"x" * 70_000)
        disk.flush()
    assert list(check(file, Shelf())) == []
    return file.read(0, file.size)


def ova() -> bytes:
    file = MemoryDevice(0)
    with OvaWriter(file, 512 * KiB, Machine(), name="disk.ova") as out:
        out.write(0, content(300 * KiB, "ova"))
        out.finish()
    return file.read(0, file.size)


SEEDS = {
    "sparse": sparse,
    "stream": lambda: stream_of(content(256 * KiB, "fuzz")),
    "descriptor": lambda: TEXT,
    "ova": ova,
}


@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_images_raise_format_errors_only(kind):
    clean = SEEDS[kind]()
    assert len(clean) <= MAX_BYTES
    fuzz_one(clean)
    used = [at for at in range(0, len(clean), 4) if clean[at : at + 4] != bytes(4)]
    used = [at for at in used if len(set(clean[at : at + 64])) < 40] or used
    for number in range(ROUNDS):
        source = random.Random(f"vmdk.{kind}.{number}")
        data = bytearray(clean)
        for _ in range(source.choice([1, 1, 2, 5, 20])):
            at = source.randrange(80) if source.random() < 0.3 else source.choice(used) + source.randrange(4)
            data[min(at, len(data) - 1)] = source.choice([*HOSTILE, source.randrange(256)])
        if source.random() < 0.2:
            tail = source.randrange(min(2048, len(data)))
            data[-tail - 1] = source.randrange(256)
        cut = len(data) if source.random() < 0.9 else source.randrange(len(data))
        started = time.process_time()
        try:
            fuzz_one(bytes(data[:cut]))
        except Exception as error:
            raise AssertionError(f"replay: {kind}, number {number}, sum {zlib.crc32(data[:cut]):#x}") from error
        assert time.process_time() - started < MAX_SECONDS, f"replay: {kind}, number {number}"
