"""Power fails behind every write of a rebase and of a commit: the chain reads as it did, over either file below."""

import random

import pytest

from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.disk.backing import bring_down, move_onto
from blockwright.format.qcow2.check import LEAK, check
from blockwright.format.qcow2.create import Options
from blockwright.format.qcow2.open import read_header
from blockwright.units import KiB, MiB
from tests.support.qcow2 import GrowingCrash, new, opened

SIZE = 2 * MiB + 512
ROOM = 16 * MiB
KINDS = {
    "default": Options(backing_file="old", backing_format="raw"),
    "clusters of 512": Options(backing_file="old", backing_format="raw", cluster_size=512, refcount_bits=64),
    "subclusters": Options(backing_file="old", backing_format="raw", extended_l2=True, cluster_size=16 * KiB),
    "version 2": Options(backing_file="old", backing_format="raw", version=2, cluster_size=4 * KiB),
}

DAILY = [pytest.param(each, marks=[pytest.mark.soak] if "512" in each else []) for each in KINDS]


def lent(device):
    return ForwardingDevice(device, owns=False)


def overlay(kind, below, chance):
    """Return a file with an image over ``below`` that holds data, zeros and subclusters, and what it reads as."""
    file = new(SIZE, KINDS[kind])
    with opened(file, owns=False, below=lent(below)) as disk:
        for _ in range(6):
            offset = chance.randrange(SIZE - 40_000)
            disk.write(offset, chance.randbytes(chance.choice((100, 40_000))))
            disk.zero(chance.randrange(SIZE - 200_000), 200_000)
        return file, disk.read(0, SIZE)


def other(content, chance, size):
    """Return something alike of another size, with other zeros and other data."""
    data = bytearray(content.ljust(size, b"\x07")[:size])
    for _ in range(8):
        offset = chance.randrange(size)
        data[offset : offset + 70_000] = chance.choice((bytes, chance.randbytes))(min(70_000, size - offset))
    return bytes(data)


@pytest.mark.parametrize("size", [MiB, SIZE + MiB, None])
@pytest.mark.parametrize("kind", DAILY)
def test_another_file_below(kind, size):
    chance = random.Random(f"{kind} {size}")
    old = MemoryDevice(content=chance.randbytes(MiB) + bytes(MiB // 2))
    file, wanted = overlay(kind, old, chance)
    below = None if size is None else MemoryDevice(content=other(old.read(0, old.size), chance, size))
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    with opened(crash, owns=False, below=lent(old)) as disk:
        name = None if below is None else b"another file of a longer name"
        move_onto(disk, below, name, None if below is None else "qcow2")
        assert disk.read(0, SIZE) == wanted
    seen = set()
    for count in range(len(crash.events) + 1):
        for left in (crash.cut(count), crash.torn(count, chance)):
            worse = [each for each in check(left) if each.rule != LEAK]
            assert not worse, f"behind event {count}: {worse[0]}"
            header = read_header(left)
            seen.add((header.backing_file, header.backing_format))
            under = old if header.backing_file == b"old" else below
            with opened(left, writable=False, owns=False, below=under and lent(under)) as disk:
                assert disk.read(0, SIZE) == wanted, f"behind event {count}"
    assert seen == {(b"old", "raw"), (name, None if below is None else "qcow2")}


class Above(GrowingCrash):
    """An image that changes only while all of the one below is durable."""

    def __init__(self, content, room, below):
        super().__init__(content, room)
        self.below = below

    def _write(self, offset, buffers, *, durable):
        assert not self.below.events or self.below.events[-1].is_flush, "lets go of what may be lost below"
        super()._write(offset, buffers, durable=durable)


@pytest.mark.parametrize("size", [MiB, SIZE + MiB])
@pytest.mark.parametrize("kind", DAILY)
def test_what_it_holds_goes_down(kind, size):
    chance = random.Random(f"down {kind} {size}")
    content = chance.randbytes(size)
    file, wanted = overlay(kind, MemoryDevice(content=content), chance)
    before = file.read(0, file.size)
    below = GrowingCrash(content, ROOM)
    top = Above(before, ROOM, below)
    disk = opened(top, owns=False, below=below)
    bring_down(disk, below, keep=False)
    assert disk.read(0, SIZE) == wanted
    assert below.read(0, SIZE) == wanted
    # The one below first, with the image as it was; then the image, over one that has all.
    for count in range(len(below.events) + 1):
        left = below.torn(count, chance)
        with opened(MemoryDevice(content=before), writable=False, below=left) as disk:
            assert disk.read(0, SIZE) == wanted, f"behind event {count} below"
    for count in range(len(top.events) + 1):
        for left in (top.cut(count), top.torn(count, chance)):
            worse = [each for each in check(left) if each.rule != LEAK]
            assert not worse, f"behind event {count}: {worse[0]}"
            with opened(left, writable=False, owns=False, below=lent(below)) as disk:
                assert disk.read(0, SIZE) == wanted, f"behind event {count}"
