"""Power fails behind every write to a VMDK image: leaked grains are the worst, and what was flushed is there."""

import random
from contextlib import suppress

import pytest

from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import NoSpace
from blockwright.format.vmdk.check import LEAK, check
from blockwright.format.vmdk.create import create_extent
from blockwright.format.vmdk.sparse import open_sparse, read_header
from blockwright.units import KiB, MiB
from tests.support.qcow2 import GrowingCrash
from tests.support.vmdk import Shelf, new, opened

SIZE = 3 * MiB
ROOM = 16 * MiB
SECTORS = SIZE // 512


class Narrow(GrowingCrash):
    """One without room for a third of what grows it or fills grains: the first sectors of such a write arrive."""

    def __init__(self, content: bytes, room: int, chance: random.Random) -> None:
        super().__init__(content, room)
        self._chance = chance
        self.failed = {"resize": 0, "write": 0}

    def _resize(self, size: int) -> None:
        self._fail("resize")
        super()._resize(size)

    def _write(self, offset, buffers, *, durable) -> None:
        data = b"".join(buffers)
        if len(data) >= 64 * KiB:
            try:
                self._fail("write")
            except NoSpace:
                part = memoryview(data)[: self._chance.randrange(len(data) // 512 + 1) * 512]
                super()._write(offset, [part], durable=durable)
                raise
        super()._write(offset, buffers, durable=durable)

    def _fail(self, what: str) -> None:
        if self._chance.randrange(3) == 0:
            self.failed[what] += 1
            raise NoSpace("no space left on device")


def story(crash: GrowingCrash, chance: random.Random, operations: int):
    """Change a disk, and return what was flushed as (events, content, sectors that were changed since)."""
    disk = opened(crash)
    content = bytearray(disk.read(0, SIZE))
    told: list[tuple[int, bytes, set[int]]] = [(0, bytes(content), set())]
    for number in range(operations):
        offset = chance.randrange(SIZE)
        length = min(SIZE - offset, chance.choice((512, 4096, 5000, 70_000, 200_000)))
        kind = chance.choice(("write", "write", "write", "zero", "discard", "flush")) if number else "write"
        if kind == "flush":
            disk.flush()
            told.append((len(crash.events), bytes(content), set()))
            continue
        told[-1][2].update(range(offset // 512, -(-(offset + length) // 512)))
        if kind == "write":
            data = chance.randbytes(length)
            with suppress(NoSpace):
                disk.write(offset, data)
                content[offset : offset + length] = data
                continue
        else:
            with suppress(NoSpace):
                getattr(disk, kind)(offset, length)
        content[offset : offset + length] = disk.read(offset, length)
    disk.flush()
    told.append((len(crash.events), bytes(content), set()))
    return told


def examine(crash: GrowingCrash, told, chance: random.Random) -> set[str]:
    """Verify the image behind each event, and return the rules that were broken."""
    rules: set[str] = set()
    for count in range(len(crash.events) + 1):
        _, wanted, loose = next(each for each in reversed(told) if each[0] <= count)
        for left in (crash.cut(count), crash.torn(count, chance), crash.alone(count)):
            found = list(check(left, Shelf()))
            rules.update(each.rule for each in found)
            worse = [each for each in found if each.rule != LEAK]
            assert not worse, f"behind event {count} of {len(crash.events)}: {worse[0]}"
            with opened(left, writable=False) as disk:
                got = disk.read(0, SIZE)
            if got != wanted:
                wrong = [n for n in range(SECTORS) if got[n * 512 : n * 512 + 512] != wanted[n * 512 : n * 512 + 512]]
                assert set(wrong) <= loose, f"behind event {count}: sector {min(set(wrong) - loose)} was flushed"
    return rules


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 40))])
def test_random_operations(seed):
    chance = random.Random(f"vmdk {seed}")
    file = new(SIZE)
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    told = story(crash, chance, 14)
    assert examine(crash, told, chance) <= {LEAK}


def test_room_of_writes_that_failed_is_used_again():
    """With tables that are missing, so that there is room for data and none for its table."""
    failed = {"resize": 0, "write": 0}
    for seed in range(4):
        chance = random.Random(f"narrow {seed}")
        file = new(SIZE)
        header = read_header(file)
        for where in (header.directory, header.redundant):
            file.write(where, bytes(4))
        crash = Narrow(file.read(0, file.size), ROOM, chance)
        told = story(crash, chance, 12)
        assert examine(crash, told, chance) <= {LEAK}
        for what, times in crash.failed.items():
            failed[what] += times
    assert min(failed.values()) > 3, failed


def test_what_a_grain_has_of_its_parent_is_there_before_a_table_says_so():
    parent = MemoryDevice(content=random.Random("parent").randbytes(SIZE))
    file = MemoryDevice(0)
    create_extent(file, SIZE, None)
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    with open_sparse(crash, ForwardingDevice(parent, owns=False), writable=True, owns=False) as disk:
        disk.write(MiB + 100, b"new")
        disk.flush()
        wanted = disk.read(0, SIZE)
    record = read_header(file).record
    for count in range(len(crash.events) + 1):
        for directory in (record.gd_offset, record.rgd_offset):
            left = crash.alone(count)
            left.write(0, record.replace(gd_offset=directory).pack())
            with open_sparse(left, ForwardingDevice(parent, owns=False)) as disk:
                assert disk.read(0, SIZE) in (wanted, parent.read(0, SIZE)), f"behind event {count}"


def test_a_flush_where_no_table_changed_is_one():
    file = new(SIZE)
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    with opened(crash) as disk:
        for data in (b"first", b"then in place"):
            disk.write(0, data)
            disk.flush()
            assert crash.events[-1].is_flush


def test_tables_that_are_missing():
    chance = random.Random("tables")
    file = new(SIZE)
    header = read_header(file)
    for where in (header.directory, header.redundant):
        file.write(where, bytes(4))
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    told = story(crash, chance, 8)
    assert examine(crash, told, chance) <= {LEAK}


def test_the_oracle_can_fail(monkeypatch):
    """With tables on the disk before their data, what was flushed before is still told, and what is not is found."""
    from blockwright.format.vmdk import write

    def hasty(self):
        grains, host = self._grains, self._host
        for index, sectors in grains.dirty.items():
            self._put(grains.directory[index], index, sectors)
        host.flush()
        for index, sectors in grains.dirty.items():
            self._put(grains.redundant[index], index, sectors)
        host.flush()
        grains.dirty.clear()

    monkeypatch.setattr(write.WritableSparse, "_sync", hasty)
    chance = random.Random("hasty")
    file = new(SIZE)
    crash = GrowingCrash(file.read(0, file.size), ROOM)
    told = story(crash, chance, 14)
    with pytest.raises(AssertionError):
        examine(crash, told, chance)


def test_growth_is_by_grains():
    file = new(SIZE)
    before = file.size
    crash = GrowingCrash(file.read(0, before), ROOM)
    with opened(crash) as disk:
        disk.write(0, b"x")
        assert crash.size == before + 64 * KiB
