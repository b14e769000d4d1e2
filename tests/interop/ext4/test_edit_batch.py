"""Many plain files put at once, on file systems of each feature: they are as if made one by one."""

import random

import pytest

from blockwright.device.file import FileDevice
from blockwright.errors import NoSpace, UsageError
from blockwright.fs.editor import CommitPolicy
from blockwright.fs.ext4 import read
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.profiles import profile
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Node, Symlink
from blockwright.units import MiB
from tests.support.e2fs import debugfs, mke2fs
from tests.support.ext4 import write_plan
from tests.support.ext4_edit import judge, open_editor
from tests.support.ext4_features import SETS
from tests.support.mounting import mounted
from tests.support.trees import PatternContent, content_bytes

SIZES = (0, 1, 100, 1024, 4096, 5000, 12 * 1024, 12 * 1024 + 1, 30_000)
TRIED = [
    "ext2-1k",
    "ext2-128-byte-inodes",
    "ext2-revision-0",
    "ext2-no-filetype",
    "ext3-4k",
    "ext4-1k",
    "ext4-4k",
    "ext4-64k",
    "ext4-128-byte-inodes",
    "ext4-512-byte-inodes",
    "ext4-no-checksums",
    "ext4-group-checksums",
    "ext4-no-extents",
    "ext4-inline-data",
    "ext4-large-dir",
    "ext4-casefold-strict",
    "ext4-meta-bg",
]


def plain(count: int, seed: int, prefix: bytes = b"file") -> dict[bytes, Node]:
    chance = random.Random(seed)
    return {
        prefix + b"%d" % at: File(
            chance.choice((0o644, 0o4755)),
            chance.choice((0, 70_000)),
            chance.choice((0, 100)),
            chance.randrange(1 << 31) * 10**9,
            content=BytesContent(chance.randbytes(chance.choice(SIZES))),
        )
        for at in range(count)
    }


def body_of(node: Node) -> bytes:
    assert isinstance(node, File)
    return content_bytes(node.content)


def mixed(seed: int) -> Directory:
    """Plain files with everything else among them: holes, attributes, links, a directory, two names of one file."""
    entries = plain(250, seed)
    entries |= {b"link": Symlink(b"t"), b"holes": File(content=PatternContent(90_000, [(40_000, 100)], seed))}
    entries[b"attributes"] = File(xattrs={b"user.a": b"b"}, content=BytesContent(b"x"))
    entries[b"again"] = entries[b"file7"]
    entries[b"below"] = Directory(entries=plain(20, seed + 1))
    return Directory(entries=entries)


@pytest.mark.parametrize("name", TRIED)
def test_as_if_made_one_by_one(name, tmp_path):
    image = mke2fs(tmp_path / "image", *SETS[name])
    tree = Directory(entries={b"new": mixed(1)})
    if name == "ext2-revision-0":
        del tree.entries[b"new"].entries[b"attributes"]  # a feature, of which it has none
    with open_editor(image) as editor:
        editor.put(b"/new", tree.entries[b"new"])
    judge(image, tree)
    more = plain(300, 3, b"more") | {b"file3": File(content=BytesContent(b"other"))}
    with open_editor(image) as editor:
        editor.put(b"/new", Directory(entries=more))
        editor.put(b"/", Directory(entries=plain(40, 4, b"top")))
    tree.entries[b"new"].entries |= more
    tree.entries |= plain(40, 4, b"top")
    judge(image, tree)


def test_the_kernel_finds_them(tmp_path):
    image = mke2fs(tmp_path / "image", *SETS["ext4-1k"])
    with open_editor(image) as editor:
        editor.put(b"/new", Directory(entries=plain(900, 5)))
    assert "Indirect levels: 0" in debugfs(image, "htree_dump /new")
    with mounted(image, tmp_path / "at", "rw") as at:
        for name, node in plain(900, 5).items():
            path = at / "new" / name.decode()
            assert path.read_bytes() == body_of(node)
            path.unlink()
        assert list((at / "new").iterdir()) == []
    judge(image)


def test_unsigned_hashes(tmp_path):
    image = mke2fs(tmp_path / "image", *SETS["ext4-1k"])
    debugfs(image, "set_super_value flags 2", write=True)
    names: dict[bytes, Node] = {"ü".encode() * (at % 30 + 1) + b"%d" % at: File() for at in range(400)}
    with open_editor(image) as editor:
        editor.put(b"/new", Directory(entries=names))
    judge(image, Directory(entries={b"new": Directory(entries=names)}))


def test_in_what_is_left_between_files(tmp_path):
    """Free blocks in ones and twos: files are cut, also into more pieces than an inode holds."""
    image = mke2fs(
        tmp_path / "image", "4M", "-t", "ext4", "-b", "1024", "-O", "^has_journal", "-N", "4096", "-I", "256"
    )
    small: dict[bytes, Node] = {b"s%04d" % at: File(content=BytesContent(b"s" * 1024)) for at in range(4000)}
    many: dict[bytes, Node] = {b"c%02d" % at: File(content=BytesContent(b"%02d" % at * 4000)) for at in range(30)}
    editor = open_editor(image)
    editor.put(b"/cut", Directory())
    with pytest.raises(NoSpace):
        editor.put(b"/small", Directory(entries=small))
    editor.commit()
    editor.close()
    with open_editor(image) as editor:
        for at in range(400, 1400, 2):
            editor.rm(b"/small/s%04d" % at)
    with open_editor(image) as editor:
        editor.put(b"/cut", Directory(entries=many))
    assert "(ETB0)" in debugfs(image, "stat /cut/c29")
    judge(image)
    with read.open(FileDevice(image)) as files:
        found = files.tree().entries[b"cut"]
        assert isinstance(found, Directory)
        assert {name: body_of(node) for name, node in found.entries.items()} == {
            name: body_of(node) for name, node in many.items()
        }


def test_as_many_as_fit(tmp_path):
    image = mke2fs(tmp_path / "image", "4M", "-t", "ext4", "-b", "1024", "-J", "size=1", "-N", "128")
    files: dict[bytes, Node] = {b"%03d" % at: File(content=BytesContent(b"f" * 100)) for at in range(400)}
    editor = open_editor(image)
    with pytest.raises(NoSpace, match="inode"):
        editor.put(b"/d", Directory(entries=files))
    editor.commit()
    editor.close()
    judge(image)
    with read.open(FileDevice(image)) as system:
        assert set(system.tree().entries[b"d"].entries) == {b"%03d" % at for at in range(116)}


def test_what_has_no_space_is_named(tmp_path):
    image = mke2fs(tmp_path / "image", *SETS["ext4-4k"])
    file = File(xattrs={b"user.small": bytes(2000), b"user.large": bytes(3000)})
    with open_editor(image) as editor:
        with pytest.raises(NoSpace, match=r"/d/f: extended attributes: .* found 5\d\d\d .*user\.large takes 3024"):
            editor.put(b"/d", Directory(entries={b"f": file}))
        editor.put(b"/g", File())
        with pytest.raises(NoSpace, match=r"/g: extended attribute user\.x: expected at most 4096 bytes, found 4500"):
            editor.set_xattr(b"/g", b"user.x", bytes(4500))
    judge(image)


def test_more_than_a_transaction(tmp_path):
    image = mke2fs(tmp_path / "image", "90M", "-t", "ext4", "-b", "1024", "-J", "size=1", "-N", "6000")
    tree = Directory(entries={b"d": Directory(entries=plain(5000, 9))})
    with open_editor(image, CommitPolicy(atomic=True)) as editor:
        with pytest.raises(UsageError, match="do not fit the journal"):
            editor.put(b"/d", tree.entries[b"d"])
        told: list[str] = []
    with open_editor(image, CommitPolicy(on_split=told.append)) as editor:
        editor.put(b"/d", tree.entries[b"d"])
    assert len(told) == 1
    judge(image, tree)


def test_a_wrong_owner_changes_nothing(tmp_path):
    image = mke2fs(tmp_path / "image", *SETS["ext4-4k"])
    files = plain(10, 1)
    files[b"wrong"] = File(uid=1 << 32)
    editor = open_editor(image)
    with pytest.raises(UsageError, match="found 4294967296"):
        editor.put(b"/", Directory(entries=files))
    editor.close()
    with open_editor(image) as editor:
        assert set(editor.files.tree().entries) == {b"lost+found"}
    judge(image)


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_on_what_we_made(kind, tmp_path):
    chosen = profile(kind)
    options = Ext4Options(size=40 * MiB, features=chosen.features, seed=b"batch", lost_found=False)
    image = write_plan(plan(Directory(), options), tmp_path / "image")
    tree = Directory(entries={b"d": mixed(2)})
    with open_editor(image) as editor:
        editor.put(b"/d", tree.entries[b"d"])
    judge(image, tree)
