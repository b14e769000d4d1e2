"""Our reader and debugfs agree on file systems that mke2fs made with each feature, block size and inode size."""

import os
import re
import stat
from pathlib import Path

import pytest

from blockwright.device.file import FileDevice
from blockwright.fs.ext4 import read
from blockwright.fs.ext4.check import check
from blockwright.tree.node import Directory, File, Special, Symlink, walk
from tests.support.e2fs import debugfs, e2fsck_complains, list_directory, make_source, mke2fs, parse_stat
from tests.support.ext4_features import SETS
from tests.support.tools import run, tool

INLINE_DATA = 0x10000000
INDEXED = (
    "ext2-1k",
    "ext3-4k",
    "ext4-1k",
    "ext4-4k",
    "ext4-64k",
    "ext4-casefold",
    "ext4-bigalloc-1k",
    "ext4-large-dir",
)
"""Sets whose directories e2fsck also turns into hash trees."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("features") / "source")


@pytest.fixture(scope="module")
def narrow_source(tmp_path_factory):
    """A source without attributes, for inodes and features that have no room for them all."""
    path = make_source(tmp_path_factory.mktemp("features") / "narrow")
    for place, folders, files in os.walk(path):
        for name in (*folders, *files):
            target = os.path.join(place, name)
            for attribute in os.listxattr(target, follow_symlinks=False):
                os.removexattr(target, attribute, follow_symlinks=False)
    return path


def make(tmp_path: Path, source: Path, narrow: Path, arguments: tuple[str, ...]) -> Path:
    size, *rest = arguments
    tree = narrow if "none" in rest else source
    return mke2fs(tmp_path / "image", size, *rest, source=tree)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.slow
def test_reader_and_debugfs_agree(name, tmp_path, source, narrow_source):
    image = make(tmp_path, source, narrow_source, SETS[name])
    assert_agree(image, tmp_path)


@pytest.mark.parametrize("name", INDEXED)
def test_reader_and_debugfs_agree_on_hash_trees(name, tmp_path, source, narrow_source):
    image = make(tmp_path, source, narrow_source, SETS[name])
    run([tool("e2fsck"), "-fyD", str(image)], ok=(0, 1))
    assert "Flags: 0x" in debugfs(image, "stat /many")
    with read.open(FileDevice(image)) as fs:
        indexed = fs.volume.inode(fs.resolve(b"many"))
        assert indexed.flags & 0x1000 or fs.volume.block_size > 32768
        for entry in fs.entries(indexed.number):
            assert fs.find(indexed.number, entry.name) == entry.inode
        assert fs.find(indexed.number, b"absent") is None
    assert_agree(image, tmp_path)


def test_there_are_forty_sets():
    assert len(SETS) >= 40


def assert_agree(image: Path, tmp_path: Path) -> None:
    """Compare names, metadata, contents, targets and attributes, all of the file system."""
    with read.open(FileDevice(image), source=image.name) as fs:
        ours = listing(fs)
        assert list_all(image) == ours
        numbers = sorted({entry[0] for folder in ours.values() for entry in folder.values()} | {2})
        shown = parse_stat(debugfs(image, *(f"stat <{number}>" for number in numbers)))
        assert sorted(shown) == numbers
        for number, theirs in shown.items():
            found = fs.stat_inode(number)
            assert (found.mode, found.nlink, found.uid, found.gid, found.size) == (
                theirs.mode,
                theirs.links,
                theirs.uid,
                theirs.gid,
                theirs.size,
            ), number
            assert found.mtime_ns == theirs.mtime_ns
            if theirs.device is not None:
                assert (found.major, found.minor) == theirs.device
        compare_contents(fs, image, tmp_path, shown)
        compare_attributes(fs, image, tmp_path, numbers)
        compare_tree(fs, ours)
    with FileDevice(image) as device:
        assert bool(check(device)) == e2fsck_complains(image)


def listing(fs: read.Ext4FileSystem) -> dict[int, dict[str, tuple[int, int]]]:
    """Every directory's names with inode and mode."""
    found, pending = {}, [fs.root_inode]
    while pending:
        number = pending.pop()
        found[number] = {}
        for entry in fs.entries(number):
            mode = fs.stat_inode(entry.inode).mode
            assert stat.S_IFMT(mode) == entry.kind
            assert fs.find(number, entry.name) == entry.inode
            found[number][os.fsdecode(entry.name)] = (entry.inode, mode)
            if entry.kind == stat.S_IFDIR:
                pending.append(entry.inode)
    return found


def list_all(image: Path) -> dict[int, dict[str, tuple[int, int]]]:
    found, pending = {}, [2]
    while pending:
        text = debugfs(image, *(f"ls -p <{number}>" for number in pending))
        parts = text.split("debugfs: ls -p <")[1:]
        assert len(parts) == len(pending)
        below = []
        for part in parts:
            number = int(part.split(">")[0])
            found[number] = list_directory(part)
            below += [inode for inode, mode in found[number].values() if stat.S_ISDIR(mode)]
        pending = below
    return found


def compare_contents(fs, image: Path, tmp_path: Path, shown) -> None:
    """Compare files, and targets, with what debugfs dumps."""
    out = tmp_path / "dump"
    out.mkdir()
    numbers = [n for n, theirs in shown.items() if stat.S_IFMT(theirs.mode) in (stat.S_IFREG, stat.S_IFLNK)]
    commands = []
    for number in numbers:
        commands.append(f"dump <{number}> {out / str(number)}")
        commands.append(f"stat <{number}>")
    text = debugfs(image, *commands)
    for part in text.split("debugfs: dump <")[1:]:
        number = int(part.split(">")[0])
        if stat.S_ISLNK(shown[number].mode):
            fast = re.search(r'Fast link dest: "(.*)"', part)
            theirs = os.fsencode(fast[1]) if fast else (out / str(number)).read_bytes()
            assert fs.link_target(number) == theirs, number
            continue
        theirs = (out / str(number)).read_bytes()
        if shown[number].flags & INLINE_DATA:
            theirs = theirs[: shown[number].size]  # debugfs dumps all 60 bytes of i_block
        with fs.open_inode(number) as device:
            assert device.size == len(theirs)
            assert device.read(0, device.size) == theirs, number
            for extent in device.extents():
                if extent.flags:
                    assert not any(theirs[extent.offset : extent.end])
            if len(theirs) > 5000:
                assert device.read(4000, 999) == theirs[4000:4999]


def compare_attributes(fs, image: Path, tmp_path: Path, numbers: list[int]) -> None:
    """Compare names, and values as they lie on the disk, with what debugfs lists and gets."""
    text = debugfs(image, *(f"ea_list <{number}>" for number in numbers))
    out = tmp_path / "attributes"
    out.mkdir()
    wanted = []
    for part in text.split("debugfs: ea_list <")[1:]:
        number = int(part.split(">")[0])
        names = {match[1] for match in re.finditer(r"^  ([a-z]+\.[^ ]+) (?:=|\()", part, re.MULTILINE)}
        names -= {"system.data"}  # where inline data lies; Linux does not show it
        assert names == {name.decode() for name in fs.xattrs(number)}, number
        wanted += [(number, name) for name in sorted(names)]
    commands = [f"ea_get -f {out / str(index)} <{number}> {name}" for index, (number, name) in enumerate(wanted)]
    if commands:
        debugfs(image, *commands)
    for index, (number, name) in enumerate(wanted):
        ours, theirs = fs.xattrs(number)[name.encode()], (out / str(index)).read_bytes()
        if "posix_acl" in name:
            ours, theirs = without_unused_ids(ours), without_unused_ids(theirs)
        assert ours == theirs, (number, name)


def without_unused_ids(acl: bytes) -> bytes:
    """Blank the ids of entries that have none: Linux shows all ones there, debugfs zeros."""
    parts = [acl[:4]]
    for at in range(4, len(acl), 8):
        named = acl[at] in (0x2, 0x8)
        parts.append(acl[at : at + 8] if named else acl[at : at + 4] + bytes(4))
    return b"".join(parts)


def compare_tree(fs, ours) -> None:
    """Check that the tree says what the parts of the interface say."""
    root = fs.tree()
    links: dict[int, int] = {}
    paths = 0
    for path, node in walk(root):
        paths += 1
        number = fs.resolve(path, follow=False)
        if not isinstance(node, Directory):
            assert links.setdefault(number, id(node)) == id(node)
        found = fs.stat_inode(number)
        assert (node.mode, node.uid, node.gid, node.mtime_ns) == (found.mode, found.uid, found.gid, found.mtime_ns)
        assert dict(node.xattrs) == dict(fs.xattrs(number))
        if isinstance(node, Symlink):
            assert node.target == fs.link_target(number)
        elif isinstance(node, Special):
            assert (node.major, node.minor) == (found.major, found.minor)
        elif isinstance(node, File):
            buffer = bytearray(node.content.size)
            node.content.read_into(0, memoryview(buffer))
            with fs.open_inode(number) as device:
                assert bytes(buffer) == device.read(0, device.size)
            outside = bytearray(buffer)
            for start, length in node.content.runs():
                outside[start : start + length] = bytes(length)
            assert not any(outside)
    assert paths == sum(len(folder) for folder in ours.values()) + 1
