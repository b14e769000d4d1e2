import stat

from hypothesis import given, settings

from blockwright.tree.compare import compare_trees
from blockwright.tree.node import Directory, File, Special, Symlink, walk
from blockwright.tree.rebuild import rebuild, with_metadata
from tests.support.trees import trees


@settings(max_examples=40)
@given(trees())
def test_changing_nothing_is_the_same_tree(root):
    assert not compare_trees(root, rebuild(root, lambda _path, node: node))
    assert not compare_trees(root, rebuild(root, lambda _path, node: with_metadata(node)))


@settings(max_examples=40)
@given(trees())
def test_each_node_is_asked_for_once_with_its_first_name(root):
    asked = []

    def change(path, node):
        asked.append((path, id(node)))
        return node

    rebuild(root, change)
    seen, first = {id(root)}, [(b"", id(root))]
    for path, directory in walk(root):
        for name in sorted(directory.entries) if isinstance(directory, Directory) else ():
            node = directory.entries[name]
            if id(node) not in seen:
                seen.add(id(node))
                first.append((path + b"/" * bool(path) + name, id(node)))
    assert sorted(asked) == sorted(first)


def test_the_tree_itself_stays_as_it_is():
    file = File(0o600)
    link, device = Symlink(b"t"), Special(stat.S_IFCHR, major=4, minor=5)
    root = Directory(entries={b"a": file, b"b": file, b"l": link, b"c": device})
    made = rebuild(root, lambda _path, node: with_metadata(node, uid=7, permissions=0o123, mtime_ns=9, gid=8))
    assert file.uid == root.uid == 0
    assert made.entries[b"a"] is made.entries[b"b"]
    found = made.entries[b"c"]
    assert isinstance(found, Special)
    assert (found.major, found.minor, found.kind, found.uid) == (4, 5, stat.S_IFCHR, 7)
    assert made.entries[b"l"].target == b"t"
