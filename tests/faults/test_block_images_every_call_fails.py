"""The k-th call to the file of a VHD, VHDX or VDI image fails, for every k: what was not asked for stays."""

import random

import pytest

from blockwright.device.base import ResizableDevice
from blockwright.testing import FaultDevice
from blockwright.testing.recording import Call
from blockwright.units import MiB
from tests.support.blockimages import HARMLESS, KINDS, format_of, new, opened

SIZE = 2 * MiB + 4096
ROUGH = ("vhd", "vhd, fixed", "vhdx", "vdi")


class GrowingFault(FaultDevice, ResizableDevice):
    """A device that fails, and grows."""

    def _resize(self, size: int) -> None:
        self._observe(Call("resize", size))
        self._inner.resize(size)


def operations(seed: str):
    chance = random.Random(seed)
    for _ in range(14):
        offset = chance.randrange(SIZE - 1)
        length = min(SIZE - offset, chance.choice((512, 5000, 70_000)))
        yield chance.choice(("write", "write", "write", "zero", "flush")), offset, chance.randbytes(length)


def attempt(kind: str, fail_at: int | None, *, lasting: bool) -> int:
    """Do all operations on a file whose call fails, verify what is left, and return how many calls there were."""
    file = new(kind, SIZE)
    faulty = GrowingFault(file, names={"write", "zero", "discard", "flush", "resize"}, lasting=lasting, owns=False)
    disk = opened(kind, faulty)
    content, loose = bytearray(SIZE), bytearray(SIZE)
    faulty.fail_at = fail_at
    for name, offset, data in operations(kind):
        end = offset + len(data)
        try:
            if name == "flush":
                disk.flush()
            elif name == "write":
                disk.write(offset, data)
            else:
                disk.zero(offset, len(data))
        except OSError:
            if name != "flush":
                loose[offset:end] = b"\1" * len(data)
            continue
        if name != "flush":
            content[offset:end] = data if name == "write" else bytes(len(data))
            loose[offset:end] = bytes(len(data))
    faulty.fail_at = None
    got = disk.read(0, SIZE)
    wrong = [at for at in range(SIZE) if got[at] != content[at] and not loose[at]] if got != content else []
    assert not wrong, f"{kind}, call {fail_at}: byte {wrong[0]} is not what was written"
    disk.close()
    worse = [each for each in format_of(kind).check(file) if each.rule not in HARMLESS]
    assert not worse, f"{kind}, call {fail_at}: {worse[0]}"
    with opened(kind, file, writable=False, owns=False) as again:
        assert again.read(0, SIZE) == got
    return faulty.count


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("kind", ROUGH)
def test_every_call(kind, lasting):
    assert kind in KINDS
    count = attempt(kind, None, lasting=lasting)
    for fail_at in range(count):
        attempt(kind, fail_at, lasting=lasting)
