"""A bounded run of the fuzz target, from sound documents and images on."""

import random

from blockwright.device.memory import MemoryDevice
from blockwright.format.qcow2.create import Options, create
from tests.fuzz.volume_target import fuzz_one, seeds

ROUNDS = 500
SPLICES = [b"null", b"[]", b"{}", b"-1", b'"x"', b"1e999", b"true", b"\xff", b'"', b"[[[["]


def _image() -> bytes:
    file = MemoryDevice(1 << 18)
    create(file, 1 << 16, Options(cluster_size=512, backing_file="a.1.1.raw", backing_format="raw"))
    return file.read(0, file.size)


def test_damaged_documents_and_images_raise_format_errors_only():
    for index, clean in enumerate([*seeds(), _image()]):
        for number in range(ROUNDS):
            source = random.Random(f"volume.{index}.{number}")
            data = bytearray(clean)
            for _ in range(source.choice([1, 1, 2, 4])):
                at = source.randrange(min(len(data), 600))
                if source.random() < 0.5:
                    data[at] = source.randrange(256)
                else:
                    data[at : at + source.randrange(12)] = source.choice(SPLICES)
            try:
                fuzz_one(bytes(data))
            except Exception as error:
                raise AssertionError(f"replay: seed {index}, number {number}") from error


def test_noise_raises_format_errors_only():
    for number in range(300):
        source = random.Random(number)
        fuzz_one(source.randbytes(source.randrange(2000)))
    fuzz_one(b"[" * 100000)
