"""Power fails behind every write to a VHD, VHDX or VDI image: leaked blocks are the worst, flushed bytes are there.

Of a footer or a header one copy of two may be left, and a log may have to be replayed: what is written next does it.
"""

import random

import pytest

from blockwright.format.vhdx.image import read_headers, read_log
from blockwright.units import MiB
from tests.faults.test_qcow2_power_cut import Story, scenario
from tests.support.blockimages import (
    HARMLESS,
    KINDS,
    METADATA,
    OVER,
    SizedCrash,
    format_of,
    lent,
    new,
    opened,
    over,
    parent_of,
    qemu_check,
    qemu_compare,
    qemu_reads,
)
from tests.support.qcow2 import save
from tests.support.tools import run, tool

SIZE = 3 * MiB
ROOM = 24 * MiB
SLOW = {"vhdx, fixed", "vdi, fixed", "vhdx, sectors of 4 KiB"}
DAILY = [pytest.param(kind, marks=[pytest.mark.ci] if kind in SLOW else []) for kind in (*KINDS, *OVER)]


def started(kind: str, chance: random.Random):
    """Return a crash device with an empty image, and the parent's file where there is one."""
    if kind in KINDS:
        file = new(kind, SIZE)
        return SizedCrash(file.read(0, file.size), ROOM), None
    parent = parent_of(kind, chance.randbytes(SIZE))
    file = over(kind, parent, "below")
    return SizedCrash(file.read(0, file.size), ROOM), parent


def examine(kind, story, parent, count, left, doing):
    """What a cut has left is no worse than it may be, is read, and can be written to, after which less is wrong."""
    check = format_of(kind).check
    worse = [each for each in check(left) if each.rule not in HARMLESS]
    assert not worse, f"{doing}: {worse[0]}"
    with opened(kind, left, writable=False, owns=False, below=lent(kind, parent)) as disk:
        story.verify(count, disk, doing)
        before = bytearray(disk.read(0, disk.size))
    with opened(kind, left, owns=False, below=lent(kind, parent)) as disk:
        assert disk.read(0, disk.size) == before, doing
        disk.write(MiB - 700, b"after" * 300)
        before[MiB - 700 : MiB + 800] = b"after" * 300
    found = [each for each in check(left) if not each.rule.endswith((".leak", ".footer"))]
    assert not found, f"{doing}: {found[0]}"
    with opened(kind, left, writable=False, owns=False, below=lent(kind, parent)) as disk:
        assert disk.read(0, disk.size) == before, doing


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 30))])
@pytest.mark.parametrize("kind", DAILY)
def test_random_operations(kind, seed):
    chance = random.Random(f"{kind} {seed}")
    crash, parent = started(kind, chance)
    story = Story(crash, opened(kind, crash, owns=False, below=lent(kind, parent)))
    scenario(story, chance, 10)
    story.disk.close()
    for count in range(len(crash.events) + 1):
        doing = f"{kind} {seed}, behind event {count} of {len(crash.events)}"
        if count % 2 == 0 or seed:
            examine(kind, story, parent, count, crash.left(count), doing)
        if count % 2 or seed:
            examine(kind, story, parent, count, crash.left(count, chance), f"{doing}, torn")


@pytest.mark.parametrize("kind", ["vhd", "vhdx", "vdi"])
def test_a_disk_that_grows(kind):
    chance = random.Random(f"grows {kind}")
    crash, _ = started(kind, chance)
    disk = opened(kind, crash, owns=False)
    data = chance.randbytes(MiB)
    disk.write(MiB, data)
    disk.flush()
    first = len(crash.events)
    disk.resize(SIZE + 9 * MiB)
    second = len(crash.events)
    disk.close()
    for count in range(first, len(crash.events) + 1):
        for left in (crash.left(count), crash.left(count, chance)):
            worse = [each for each in format_of(kind).check(left) if each.rule not in HARMLESS]
            assert not worse, f"event {count}: {worse[0]}"
            with opened(kind, left, writable=False) as found:
                assert found.size in (SIZE, SIZE + 9 * MiB)
                assert found.size == SIZE + 9 * MiB or count < second
                assert found.read(0, found.size) == (bytes(MiB) + data).ljust(found.size, b"\0")


def test_qemu_replays_our_log_to_the_same_disk(tmp_path):
    """Whatever a cut has left, QEMU reads what we do: the log before it is replayed by us, and after."""
    chance = random.Random("replay")
    crash, _ = started("vhdx", chance)
    story = Story(crash, opened("vhdx", crash, owns=False))
    scenario(story, chance, 10)
    replayed = 0
    for count in range(0, len(crash.events) + 1, 3):
        left = crash.left(count)
        pending = "vhdx.log" in {each.rule for each in format_of("vhdx").check(left)}
        with opened("vhdx", left, writable=False, owns=False) as disk:
            content = disk.read(0, disk.size)
        path, raw = save(left, tmp_path / "cut.vhdx"), tmp_path / "cut.raw"
        raw.write_bytes(content)
        if pending:
            run([tool("qemu-io"), "-f", "vhdx", "-c", "read 0 512", path])
            replayed += 1
        qemu_check("vhdx", path)
        qemu_compare("vhdx", path, raw)
    assert replayed > 3


@pytest.mark.parametrize("kind", ["vhd", "vdi"])
def test_qemu_reads_what_a_cut_has_left(kind, tmp_path):
    assert qemu_reads(kind)
    chance = random.Random("left")
    crash, _ = started(kind, chance)
    story = Story(crash, opened(kind, crash, owns=False))
    scenario(story, chance, 10)
    for count in range(0, len(crash.events) + 1, 5):
        left = crash.left(count)
        with opened(kind, left, writable=False, owns=False) as disk:
            (tmp_path / "raw").write_bytes(disk.read(0, disk.size))
        qemu_compare(kind, save(left, tmp_path / "cut"), tmp_path / "raw")


def test_what_changes_of_a_vhdx_table_is_in_the_log_before():
    """Before each write to the block table, or to metadata, the log says already, durably, what it writes."""
    chance = random.Random("log first")
    crash, _ = started("vhdx", chance)
    story = Story(crash, opened("vhdx", crash, owns=False))
    scenario(story, chance, 8)
    story.disk.resize(SIZE + MiB)
    story.disk.close()
    changes = 0
    for count, event in enumerate(crash.events):
        if event.data is not None and METADATA <= event.offset < METADATA + 2 * MiB:
            left = crash.left(max(index + 1 for index in range(count) if crash.events[index].is_flush))
            header, _ = read_headers(left)
            log = read_log(left, header)
            assert log is not None
            assert log.sectors[event.offset // 4096] == event.data
            changes += 1
    assert changes > 1
