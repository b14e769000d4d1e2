import os

import pytest

from blockwright.errors import NotFound, UsageError
from blockwright.tree.changes.accounts import Accounts
from blockwright.tree.changes.add import add, check, parse_file, parse_text
from blockwright.tree.changes.edit import TreeEdit
from blockwright.tree.changes.options import Addition
from blockwright.tree.node import Directory, File, Symlink
from tests.support.trees import content_bytes


def tree():
    return Directory(
        entries={
            b"lib": Symlink(b"usr/lib"),
            b"usr": Directory(0o711, 9, 9, entries={b"lib": Directory(entries={b"old": File()})}),
            b"file": File(0o600, 4, 4),
        }
    )


def added(*additions, root=None):
    edit = TreeEdit(root or tree(), 7)
    for each in additions:
        check(each)
        add(edit, each, Accounts(edit.root), 7)
    return edit.finish()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:/b", Addition("/b", source="a")),
        ("/x/y:/b/", Addition("/b/", source="/x/y")),
        ("a:/b:mode=0600,owner=root:root", Addition("/b", source="a", mode="0600", owner="root:root")),
        ("a:/b:owner=7", Addition("/b", source="a", owner="7")),
        ("a:/b:c", Addition("/b:c", source="a")),
    ],
)
def test_files_as_options_write_them(text, expected):
    assert parse_file(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a=b", Addition("/a", text="b")),
        ("/a==b\n", Addition("/a", text="=b\n")),
        ("/a:mode=600=mode=5", Addition("/a", text="mode=5", mode="600")),
        ("/a:owner=u:g,mode=600=x", Addition("/a", text="x", mode="600", owner="u:g")),
    ],
)
def test_text_as_options_write_it(text, expected):
    assert parse_text(text) == expected


@pytest.mark.parametrize("text", ["a", "a:b", ":/b", ""])
def test_options_that_are_none(text):
    with pytest.raises(UsageError):
        parse_file(text)


@pytest.mark.parametrize("text", ["a=b", "/a", ""])
def test_text_that_is_none(text):
    with pytest.raises(UsageError):
        parse_text(text)


@pytest.mark.parametrize(
    "addition",
    [
        Addition("b", text=""),
        Addition("/b"),
        Addition("/b", "x", "y"),
        Addition("/b", text="", mode="9"),
        Addition("/b", text="", owner="keep"),
    ],
)
def test_additions_that_cannot_be(addition):
    with pytest.raises(UsageError):
        check(addition)


def test_a_file_is_roots_and_links_lead_to_its_place(tmp_path):
    (tmp_path / "f").write_bytes(b"body")
    (tmp_path / "f").chmod(0o751)
    os.utime(tmp_path / "f", ns=(5, 1_000_000_000))
    source = str(tmp_path / "f")
    made = added(Addition("/lib/x/y", source), Addition("/usr/", source, mode="600", owner="3:4"))
    file = made.entries[b"usr"].entries[b"lib"].entries[b"x"].entries[b"y"]
    assert (file.permissions, file.uid, file.gid, file.mtime_ns) == (0o751, 0, 0, 1_000_000_000)
    assert content_bytes(file.content) == b"body"
    within = made.entries[b"usr"].entries[b"f"]
    assert (within.permissions, within.uid, within.gid) == (0o600, 3, 4)


def test_text_ends_its_line():
    made = added(Addition("/etc/issue", text="hello"), Addition("/empty", text=""), Addition("/file", text="x\n"))
    assert content_bytes(made.entries[b"etc"].entries[b"issue"].content) == b"hello\n"
    assert made.entries[b"empty"].content.size == 0
    file = made.entries[b"file"]
    assert (file.permissions, file.uid, content_bytes(file.content)) == (0o644, 0, b"x\n")


def test_a_directory_is_merged_and_what_is_there_stays_as_it_is(tmp_path):
    (tmp_path / "lib" / "new").mkdir(parents=True)
    (tmp_path / "lib" / "f").write_text("f")
    (tmp_path / "lib" / "g").hardlink_to(tmp_path / "lib" / "f")
    (tmp_path / "file").symlink_to("elsewhere")
    made = added(Addition("/", str(tmp_path), owner="keep"))
    lib = made.entries[b"usr"].entries[b"lib"]
    assert sorted(lib.entries) == [b"f", b"g", b"new", b"old"]
    assert lib.entries[b"f"] is lib.entries[b"g"]
    assert isinstance(made.entries[b"lib"], Symlink)
    assert isinstance(made.entries[b"file"], Symlink)
    assert made.entries[b"usr"].permissions == 0o711
    assert lib.entries[b"f"].uid == os.getuid()


def test_what_is_in_the_way_is_refused(tmp_path):
    (tmp_path / "usr").write_text("")
    (tmp_path / "d").mkdir()
    for addition in (
        Addition("/", str(tmp_path)),
        Addition("/usr", text="x"),
        Addition("/file", str(tmp_path / "d")),
        Addition("/file/x", text="x"),
        Addition("/", text="x"),
    ):
        with pytest.raises(UsageError):
            added(addition)
    with pytest.raises(NotFound):
        added(Addition("/x", str(tmp_path / "none")))
    with pytest.raises(NotFound):
        added(Addition("/x", text="", owner="nobody"))
