"""A bounded run of the fuzz target, from whole trees on."""

import random
from uuid import UUID

from blockwright.device.memory import MemoryDevice
from blockwright.verity.format import write_area
from blockwright.verity.layout import Parameters
from tests.fuzz.verity_target import AREA, ROOT, fuzz_one

ROUNDS = 700


def seeds():
    for parameters in (Parameters(9, "sha1", b"s", 512, 512), Parameters(5, "sha512", b"", 4096, 1024)):
        content = random.Random(0).randbytes(parameters.data_size)
        hashes = MemoryDevice(AREA)
        root = write_area(MemoryDevice(content=content), hashes, parameters, uuid=UUID(int=1))
        yield root.ljust(ROOT, b"\0") + hashes.read(0, AREA) + content


def test_whole_trees_are_clean():
    for seed in seeds():
        fuzz_one(seed)


def test_damaged_areas_raise_format_errors_only():
    for kind, clean in enumerate(seeds()):
        for number in range(ROUNDS):
            source = random.Random(f"verity.{kind}.{number}")
            data = bytearray(clean)
            for _ in range(source.choice([1, 1, 2, 5])):
                at = source.choice([source.randrange(ROOT, ROOT + 346), source.randrange(len(data))])
                data[at] = source.choice([0, 255, 1, 128, source.randrange(256)])
            cut = len(data) if source.random() < 0.9 else source.randrange(len(data))
            try:
                fuzz_one(bytes(data[:cut]))
            except Exception as error:
                raise AssertionError(f"replay: kind {kind}, number {number}") from error
