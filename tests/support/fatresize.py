"""FAT volumes that are to get another size: made by mkfs.fat, filled by our editor, in pieces or to the brim."""

import random

from blockwright.device.base import BlockDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.fs.fat import check, edit, read
from blockwright.fs.fat.volume import read_volume
from blockwright.tree import BytesContent, Directory, File
from tests.support.disks import save
from tests.support.editors import flat
from tests.support.tools import run, tool

TIME_NS = 10**18


def file(size, seed):
    return File(mtime_ns=TIME_NS, content=BytesContent(random.Random(seed).randbytes(size)))


def empty(folder, size, *options) -> MemoryDevice:
    """What mkfs.fat makes with these options."""
    path = folder / "empty"
    with path.open("wb") as handle:
        handle.truncate(size)
    run([tool("mkfs.fat"), "-i", "1234abcd", *options, path])
    return MemoryDevice(content=path.read_bytes())


def over(device) -> Window:
    return Window(device, 0, device.size, owns=False)


def fill(device, *, full=False) -> MemoryDevice:
    """The volume with directories, long names, and files in pieces; with `full` no cluster is left."""
    with edit.open(over(device)) as editor:
        many = {b"a longer name, number %d" % number: file(300 * number + 1, number) for number in range(20)}
        deep = Directory(mtime_ns=TIME_NS, entries={b"file": file(5000, 98)})
        for number in range(6):
            entries = {b"level %d" % number: deep, b"file %d" % number: file(900, number)}
            deep = Directory(mtime_ns=TIME_NS, entries=entries)
        editor.put(b"/dir", Directory(mtime_ns=TIME_NS, entries=many))
        editor.put(b"/dir/deep", deep)
        editor.put(b"/plain", file(20000, 7))
        editor.put(b"/empty", file(0, 0))
    with edit.open(over(device)) as editor:
        for number in range(0, 20, 3):
            editor.rm(b"/dir/a longer name, number %d" % number)
        editor.set_label("HELLO")
    with edit.open(over(device)) as editor:
        editor.write(b"/plain", BytesContent(random.Random(5).randbytes(40000)))
        editor.put(b"/in pieces", file(30000, 11))
    if full:
        with edit.open(over(device)) as editor:
            editor.put(b"/full", file(editor.files.usage().free, 3))
        assert geometry(device).clusters == used(device)
    return device


def larger(device, size) -> MemoryDevice:
    """The same on a device that is long enough, so that it need not grow. What is behind the volume is not zeros."""
    grown = MemoryDevice(size)
    grown.write(0, device.read(0, min(size, device.size)))
    for at in range(device.size, size, 1 << 16):
        grown.write(at, b"\xa5" * min(512, size - at))
    return grown


def geometry(device: BlockDevice):
    return read_volume(device).geometry


def used(device) -> int:
    with read.open(over(device)) as files:
        usage = files.usage()
    return (usage.size - usage.free) // usage.block_size


def seen(device) -> dict[bytes, bytes | None]:
    """What every name on the volume holds."""
    with read.open(over(device)) as files:
        return flat(files)


def judge(device, contents, path=None, told="") -> None:
    """Fail unless the volume holds this, and our check and, with a path to put it, fsck.fat find nothing wrong."""
    assert seen(device) == contents, told
    assert [str(each) for each in check.check(device)] == [], told
    if path is not None:
        save(device, path)
        run([tool("fsck.fat"), "-n", path])
