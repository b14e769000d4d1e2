"""Files put into a tree leave the tree as it was."""

import pytest

from blockwright.errors import UsageError
from blockwright.tree.content import BytesContent
from blockwright.tree.late import LateContent
from blockwright.tree.node import Directory, File, Symlink
from blockwright.tree.overlay import with_files


def test_directories_on_the_way_are_copied_and_others_shared() -> None:
    other, old = Directory(), File(content=BytesContent(b"old"))
    boot = Directory(0o700, uid=3, mtime_ns=9, xattrs={b"user.a": b"1"}, entries={b"kernel": old})
    root = Directory(entries={b"boot": boot, b"etc": other})
    new = BytesContent(b"new")
    made = with_files(root, {"boot/kernel": new, "boot/a/b": new, "top": new}, mtime_ns=5)
    assert root.entries == {b"boot": boot, b"etc": other}
    assert boot.entries == {b"kernel": old}
    assert made.entries[b"etc"] is other
    copy = made.entries[b"boot"]
    assert isinstance(copy, Directory)
    assert (copy.permissions, copy.uid, copy.mtime_ns, copy.xattrs) == (0o700, 3, 9, {b"user.a": b"1"})
    kernel, directory = copy.entries[b"kernel"], copy.entries[b"a"]
    assert isinstance(kernel, File)
    assert kernel.content is new
    assert isinstance(directory, Directory)
    assert directory.mtime_ns == 5
    assert set(directory.entries) == {b"b"}


def test_what_is_in_the_way_is_named() -> None:
    root = Directory(entries={b"boot": Symlink(b"usr/boot"), b"x": Directory()})
    with pytest.raises(UsageError, match="/boot: expected a directory"):
        with_files(root, {"boot/grub/grub.cfg": BytesContent(b"")}, mtime_ns=0)
    with pytest.raises(UsageError, match="/x: expected a file"):
        with_files(root, {"x": BytesContent(b"")}, mtime_ns=0)


def test_late_content_is_what_it_was_filled_with() -> None:
    late = LateContent(4)
    assert late.runs() == ((0, 4),)
    late.fill(b"abcd")
    buffer = bytearray(2)
    late.read_into(1, memoryview(buffer))
    assert buffer == b"bc"
    with pytest.raises(AssertionError):
        late.fill(b"abc")
