"""FAT volumes that we change and the kernel changes, in turns: each finds what the other left."""

import os
import random
import shutil

import pytest

from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.fs.fat import check, edit
from blockwright.fs.fat.device import open_plan
from blockwright.fs.fat.options import FatOptions
from blockwright.fs.fat.plan import plan
from blockwright.fs.fat.resize import resize
from blockwright.testing.crash import CrashDevice
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent
from blockwright.tree.host import read_directory
from blockwright.tree.node import Directory, File
from tests.support.disks import save
from tests.support.tools import run

TIME_NS = 1_600_000_000 * 10**9
OPTIONS = "utf8,tz=UTC,shortname=mixed"
IGNORED = {"permissions", "uid", "gid", "links"}


def volumes(directory):
    """fat12, fat16 and fat32 without a file."""
    for bits, size in ((12, 1440 << 10), (16, 16 << 20), (32, 40 << 20)):
        save(open_plan(plan(Directory(), FatOptions(size=size, bits=bits, label="LABEL"))), directory / f"fat{bits}")


def node(size, seed):
    return File(mtime_ns=TIME_NS, content=BytesContent(random.Random(seed).randbytes(size)))


def changed_by_us(editor, turn):
    """Make changes of every kind to what is there."""
    names = ["PLAIN.TXT", "lower.txt", "Mixed Case Name.text", "x" * 200, "r\u00e9sum\u00e9.txt"]
    tree = Directory(mtime_ns=TIME_NS, entries={name.encode(): node(3000 * n, n) for n, name in enumerate(names)})
    editor.put(b"/turn %d" % turn, tree)
    editor.mv(b"/turn %d/lower.txt" % turn, b"/moved in turn %d.txt" % turn)
    editor.write(b"/turn %d/PLAIN.TXT" % turn, BytesContent(b"again" * 5000), offset=70)
    editor.truncate(b"/turn %d/Mixed Case Name.text" % turn, 100)
    editor.rm(b"/turn %d/%s" % (turn, b"x" * 200))


@pytest.mark.parametrize("name", ["fat12", "fat16", "fat32"])
@pytest.mark.prepare(by=volumes)
def test_we_and_the_kernel_in_turns(prepared, mount, tmp_path, name):
    image = tmp_path / name
    shutil.copy(prepared / name, image)
    for turn in range(2):
        with edit.open(FileDevice(image, writable=True)) as editor:
            changed_by_us(editor, turn)
            editor.commit()
            expected = dict(contents(editor.files.tree()))
        point = mount(image, fstype="vfat", options=f"rw,{OPTIONS}")
        seen = read_directory(point)
        with FileDevice(image) as device, edit.open(MemoryDevice(content=device.read(0, device.size))) as again:
            tree = again.files.tree()
            tree.mtime_ns = seen.mtime_ns
            assert compare_trees(tree, seen, contents=True, ignore=IGNORED) == []
        assert dict(contents(seen)) == expected
        (point / f"turn {turn}" / "PLAIN.TXT").unlink()
        (point / "of the kernel").mkdir(exist_ok=True)
        (point / "of the kernel" / f"a long name {turn}").write_bytes(os.urandom(9000))
        os.rename(point / f"moved in turn {turn}.txt", point / "of the kernel" / f"back {turn}.txt")
        left = dict(contents(read_directory(point)))
        run(["umount", point])
        with FileDevice(image) as device:
            assert check.check(device) == []
        with edit.open(FileDevice(image, writable=True)) as editor:
            assert dict(contents(editor.files.tree())) == left


def contents(tree):
    """Yield every path with its bytes, None for a directory."""
    stack = [(b"", tree)]
    while stack:
        path, each = stack.pop()
        if isinstance(each, Directory):
            stack += [(path + b"/" + name, child) for name, child in each.entries.items()]
            yield path, None
        else:
            data = bytearray(each.content.size)
            if data:
                each.content.read_into(0, memoryview(data))
            yield path, bytes(data)


@pytest.mark.parametrize("name", ["fat12", "fat16", "fat32"])
@pytest.mark.prepare(by=volumes)
def test_the_kernel_reads_and_changes_what_was_resized(prepared, mount, tmp_path, name):
    """At the end, and where the power failed on the way: the kernel finds every file, as before and as after."""
    small = MemoryDevice(content=(prepared / name).read_bytes())
    with edit.open(Window(small, 0, small.size, owns=False)) as editor:
        changed_by_us(editor, 1)
        editor.commit()
        editor.put(b"/full", node(editor.files.usage().free, 9))
        editor.commit()
        expected = dict(contents(editor.files.tree()))
    size = 2_000_000 if name == "fat12" else 3 * small.size
    small.resize(size)
    whole = CrashDevice(small, owns=False)
    resize(whole, size)
    image = tmp_path / name
    for count in range(3, len(whole.events), max(1, len(whole.events) // 8)):
        save(whole.cut(count), image)
        point = mount(image, fstype="vfat", options=f"ro,{OPTIONS}")
        assert dict(contents(read_directory(point))) == expected, f"cut behind event {count}"
        run(["umount", point])
    save(whole, image)
    point = mount(image, fstype="vfat", options=f"rw,{OPTIONS}")
    assert dict(contents(read_directory(point))) == expected
    more = os.urandom(size // 4)
    (point / "more").write_bytes(more)
    run(["umount", point])
    with FileDevice(image) as device:
        assert check.check(device) == []
    with edit.open(FileDevice(image, writable=True)) as editor:
        assert dict(contents(editor.files.tree())) == {**expected, b"/more": more}
