"""Power fails at every write of a change to a FAT volume: after `fsck.fat -a` each file is as before or as after.

A move is the one change that may be seen half done: the new name is there before the old one goes, and both then
hold the whole content.
"""

import random

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.fs.fat import edit, read
from blockwright.testing.crash import CrashDevice
from blockwright.tree import BytesContent, Directory, File
from blockwright.units import KiB, MiB
from tests.support.disks import save
from tests.support.editors import flat
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged

SHAPES = {
    "fat12": ("-F", "12", "-s", "1", 400 * KiB),
    "fat16": ("-F", "16", "-s", "1", 3 * MiB),
    "fat32": ("-F", "32", "-s", "2", 2 * MiB),
}
LONG = b"/dir/a long name that takes three entries.txt"
TIME_NS = 10**18


def file(size, seed):
    return File(mtime_ns=TIME_NS, content=BytesContent(random.Random(seed).randbytes(size)))


def tree():
    many = {b"file number %d.txt" % number: file(700 * number, number) for number in range(6)}
    inner = Directory(mtime_ns=TIME_NS, entries={b"deep": file(3000, 8)})
    return Directory(mtime_ns=TIME_NS, entries={**many, b"inner": inner, b"one": file(1500, 9)})


def prepare(editor):
    """What every volume holds before the change: entries on both sides of sectors, and files in pieces."""
    editor.put(b"/dir", tree())
    editor.put(b"/other", Directory(mtime_ns=TIME_NS, entries={b"kept.bin": file(5000, 3)}))
    editor.put(b"/plain", file(2000, 4))
    editor.rm(b"/dir/file number 2.txt")
    editor.write(b"/plain", BytesContent(random.Random(5).randbytes(9000)))


CHANGES = {
    "a new file": lambda editor: editor.put(LONG, file(4000, 11)),
    "a file over another": lambda editor: editor.put(b"/dir/file number 5.txt", file(700, 12)),
    "other bytes": lambda editor: editor.write(b"/plain", BytesContent(b"new" * 3000)),
    "a part": lambda editor: editor.write(b"/plain", BytesContent(b"new" * 100), offset=600),
    "more bytes": lambda editor: editor.write(b"/plain", BytesContent(b"new" * 1000), offset=9000),
    "fewer bytes": lambda editor: editor.truncate(b"/plain", 700),
    "a directory of files": lambda editor: editor.put(b"/dir/new", tree()),
    "a removed file": lambda editor: editor.rm(b"/dir/file number 4.txt"),
    "a removed tree": lambda editor: editor.rm(b"/dir", recursive=True),
    "another name nearby": lambda editor: editor.mv(b"/dir/one", b"/dir/two"),
    "a longer name": lambda editor: editor.mv(b"/dir/one", LONG),
    "a name in another directory": lambda editor: editor.mv(b"/dir/file number 3.txt", b"/other/moved here.txt"),
    "a name over another": lambda editor: editor.mv(b"/dir/file number 3.txt", b"/other/kept.bin"),
    "many new files": lambda editor: [editor.put(b"/dir/new long name %d" % n, file(600, n)) for n in range(12)],
    "a label": lambda editor: editor.set_label("LABEL"),
}
MOVES = {
    "a longer name": b"/dir/one",
    "a name in another directory": b"/dir/file number 3.txt",
    "a name over another": b"/dir/file number 3.txt",
}
"""What is moved by the changes that may be seen half done."""


def volume(shape, folder):
    path = folder / "volume"
    with path.open("wb") as handle:
        handle.truncate(shape[-1])
    run([tool("mkfs.fat"), "-i", "1234abcd", *shape[:-1], path])
    device = MemoryDevice(content=path.read_bytes())
    with edit.open(Window(device, 0, device.size, owns=False)) as editor:
        prepare(editor)
    return device


def seen(device):
    with read.open(device) as files:
        return flat(files)


def repaired(disk, path, passes=1):
    """What is on a disk when fsck.fat -a has been over it: without what it saved in files of its own."""
    save(disk, path)
    for _ in range(passes):
        run([tool("fsck.fat"), "-a", path], ok=(0, 1))
    run([tool("fsck.fat"), "-n", path])
    found = seen(MemoryDevice(content=path.read_bytes()))
    return {name: data for name, data in found.items() if not name.startswith(b"/FSCK")}


def check(change, shape, tmp_path, torn):
    old = volume(SHAPES[shape], tmp_path)
    before = seen(Window(old, 0, old.size, owns=False))
    crash = CrashDevice(old, owns=False)
    editor = edit.open(crash)
    CHANGES[change](editor)
    editor.commit()
    after = seen(crash.cut(len(crash.events)))
    assert after != before or change == "a label"
    path = tmp_path / "cut"
    chance = random.Random(f"{change} {shape}")
    halves = set()
    for what, disk in crash.cuts(chance, torn_for_each=torn):
        found = repaired(disk, path)
        for name in {*before, *after, *found}:
            was, is_now, will = (each.get(name, b"none") for each in (before, found, after))
            assert is_now in (was, will), f"{what}: {name!r}"
        halves.add(found in (before, after))
        if change in MOVES:
            assert before[MOVES[change]] in found.values(), f"{what}: lost"
    if change not in {*MOVES, "many new files"}:
        assert halves == {True}, "the change is not seen as a whole"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "shape", ["fat32", pytest.param("fat16", marks=pytest.mark.ci), pytest.param("fat12", marks=pytest.mark.ci)]
)
@pytest.mark.slow
def test_power_cut_leaves_before_or_after(change, shape, tmp_path):
    check(change, shape, tmp_path, torn=1)


NAMES = (b"/dir/inner", b"/other/moved")


def test_a_directory_that_moves_is_whole_under_one_of_its_names(tmp_path):
    old = volume(SHAPES["fat32"], tmp_path)
    before = seen(Window(old, 0, old.size, owns=False))
    deep = before[b"/dir/inner/deep"]
    elsewhere = {name: data for name, data in before.items() if not name.startswith(NAMES)}
    crash = CrashDevice(old, owns=False)
    with edit.open(crash) as editor:
        editor.mv(b"/dir/inner", b"/other/moved")
        editor.commit()
        for what, disk in crash.cuts(random.Random("directory"), torn_for_each=1):
            # Of two entries for one directory fsck.fat empties one, and removes it the next time.
            found = repaired(disk, tmp_path / "cut", passes=2)
            assert {name: data for name, data in found.items() if not name.startswith(NAMES)} == elsewhere, what
            for name in NAMES:
                assert found.get(name + b"/deep", deep) == deep, what
            whole = [name for name in NAMES if name + b"/deep" in found]
            assert len(whole) == 1, what
