"""Power fails behind every write to a qcow2 image: leaked clusters are the worst, and what was flushed is there."""

import random

import pytest

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.format.qcow2.bitmap import bitmap_ranges, read_bitmaps
from blockwright.format.qcow2.bitmaps import clear_bitmap, create_bitmap, remove_bitmap
from blockwright.format.qcow2.check import LEAK, check
from blockwright.format.qcow2.create import Options
from blockwright.format.qcow2.open import read_header
from blockwright.format.qcow2.pack import CompressingDevice
from blockwright.format.qcow2.repair import repair
from blockwright.format.qcow2.snapshot import open_snapshot, read_snapshots
from blockwright.format.qcow2.snapshots import apply_snapshot, create_snapshot, delete_snapshot
from blockwright.units import KiB, MiB
from tests.support.qcow2 import GrowingCrash, new, opened, qemu_check, save

SIZE = 3 * MiB
ROOM = 24 * MiB

KINDS = {
    "default": Options(),
    "clusters of 512": Options(cluster_size=512, refcount_bits=64),
    "subclusters": Options(extended_l2=True, cluster_size=16 * KiB),
    "version 2": Options(version=2, cluster_size=4 * KiB),
}


SLOW = {"clusters of 512"}
DAILY = [pytest.param(kind, marks=[pytest.mark.ci] if kind in SLOW else []) for kind in KINDS]


class Story:
    """What was done to a disk, and from which event on which content must be there."""

    def __init__(self, crash: GrowingCrash, disk: BlockDevice) -> None:
        self.crash = crash
        self.disk = disk
        self.content = bytearray(disk.read(0, disk.size))
        self.flushed: list[tuple[int, bytes]] = [(0, bytes(self.content))]
        self.touched: list[set[int]] = [set()]

    def write(self, offset: int, data: bytes) -> None:
        self._touch(offset, len(data))
        self.disk.write(offset, data)
        self.content[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self._touch(offset, length)
        self.disk.zero(offset, length)
        self.content[offset : offset + length] = bytes(length)

    def discard(self, offset: int, length: int) -> None:
        self._touch(offset, length)
        self.disk.discard(offset, length)
        self.content[offset : offset + length] = self.disk.read(offset, length)

    def flush(self) -> None:
        self.disk.flush()
        self.flushed.append((len(self.crash.events), bytes(self.content)))
        self.touched.append(set())

    def _touch(self, offset: int, length: int) -> None:
        self.touched[-1] |= set(range(offset // 512, (offset + length + 511) // 512))

    def verify(self, count: int, disk: BlockDevice, doing: str) -> None:
        """What was flushed before event ``count`` is there, but where it was written to since."""
        number = max(index for index, (at, _) in enumerate(self.flushed) if at <= count)
        _, wanted = self.flushed[number]
        got = disk.read(0, disk.size)
        if got == wanted:
            return
        loose = self.touched[number]
        for sector in range(len(wanted) // 512):
            low = sector * 512
            if sector not in loose and got[low : low + 512] != wanted[low : low + 512]:
                raise AssertionError(f"{doing}: sector {sector} is not what was flushed")


def scenario(story: Story, chance: random.Random, operations: int) -> None:
    for _ in range(operations):
        offset = chance.randrange(SIZE)
        length = min(SIZE - offset, chance.choice((512, 4096, 5000, 70_000, 200_000)))
        kind = chance.choice(("write", "write", "write", "zero", "discard", "flush"))
        if kind == "write":
            story.write(offset, chance.randbytes(length))
        elif kind == "flush":
            story.flush()
        else:
            getattr(story, kind)(offset, length)
    story.flush()
    story.flush()


def cuts(crash: GrowingCrash, chance: random.Random, torn: int):
    for count in range(len(crash.events) + 1):
        yield count, crash.cut(count)
        for _ in range(torn):
            yield count, crash.torn(count, chance)


def examine(story: Story, chance: random.Random, tmp_path, *, torn: int, by_qemu: int, below=None) -> None:
    for number, (count, left) in enumerate(cuts(story.crash, chance, torn)):
        doing = f"cut {number}, behind event {count} of {len(story.crash.events)}"
        worse = [each for each in check(left) if each.rule != LEAK]
        assert not worse, f"{doing}: {worse[0]}"
        story.verify(count, opened(left, writable=False, owns=False, below=below), doing)
        if by_qemu and number % by_qemu == 0:
            qemu_check(save(left, tmp_path / "cut.qcow2"), leaks=True)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 40))])
@pytest.mark.parametrize("kind", KINDS)
def test_random_operations(kind, seed, tmp_path):
    chance = random.Random(f"{kind} {seed}")
    file = new(SIZE, KINDS[kind])
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    story = Story(crash, opened(crash))
    scenario(story, chance, 14)
    examine(story, chance, tmp_path, torn=1, by_qemu=41)


def test_over_a_backing_file_and_compressed_clusters(tmp_path):
    chance = random.Random("backing")
    base = MemoryDevice(content=chance.randbytes(2 * MiB))
    file = new(SIZE, Options(cluster_size=4 * KiB))
    disk = opened(file, owns=False, below=base)
    packer = CompressingDevice(disk)
    for offset in range(0, MiB, 4 * KiB):
        packer.write(offset, bytes([chance.randrange(256)]) * (4 * KiB))
    packer.flush()
    packer.close()
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    story = Story(crash, opened(crash, below=base))
    scenario(story, chance, 20)
    examine(story, chance, tmp_path, torn=1, by_qemu=97, below=base)


@pytest.mark.parametrize("kind", KINDS)
def test_snapshots(kind):
    """Marks may contradict counts then, as QEMU's do: no data depends on it, and a repair settles it."""
    chance = random.Random(f"snapshots {kind}")
    file = new(SIZE, KINDS[kind])
    disk = opened(file, owns=False)
    for number in range(6):
        disk.write(number * 100_000, chance.randbytes(50_000))
    create_snapshot(disk, "first", time_ns=0)
    disk.write(30_000, chance.randbytes(200_000))
    disk.close()
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    disk = opened(crash)
    kept = {"first": first(file)}
    now = disk.read(0, SIZE)
    create_snapshot(disk, "second", time_ns=0)
    disk.write(0, b"x" * 100_000)
    disk.flush()
    apply_snapshot(disk, "first")
    delete_snapshot(disk, "first")
    disk.flush()
    kept["second"] = now
    for number, (_, left) in enumerate(cuts(crash, chance, 1)):
        doing = f"cut {number} of {len(crash.events)}"
        worse = [each for each in check(left) if each.rule not in (LEAK, "qcow2.copied")]
        assert not worse, f"{doing}: {worse[0]}"
        header = read_header(left)
        for snapshot in read_snapshots(left, header):
            held = open_snapshot(left, header, snapshot, owns=False)
            assert held.read(0, SIZE) == kept[snapshot.name], doing
        before = opened(left, writable=False, owns=False).read(0, SIZE)
        if number % 5 == 0:
            repair(left)
            assert check(left) == [], doing
            assert opened(left, writable=False, owns=False).read(0, SIZE) == before


def first(file: BlockDevice) -> bytes:
    header = read_header(file)
    (snapshot,) = read_snapshots(file, header)
    return open_snapshot(file, header, snapshot, owns=False).read(0, SIZE)


@pytest.mark.parametrize("kind", DAILY)
def test_sizes(kind):
    chance = random.Random(f"sizes {kind}")
    file = new(SIZE, KINDS[kind])
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    disk = opened(crash)
    data = chance.randbytes(MiB)
    disk.write(0, data)
    disk.flush()
    start = len(crash.events)
    disk.resize(40 * MiB)
    disk.write(39 * MiB, data[:5000])
    disk.resize(2 * MiB)
    disk.resize(3 * MiB + 512)
    disk.flush()
    for count, left in cuts(crash, chance, 1):
        worse = [each for each in check(left) if each.rule != LEAK]
        assert not worse, f"behind event {count}: {worse[0]}"
        if count >= start:
            assert opened(left, writable=False, owns=False).read(0, MiB) == data, f"behind event {count}"


@pytest.mark.parametrize("kind", ["default", "clusters of 512"])
def test_bitmaps(kind):
    """One that can be used marks everything that is not as it was when nothing was marked, whatever was cut off."""
    chance = random.Random(f"bitmaps {kind}")
    file = new(SIZE, KINDS[kind])
    with opened(file, owns=False) as disk:
        disk.write(0, chance.randbytes(MiB))
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    starts = {"early": [opened(crash, writable=False, owns=False).read(0, SIZE)], "late": []}
    for number in range(3):
        disk = opened(crash, owns=False)
        now = disk.read(0, SIZE)
        if number == 0:
            create_bitmap(disk, "early", granularity=4096)
        if number == 1:
            clear_bitmap(disk, "early")
            starts["early"].append(now)
            create_bitmap(disk, "late", granularity=512)
            starts["late"].append(now)
        for _ in range(3):
            disk.write(chance.randrange(SIZE - 50_000), chance.randbytes(50_000))
        disk.flush()
        disk.zero(chance.randrange(MiB), MiB)
        if number == 2:
            remove_bitmap(disk, "late")
        disk.close()
    used = 0
    for number, (_, left) in enumerate(cuts(crash, chance, 1)):
        doing = f"cut {number} of {len(crash.events)}"
        worse = [each for each in check(left) if each.rule != LEAK]
        assert not worse, f"{doing}: {worse[0]}"
        header = read_header(left)
        now = opened(left, writable=False, owns=False).read(0, SIZE)
        for bitmap in read_bitmaps(left, header):
            if bitmap.consistent:
                used += 1
                rest = [patched(now, start, bitmap_ranges(left, header, bitmap)) for start in starts[bitmap.name]]
                assert now in rest, f"{doing}: {bitmap.name}"
    assert used > 5


def patched(now: bytes, start: bytes, ranges) -> bytes:
    """Return ``start`` with the ranges of ``now`` copied over it."""
    content = bytearray(start)
    for offset, length in ranges:
        content[offset : offset + length] = now[offset : offset + length]
    return bytes(content)


class Hasty(ForwardingDevice, ResizableDevice):
    """Forgets to flush."""

    def _flush(self) -> None:
        pass

    def _resize(self, size: int) -> None:
        self._inner.resize(size)


def test_the_examination_can_fail(tmp_path):
    file = new(SIZE, Options())
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    story = Story(crash, opened(Hasty(crash)))
    scenario(story, random.Random(1), 14)
    with pytest.raises(AssertionError, match=r"qcow2\.refcount\.low|qcow2\.l2"):
        examine(story, random.Random(2), tmp_path, torn=4, by_qemu=0)
