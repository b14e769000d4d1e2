"""Power fails at every write of a FAT's resize: every file is there at any moment, and the same call finishes it."""

import random

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.fs.fat import resize
from blockwright.testing.crash import CrashDevice
from blockwright.units import KiB, MiB
from tests.support.disks import save
from tests.support.fatresize import empty, fill, geometry, judge, larger, seen
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged

WAYS = {
    "fat12": (400 * KiB, 900 * KiB, False, "-F", "12", "-s", "1"),
    "fat12, full": (400 * KiB, 900 * KiB, True, "-F", "12", "-s", "1"),
    "fat16": (3 * MiB, 6 * MiB, False, "-F", "16", "-s", "1"),
    "fat16, full": (3 * MiB, 6 * MiB, True, "-F", "16", "-s", "1"),
    "fat32": (2 * MiB, 6 * MiB, False, "-F", "32", "-s", "1"),
    "fat32, full": (2 * MiB, 6 * MiB, True, "-F", "32", "-s", "1"),
    "one fat": (2 * MiB, 6 * MiB, False, "-F", "32", "-s", "2", "-f", "1"),
    "one fat12": (400 * KiB, 900 * KiB, False, "-F", "12", "-s", "1", "-f", "1"),
    "sectors": (4 * MiB, 30 * MiB, False, "-F", "32", "-S", "4096", "-s", "1"),
    "room": (2 * MiB, 2 * MiB + 20 * KiB, False, "-F", "32", "-s", "4"),
    "smaller": (6 * MiB, 2 * MiB, False, "-F", "32", "-s", "1"),
    "smaller12": (900 * KiB, 400 * KiB, False, "-F", "12", "-s", "1"),
}
SOME = ["fat12", "fat32, full"]


@pytest.mark.parametrize("way", [each if each in SOME else pytest.param(each, marks=pytest.mark.ci) for each in WAYS])
def test_every_cut(way, tmp_path):
    small, size, full, *options = WAYS[way]
    device = larger(fill(empty(tmp_path, small, *options), full=full), max(small, size))
    contents = seen(device)
    before = geometry(device)
    whole = CrashDevice(device, owns=False)
    assert resize.resize(whole, size).size == size
    after = geometry(whole)
    assert after != before
    judge(whole, contents, tmp_path / "whole")
    chance = random.Random(way)
    for number, (told, disk) in enumerate(whole.cuts(chance, torn_for_each=1)):
        assert seen(disk) == contents, told
        if number % 5 == 0:
            mended(disk, contents, tmp_path / "mended", told)
        again = cut_again(disk, size, contents, chance, told) if number % 4 == 0 else disk
        resize.resize(again, size)
        assert geometry(again) == after, told
        assert again.read(0, 512) == whole.read(0, 512), told
        judge(again, contents, tmp_path / "cut" if number % 3 == 0 else None, told)


def cut_again(disk, size, contents, chance, told):
    """A disk on which the power fails while what it interrupted is finished."""
    second = CrashDevice(disk)
    resize.resize(second, size)
    torn = second.torn(chance.randrange(len(second.events) + 1), chance)
    assert seen(torn) == contents, f"{told}, and again"
    return torn


def mended(disk, contents, path, told):
    """What fsck.fat makes of a disk that nobody finished: every file, and nothing wrong with it."""
    save(disk, path)
    run([tool("fsck.fat"), "-a", path], ok=(0, 1))
    run([tool("fsck.fat"), "-n", path])
    found = seen(MemoryDevice(content=path.read_bytes()))
    assert {name: data for name, data in found.items() if not name.startswith(b"/FSCK")} == contents, told
