"""Structures that grow level by level and shrink again, and commands that are larger than the journal."""

import random
import shutil

import pytest

from blockwright.device.file import FileDevice
from blockwright.errors import NoSpace, UsageError
from blockwright.fs.editor import CommitPolicy
from blockwright.fs.ext4 import read
from blockwright.fs.ext4.edit.editor import Ext4Editor
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File
from tests.support.e2fs import debugfs, mke2fs
from tests.support.ext4_edit import judge, open_editor
from tests.support.tools import run, tool

SMALL = ("-t", "ext4", "-b", "1024")


@pytest.mark.slow
@pytest.mark.parametrize(
    "features", ["metadata_csum", pytest.param("^metadata_csum,uninit_bg", marks=pytest.mark.ci)]
)
def test_hash_tree_of_two_levels(features, tmp_path):
    image = mke2fs(tmp_path / "image", "32M", *SMALL, "-O", features)
    names = [b"%05d" % at + b"n" * 60 for at in range(2000)]
    random.Random(1).shuffle(names)
    with open_editor(image) as editor:
        editor.put(b"/file", File())
        editor.mkdir(b"/many", Directory())
        for name in names:
            editor.ln(b"/file", b"/many/" + name)
    assert "Indirect levels: 1" in debugfs(image, "htree_dump /many")
    judge(image)
    with open_editor(image) as editor:
        assert sorted(entry.name for entry in editor.files.entries(editor.files.resolve(b"/many"))) == sorted(names)
        assert all(editor.files.find(editor.files.resolve(b"/many"), name) for name in names[:100])
        for name in names[:-5]:
            editor.rm(b"/many/" + name)
        editor.put(b"/many/again", File())
    judge(image)
    with open_editor(image) as editor:
        editor.rm(b"/many", recursive=True)
    judge(image, Directory(entries={b"file": File()}))


@pytest.mark.soak
def test_hash_tree_of_three_levels(tmp_path):
    image = mke2fs(tmp_path / "image", "256M", *SMALL, "-O", "large_dir")
    with open_editor(image) as editor:
        editor.put(b"/file", File())
        editor.mkdir(b"/many", Directory())
        for at in range(52_000):
            if at % 1000 == 0:  # an inode has 65000 names at most
                editor.commit()
            editor.ln(b"/file", b"/many/%06d" % at + b"n" * 245)
    assert "Indirect levels: 2" in debugfs(image, "htree_dump /many")
    judge(image)


def test_tree_of_two_levels_is_full_without_large_dir(tmp_path, monkeypatch):
    image = mke2fs(tmp_path / "image", "16M", *SMALL)
    monkeypatch.setattr("blockwright.fs.ext4.edit.directories.MAX_INDEX_LEVELS", 2)  # one level, so that it is quick
    with open_editor(image) as editor:
        editor.put(b"/file", File())
        editor.mkdir(b"/many", Directory())
        with pytest.raises(NoSpace, match="index is full"):
            link_often(editor)
    judge(image)


def link_often(editor):
    for at in range(2000):
        editor.ln(b"/file", b"/many/%06d" % at + b"n" * 240)


@pytest.mark.parametrize("kind", ["ext4", "ext3"])
def test_file_in_many_pieces(kind, tmp_path):
    """Block by block in any order, with holes: a tree of extents two levels deep, or three of indirect blocks."""
    image = mke2fs(tmp_path / "image", "32M", "-t", kind, "-b", "1024")
    rng = random.Random(3)
    model = bytearray()
    blocks = list(range(0, 1000, 2))
    rng.shuffle(blocks)
    blocks[5:5] = [70_000 + 2 * at for at in range(20)]
    with open_editor(image) as editor:
        editor.put(b"/file", File())
        for block in blocks:
            data = rng.randbytes(1000)
            editor.write(b"/file", BytesContent(data), offset=1024 * block + 3)
            end = 1024 * block + 3 + len(data)
            model.extend(bytes(max(0, end - len(model))))
            model[end - len(data) : end] = data
    check_body(image, bytes(model))
    judge(image)
    if kind == "ext4":
        assert "2/ 2" in debugfs(image, "dump_extents /file").replace("2/2", "2/ 2")
    for size in (70_000_001, 1_100_000, 500_123, 300_000, 4096, 0):
        with open_editor(image) as editor:
            editor.truncate(b"/file", size)
        del model[size:]
        model.extend(bytes(size - len(model)))
        check_body(image, bytes(model))
        judge(image)


def check_body(image, expected):
    with read.open(FileDevice(image)) as files, files.open(b"/file") as body:
        assert body.size == len(expected)
        assert body.read(0, body.size) == expected


def directories(count: int) -> Directory:
    return Directory(entries={b"%04d" % at: Directory(entries={b"f": File()}) for at in range(count)})


def test_larger_than_the_journal(tmp_path):
    image = mke2fs(tmp_path / "image", "32M", *SMALL, "-J", "size=1", "-N", "8000")
    told: list[str] = []
    with open_editor(image, CommitPolicy(on_split=told.append)) as editor:
        editor.put(b"/tree", directories(900))
    assert len(told) == 1
    assert "several transactions" in told[0]
    judge(image, Directory(entries={b"tree": directories(900)}))
    before = image.read_bytes()
    with pytest.raises(UsageError, match="transactions"), open_editor(image, CommitPolicy(atomic=True)) as editor:
        editor.put(b"/other", directories(900))
    assert image.read_bytes() == before
    with open_editor(image, CommitPolicy(atomic=True)) as editor:
        editor.put(b"/small", directories(50))
    judge(image, Directory(entries={b"tree": directories(900), b"small": directories(50)}))


@pytest.mark.parametrize("change", ["rm", "truncate"])
@pytest.mark.parametrize("kind", ["ext4", pytest.param("ext3", marks=pytest.mark.ci), "ext2"])
def test_body_that_no_transaction_can_free(kind, change, tmp_path, monkeypatch):
    """The journal is made small: what is freed is an orphan in between, and every commit is one e2fsck can finish."""
    image = mke2fs(tmp_path / "image", "96M", "-t", kind, "-b", "1024")
    with open_editor(image) as editor:
        editor.put(b"/file", File(content=BytesContent(random.Random(4).randbytes(60_000_000))))
        for at in range(0, 60, 3):
            editor.write(b"/file", BytesContent(b"piece"), offset=1024 * at)
    monkeypatch.setattr("blockwright.fs.ext4.edit.log.LogWriter.most", 11)
    monkeypatch.setattr("blockwright.fs.ext4.edit.commit.OrderedCommitter.most", 11)
    commits, told = [], []
    commit = Ext4Editor._commit

    def keep(self):
        commit(self)
        commits.append(len(commits))
        if len(commits) % 3 == 2:
            shutil.copyfile(image, tmp_path / f"state{len(commits)}")

    monkeypatch.setattr(Ext4Editor, "_commit", keep)
    with open_editor(image, CommitPolicy(on_split=told.append)) as editor:
        if change == "rm":
            editor.rm(b"/file")
        else:
            editor.truncate(b"/file", 5000)
    assert len(told) == 1
    judge(image)
    with read.open(FileDevice(image)) as files:
        assert [files.stat(b"/file").size] == [5000] if change == "truncate" else b"file" not in files.tree().entries
    states = sorted(tmp_path.glob("state*"))
    assert len(states) > 1
    for state in states:
        run([tool("e2fsck"), "-fp", state], ok=(0, 1))
        judge(state)
