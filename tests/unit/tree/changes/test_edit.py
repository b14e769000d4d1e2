import pytest

from blockwright.errors import UsageError
from blockwright.tree.changes.edit import TreeEdit
from blockwright.tree.compare import compare_trees
from blockwright.tree.node import Directory, File, Symlink
from blockwright.tree.rebuild import rebuild, with_metadata


def tree():
    file = File(0o644)
    return Directory(
        entries={
            b"lib": Symlink(b"usr/lib"),
            b"usr": Directory(entries={b"lib": Directory(entries={b"x": file}), b"y": file}),
            b"out": Symlink(b"../../../usr"),
            b"loop": Symlink(b"loop"),
        }
    )


def copied(root):
    return rebuild(root, lambda _path, node: with_metadata(node))


def test_links_on_the_way_lead_within_the_tree():
    edit = TreeEdit(tree(), 0)
    edit.enter(b"lib/new", File(0o600))
    edit.enter(b"out/z", File(0o600))
    made = edit.finish()
    usr = made.entries[b"usr"]
    assert usr.entries[b"lib"].entries[b"new"].permissions == 0o600
    assert b"z" in usr.entries


def test_a_node_that_changes_does_so_under_all_its_names_and_the_tree_before_stays():
    before = tree()
    kept = copied(before)
    edit = TreeEdit(before, 0)
    edit.own(b"lib/x").uid = 5
    assert edit.find(b"usr/y").uid == 5
    made = edit.finish()
    assert made.entries[b"usr"].entries[b"y"] is made.entries[b"usr"].entries[b"lib"].entries[b"x"]
    assert made.entries[b"usr"].entries[b"y"].uid == 5
    assert not compare_trees(before, kept)


def test_changes_of_directories_leave_the_tree_before():
    before = tree()
    kept = copied(before)
    edit = TreeEdit(before, 3)
    edit.own(b"usr").gid = 9
    assert edit.directory(b"a/b/c").mtime_ns == 3
    edit.remove(b"usr/lib/x")
    made = edit.finish()
    assert made.entries[b"usr"].gid == 9
    assert b"x" not in made.entries[b"usr"].entries[b"lib"].entries
    assert not compare_trees(before, kept)


@pytest.mark.parametrize("path", [b"usr/y/z", b"loop/x", b"usr", b"", b"usr/..", b"n" * 256])
def test_what_cannot_be_entered_is_refused(path):
    with pytest.raises(UsageError):
        TreeEdit(tree(), 0).enter(path, File())


def test_what_is_not_there_is_not_found():
    edit = TreeEdit(tree(), 0)
    assert edit.find(b"usr/nothing") is edit.find(b"loop/x") is edit.find(b"usr/y/z") is edit.own(b"q") is None
    assert isinstance(edit.find(b"lib"), Symlink)
    assert isinstance(edit.find(b"lib", follow=True), Directory)
