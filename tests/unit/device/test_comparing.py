"""A target that compares: whatever is written over it is held against what was there."""

import random

import pytest

from blockwright.device import comparing as module
from blockwright.device.comparing import ComparingDevice
from blockwright.device.extent import ZERO
from blockwright.device.memory import MemoryDevice


def there() -> MemoryDevice:
    device = MemoryDevice(1 << 20)
    device.write(5000, b"x" * 9000)
    device.write(900_000, b"end")
    return device


def copy_into(target: ComparingDevice, source: MemoryDevice) -> None:
    for offset, length, flags in source.extents():
        if not flags:
            target.write(offset, source.read(offset, length))


def test_the_same_bytes_are_no_difference() -> None:
    inner = there()
    with ComparingDevice(inner) as target:
        target.write(5000, b"x" * 4000, b"x" * 5000)
        target.write(900_000, b"end")
        target.zero(0, 4096)
        assert target.first_difference() is None


@pytest.mark.parametrize(
    ("offset", "data", "expected"),
    [(5000, b"x" * 8999 + b"y", 13999), (4999, b"y" + b"x" * 9000, 4999), (5000, b"x" * 8999, 13999)],
)
def test_the_first_byte_is_told(offset: int, data: bytes, expected: int) -> None:
    inner = there()
    with ComparingDevice(inner) as target:
        target.write(900_000, b"End")
        target.write(offset, data)
        assert target.first_difference() == expected


def test_what_is_written_again_counts_by_its_last_bytes() -> None:
    inner = there()
    with ComparingDevice(inner) as target:
        target.write(5000, b"y" * 9000)
        target.write(900_000, b"end")
        assert target.first_difference() == 5000
        target.write(5000, b"x" * 9000)
        assert target.first_difference() is None


def test_sizes_count() -> None:
    inner = there()
    with ComparingDevice(inner) as target:
        target.write(5000, b"x" * 9000)
        target.write(900_000, b"end")
        target.resize(2 << 20)
        assert target.first_difference() == 1 << 20
        assert target.read((1 << 20) - 2, 4) == bytes(4)
        assert target.read(4998, 4) == bytes(2) + b"xx"
        target.resize(950_000)
        assert target.first_difference() == 950_000


def test_many_differences_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 8)
    inner = MemoryDevice(content=random.Random(2).randbytes(1 << 20))
    with ComparingDevice(inner) as target:
        target.write(0, bytes(1 << 20))
        assert len(target._differing) == 8
        assert target.first_difference() == 0


def test_it_reads_as_what_was_written() -> None:
    rng = random.Random(3)
    inner = MemoryDevice(content=rng.randbytes(100_000))
    model = bytearray(100_000)
    with ComparingDevice(inner) as target:
        for _ in range(300):
            start, length = rng.randrange(90_000), rng.randrange(1, 9000)
            same = rng.random() < 0.5
            data = inner.read(start, length) if same else rng.randbytes(length)
            target.write(start, data)
            model[start : start + length] = data
            low, more = rng.randrange(90_000), rng.randrange(1, 9000)
            assert target.read(low, more) == model[low : low + more]
        told = bytearray(100_000)
        for offset, length, flags in target.extents():
            if not flags & ZERO:
                told[offset : offset + length] = target.read(offset, length)
        assert told == model
        expected = next((at for at in range(100_000) if model[at] != inner.read(at, 1)[0]), None)
        assert target.first_difference() == expected
