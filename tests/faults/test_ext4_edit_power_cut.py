"""Power cut at every write of an edit: replayed by anybody, the file system is as before or as after."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from blockwright.codec.checksum import crc32c_raw
from blockwright.device.base import BlockDevice
from blockwright.device.file import FileDevice
from blockwright.fs.editor import Attributes, Editor
from blockwright.fs.ext4 import edit, read
from blockwright.fs.ext4.check import check
from blockwright.fs.ext4.layout import State
from blockwright.fs.ext4.replay import open_journal
from blockwright.fs.ext4.volume import Volume, read_superblock
from blockwright.testing.crash import CrashDevice
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Symlink
from tests.support.e2fs import e2fsck_complains, mke2fs
from tests.support.mounting import mounted
from tests.support.tools import run, tool

EXT4 = ("-t", "ext4", "-b", "1024", "-J", "size=1")
SETS = {
    "ext4": EXT4,
    "ext3": ("-t", "ext3", "-b", "1024", "-J", "size=1"),
    "no-checksums": (*EXT4, "-O", "^metadata_csum,uninit_bg"),
    "4k": ("-t", "ext4", "-b", "4096", "-J", "size=4"),
}
SIZE = {"4k": "12M"}


def body(size: int, seed: int = 1) -> BytesContent:
    return BytesContent(random.Random(seed).randbytes(size))


def many(editor: Editor) -> None:
    for index in range(40):
        editor.put(b"/many/%d" % index, File(content=body(2000, index)), parents=True)


def replaced_tree(editor: Editor) -> None:
    entries = {b"%d" % at: File(content=body(3000, at)) for at in range(5)}
    editor.put(b"/dir", Directory(xattrs={b"user.a": b"b" * 300}, entries={**entries, b"link": Symlink(b"x" * 80)}))


def plain_files(editor: Editor) -> None:
    """What is made at once: into a new directory, and beside what is there."""
    for path in (b"/plain", b"/dir"):
        editor.put(path, Directory(entries={b"%03d" % at: File(content=body(1500, at)) for at in range(60)}))


COMMANDS: dict[str, Callable[[Editor], None]] = {
    "put": lambda editor: editor.put(b"/new", File(content=body(20000))),
    "replace": lambda editor: editor.put(b"/file", File(content=body(9000))),
    "write": lambda editor: editor.write(b"/file", body(7000), offset=3000),
    "truncate": lambda editor: editor.truncate(b"/file", 5000),
    "rm": lambda editor: editor.rm(b"/dir", recursive=True),
    "mv": lambda editor: editor.mv(b"/dir/inner", b"/file"),
    "tree": replaced_tree,
    "many": many,
    "plain files": plain_files,
    "attributes": lambda editor: editor.set_attributes(b"/file", Attributes(permissions=0o600, uid=5)),
    "xattr": lambda editor: editor.set_xattr(b"/file", b"user.long", b"v" * 400),
    "label": lambda editor: editor.set_label("other"),
}


def make_image(path: Path, name: str) -> Path:
    image = mke2fs(path, SIZE.get(name, "6M"), *SETS[name])
    with edit.open(FileDevice(image, writable=True)) as editor:
        editor.put(b"/file", File(content=body(12000, 7)))
        editor.put(b"/dir/inner", File(content=body(3000, 8)), parents=True)
        editor.put(b"/dir/other", Symlink(b"y" * 200))
    return image


def snapshot(device: BlockDevice) -> tuple[Directory, str]:
    files = read.open(device)
    return files.tree(), files.label


def is_like(device: BlockDevice, wanted: tuple[Directory, str]) -> bool:
    files = read.open(device)
    return files.label == wanted[1] and not compare_trees(wanted[0], files.tree(), contents=True)


def judge(image: Path, choices: list[tuple[Directory, str]], told: str) -> int:
    """Return which of the states the image is in; fail where it is in neither, or damaged."""
    assert not e2fsck_complains(image), told
    with FileDevice(image) as device:
        for index, wanted in enumerate(choices):
            if is_like(device, wanted):
                return index
    raise AssertionError(f"{told}: is neither as before nor as after")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["put", "mv", "tree", "label"])
def test_some_cuts(command, tmp_path):
    cut_everywhere("ext4", command, tmp_path, most=10)


@pytest.mark.soak
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_cut(name, command, tmp_path):
    cut_everywhere(name, command, tmp_path, most=1000)


def cut_everywhere(name: str, command: str, tmp_path: Path, most: int) -> None:
    """Cut the power behind every write of a command, or at `most` of them, in order and torn."""
    image = make_image(tmp_path / "image", name)
    crash = CrashDevice(FileDevice(image))
    with edit.open(crash) as editor:
        COMMANDS[command](editor)
        editor.commit()
        with FileDevice(image) as before, crash.cut(len(crash.events)) as after:
            states = [snapshot(before), snapshot(after)]
            disks = list(crash.cuts(random.Random(1), torn_for_each=1))
            step = -(-len(disks) // most)
            seen = {cut(disk, states, f"{name}, {command}: {told}", tmp_path) for told, disk in disks[::step]}
            assert cut(crash.cut(len(crash.events)), states, "no cut", tmp_path) == 1
    assert seen == {0, 1}


def test_kernel_replays_the_same(tmp_path):
    """The disk as it is between the commit block and the home writes, mounted."""
    image = make_image(tmp_path / "image", "ext4")
    crash = CrashDevice(FileDevice(image))
    with edit.open(crash) as editor:
        COMMANDS["tree"](editor)
        editor.commit()
        flushes = [index for index, event in enumerate(crash.events) if event.is_flush]
        with FileDevice(image) as before, crash.cut(len(crash.events)) as after:
            states = [snapshot(before), snapshot(after)]
            for count, wanted in ((flushes[1], 0), (flushes[1] + 1, 1), (flushes[2], 1), (flushes[2] + 1, 1)):
                disk = crash.cut(count if wanted else flushes[0] + 1)
                cut_image = tmp_path / "cut"
                cut_image.write_bytes(disk.read(0, disk.size))
                with mounted(cut_image, tmp_path / "mnt", "rw"):
                    pass
                assert judge(cut_image, states, f"cut behind event {count}, mounted") == wanted


FORMS = {"v1": (1, 0x1), "v1-64": (1, 0x3), "v2": (0, 0x9), "v2-64": (0, 0xB), "v3": (0, 0x11), "v3-64": (0, 0x13)}
"""Compatible and incompatible features of a journal: its checksums' version, and whether its tags are wide."""

UNUSED = 3071
"""A free block, the last."""
ESCAPED = bytes.fromhex("c03b3998") + random.Random(3).randbytes(4092)
"""A block that begins as the journal's own do."""


def set_journal(image: Path, compat: int, incompat: int) -> None:
    """Give an image's journal other features."""
    with FileDevice(image, writable=True) as device:
        volume = Volume(device, read_superblock(device), source=None, verify=True, super_block=None)
        position = open_journal(volume).position
        raw = bytearray(device.read(position, 1024))
        raw[0x24:0x2C] = compat.to_bytes(4, "big") + incompat.to_bytes(4, "big")
        raw[0xFC:0x100] = bytes(4)
        if incompat & 0x18:
            raw[0x50] = 4
            raw[0xFC:0x100] = crc32c_raw(0xFFFFFFFF, bytes(raw)).to_bytes(4, "big")
        device.write(position, raw)


@pytest.mark.parametrize("form", FORMS)
def test_log_of_every_form_is_replayed(form, tmp_path):
    """Nothing but the log is on the disk; e2fsck, the kernel and we find the same in it."""
    image = make_image(tmp_path / "image", "4k")
    set_journal(image, *FORMS[form])
    crash = CrashDevice(FileDevice(image))
    with edit.open(crash) as editor:
        many(editor)
        replaced_tree(editor)
        editor._parts.transaction.adopt(UNUSED, bytearray(ESCAPED))
        editor.commit()
        second = [index for index, event in enumerate(crash.events) if event.is_flush][1]
        with FileDevice(image) as before, crash.cut(len(crash.events)) as after:
            states = [snapshot(before), snapshot(after)]
            assert cut(crash.cut(second + 1), states, f"{form}: only the log", tmp_path) == 1
            left = tmp_path / "left"
            left.write_bytes(crash.cut(second + 1).read(0, crash.size))
            with mounted(left, tmp_path / "mnt", "rw"):
                pass
            assert judge(left, states, f"{form}: mounted") == 1
            for replayed in (left, tmp_path / "ours", tmp_path / "theirs"):
                assert replayed.read_bytes()[UNUSED * 4096 :][:4096] == ESCAPED


@pytest.mark.parametrize("command", ["put", "replace", "rm", "tree"])
def test_without_a_journal_a_cut_is_seen(command, tmp_path):
    """What is not as before or as after says that it was not unmounted, and loses nothing that was not changed."""
    image = mke2fs(tmp_path / "image", "6M", "-t", "ext2", "-b", "1024")
    with edit.open(FileDevice(image, writable=True)) as editor:
        editor.put(b"/file", File(content=body(12000, 7)))
        editor.put(b"/dir/inner", File(content=body(3000, 8)), parents=True)
        editor.put(b"/kept", File(content=body(50_000, 9)))
    crash = CrashDevice(FileDevice(image))
    with edit.open(crash) as editor:
        COMMANDS[command](editor)
        editor.commit()
        with FileDevice(image) as before, crash.cut(len(crash.events)) as after:
            states = [snapshot(before), snapshot(after)]
            for told, disk in list(crash.cuts(random.Random(1), torn_for_each=1))[::3]:
                left = tmp_path / "left"
                left.write_bytes(disk.read(0, disk.size))
                if read_superblock(disk).s_state & State.valid:
                    judge(left, states, told)
                    continue
                run([tool("e2fsck"), "-fy", left], ok=(0, 1))
                assert not e2fsck_complains(left), told
                with read.open(FileDevice(left)) as files, files.open(b"/kept") as kept:
                    assert kept.read(0, kept.size) == body(50_000, 9).data, told


def cut(disk: BlockDevice, states: list[tuple[Directory, str]], told: str, tmp_path: Path) -> int:
    """Judge a disk as we read it, replayed by e2fsck, and replayed by us; return which state it is in."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(disk.read(0, disk.size))
    shutil.copyfile(ours, theirs)
    assert [str(each) for each in check(disk)] == [], told
    found = next((index for index, wanted in enumerate(states) if is_like(disk, wanted)), None)
    assert found is not None, f"{told}: is neither as before nor as after"
    done = run([tool("e2fsck"), "-fp", theirs], ok=(0, 1))
    assert "FIXED" not in done.stdout, f"{told}\n{done.stdout}"
    assert judge(theirs, states, told + ", replayed by e2fsck") == found
    edit.open(FileDevice(ours, writable=True)).close()
    assert judge(ours, states, told + ", replayed by us") == found
    return found
