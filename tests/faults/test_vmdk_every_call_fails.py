"""The k-th call to the file of a VMDK image fails, for every k: what was not asked for stays, nothing is lost."""

import random

import pytest

from blockwright.format.vmdk.check import LEAK, check
from blockwright.testing import FaultDevice
from blockwright.units import KiB
from tests.support.vmdk import Lent, Shelf, new, opened

SIZE = 512 * KiB


def operations(seed: str):
    chance = random.Random(seed)
    for _ in range(16):
        offset = chance.randrange(SIZE - 1)
        length = min(SIZE - offset, chance.choice((512, 5000, 70_000)))
        yield chance.choice(("write", "write", "write", "zero", "flush")), offset, chance.randbytes(length)


def attempt(fail_at: int | None, *, lasting: bool) -> int:
    """Do all operations on a file whose call fails, verify what is left, and return how many calls there were."""
    file = new(SIZE)
    size = file.size
    file.resize(size + 2 * SIZE)
    faulty = FaultDevice(Lent(file), names={"write", "zero", "discard", "flush"}, lasting=lasting, owns=False)
    disk = opened(faulty)
    content, loose = bytearray(SIZE), bytearray(SIZE)
    faulty.fail_at = fail_at
    for name, offset, data in operations("vmdk"):
        end = offset + len(data)
        try:
            if name == "write":
                disk.write(offset, data)
            elif name == "zero":
                disk.zero(offset, len(data))
            else:
                disk.flush()
        except OSError:
            if name != "flush":
                loose[offset:end] = b"\1" * len(data)
            continue
        if name != "flush":
            content[offset:end] = data if name == "write" else bytes(len(data))
            loose[offset:end] = bytes(len(data))
    faulty.fail_at = None
    got = disk.read(0, SIZE)
    for index, (want, found) in enumerate(zip(content, got, strict=True)):
        if want != found and not loose[index]:
            raise AssertionError(f"call {fail_at}: byte {index} is not what was written")
    disk.close()
    worse = [each for each in check(file, Shelf()) if each.rule != LEAK]
    assert not worse, f"call {fail_at}: {worse[0]}"
    with opened(Lent(file), writable=False) as again:
        assert again.read(0, SIZE) == got
    return faulty.count


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_every_call(lasting):
    for fail_at in range(attempt(None, lasting=lasting)):
        attempt(fail_at, lasting=lasting)
