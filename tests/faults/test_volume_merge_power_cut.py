"""Power fails behind every write while layers of volumes are merged: the chain reads as it did, and merges again."""

import random
from contextlib import nullcontext

import pytest

from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.format.qcow2.check import LEAK, check
from blockwright.format.qcow2.create import Options
from blockwright.format.qcow2.open import read_header
from blockwright.units import MiB
from blockwright.volume.file import chain
from tests.support.qcow2 import GrowingCrash, new, opened

SIZE = MiB
ROOM = 16 * MiB
LAYER = Options(backing_file="below", backing_format="raw")
"""What ``chain.make_overlay`` makes."""


def lent(device):
    return ForwardingDevice(device, owns=False)


def layer(below, size, chance):
    """Return a layer over ``below`` that holds data and zeros of its own, and what the disk reads as."""
    file = new(size, LAYER)
    with opened(file, owns=False, below=lent(below)) as disk:
        for _ in range(5):
            disk.write(chance.randrange(size - 40_000), chance.randbytes(chance.choice((100, 40_000))))
            disk.zero(chance.randrange(size - 100_000), 100_000)
        return file, disk.read(0, size)


def lower_layer(kind, chance):
    """Return the file of the layer that another stands on, and how to open it."""
    base = MemoryDevice(content=chance.randbytes(SIZE // 2) + bytes(SIZE // 2))
    if kind == "raw":
        return base, lambda file, writable: nullcontext(file)
    file, _ = layer(base, SIZE, chance)
    return file, lambda file, writable: opened(file, writable=writable, owns=False, below=lent(base))


def merge(file, open_lower, above, wanted):
    """Merge what is above the layer in ``file`` into it."""
    with open_lower(file, True) as target:
        with open_lower(file, False) as lower, above(lent(lower)) as top:
            chain.pour(top, target)
        assert target.read(0, len(wanted)) == wanted


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_the_upper_layer_goes_into_the_lower_one(kind, grown):
    chance = random.Random(f"{kind} {grown}")
    file, open_lower = lower_layer(kind, chance)
    with open_lower(file, False) as lower:
        upper, wanted = layer(lower, SIZE * (1 + grown), chance)

    def above(lower):
        return opened(upper, writable=False, owns=False, below=lower)

    crash = GrowingCrash(file.read(0, file.size), ROOM)
    merge(crash, open_lower, above, wanted)
    assert len(crash.events) > 5
    for count in range(len(crash.events) + 1):
        for left in (crash.cut(count), crash.torn(count, chance)):
            where = f"behind event {count}"
            if kind == "qcow2":
                worse = [each for each in check(left) if each.rule != LEAK]
                assert not worse, f"{where}: {worse[0]}"
            with open_lower(left, False) as lower, above(lent(lower)) as top:
                assert top.read(0, len(wanted)) == wanted, where
            again = GrowingCrash(left.read(0, left.size), ROOM)
            merge(again, open_lower, above, wanted)


@pytest.mark.parametrize("name", [b"longer-than-it-was.2.17.qcow2", b"s"])
def test_an_image_names_another_layer(name):
    chance = random.Random(1)
    base = MemoryDevice(content=chance.randbytes(SIZE))
    file, wanted = layer(base, SIZE, chance)
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    chain.name_below(crash, name, "qcow2")
    seen = set()
    for count in range(len(crash.events) + 1):
        for left in (crash.cut(count), *(crash.torn(count, chance) for _ in range(8))):
            header = read_header(left)
            seen.add((header.backing_file, header.backing_format))
            with opened(left, writable=False, owns=False, below=lent(base)) as disk:
                assert disk.read(0, SIZE) == wanted, f"behind event {count}"
    assert seen == {(b"below", "raw"), (name, "qcow2")}
