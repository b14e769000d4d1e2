"""What compare_trees calls a difference."""

import random
import stat

import pytest
from hypothesis import given, settings

from blockwright.tree.compare import ASPECTS, compare_trees
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Node, Special, Symlink
from tests.support.trees import PatternContent, shuffled, trees


def sample() -> Directory:
    linked = File(content=BytesContent(b"linked"))
    return Directory(
        entries={
            b"d": Directory(entries={b"f": File(content=BytesContent(b"body"), xattrs={b"user.a": b"1"})}),
            b"l": Symlink(b"target"),
            b"dev": Special(stat.S_IFCHR, major=1, minor=3),
            b"one": linked,
            b"two": linked,
        }
    )


def file(root: Directory) -> File:
    below = root.entries[b"d"]
    assert isinstance(below, Directory)
    node = below.entries[b"f"]
    assert isinstance(node, File)
    return node


def put(root: Directory, name: bytes, node: Node) -> None:
    root.entries[name] = node


CHANGES = {
    "permissions": (lambda root: setattr(file(root), "permissions", 0o600), b"d/f"),
    "uid": (lambda root: setattr(root.entries[b"l"], "uid", 7), b"l"),
    "gid": (lambda root: setattr(root, "gid", 7), b""),
    "mtime_ns": (lambda root: setattr(root.entries[b"d"], "mtime_ns", 1), b"d"),
    "xattrs": (lambda root: setattr(file(root), "xattrs", {b"user.a": b"2"}), b"d/f"),
    "size": (lambda root: setattr(file(root), "content", BytesContent(b"bodies")), b"d/f"),
    "content": (lambda root: setattr(file(root), "content", BytesContent(b"bodY")), b"d/f"),
    "target": (lambda root: setattr(root.entries[b"l"], "target", b"other"), b"l"),
    "device": (lambda root: setattr(root.entries[b"dev"], "minor", 4), b"dev"),
    "kind": (lambda root: put(root, b"dev", Special(stat.S_IFBLK, major=1, minor=3)), b"dev"),
    "links": (lambda root: put(root, b"two", File(content=BytesContent(b"linked"))), b"two"),
    "missing": (lambda root: put(root, b"new", File()), b"new"),
}


def test_every_aspect_has_a_case() -> None:
    assert set(CHANGES) == ASPECTS | {"missing"}


@pytest.mark.parametrize("aspect", CHANGES)
def test_each_aspect_is_seen_alone(aspect: str) -> None:
    changed = sample()
    change, path = CHANGES[aspect]
    change(changed)
    for left, right in [(sample(), changed), (changed, sample())]:
        found = compare_trees(left, right, contents=True)
        assert [(difference.path, difference.aspect) for difference in found] == [(path, aspect)]
        assert str(found[0])
    if aspect != "missing":
        assert compare_trees(sample(), changed, contents=True, ignore={aspect}) == []


def test_contents_are_not_read_unless_asked() -> None:
    changed = sample()
    CHANGES["content"][0](changed)
    assert compare_trees(sample(), changed) == []


def test_links_that_pair_up_differently() -> None:
    a, b = File(), File()
    left = Directory(entries={b"1": a, b"2": b, b"3": a, b"4": b})
    right = Directory(entries={b"1": a, b"2": b, b"3": b, b"4": a})
    assert [(found.path, found.aspect) for found in compare_trees(left, right)] == [(b"3", "links"), (b"4", "links")]


def test_a_node_with_two_names_is_compared_once() -> None:
    changed = sample()
    changed.entries[b"one"].uid = 7
    assert [(found.path, found.aspect) for found in compare_trees(sample(), changed)] == [(b"one", "uid")]


def test_what_both_have_as_data_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    content = PatternContent(3000, ((0, 1000), (2000, 1000)))
    reads = []
    real = PatternContent.read_into

    def counted(self, offset, buffer, /):
        reads.append((offset, len(buffer)))
        real(self, offset, buffer)

    monkeypatch.setattr(PatternContent, "read_into", counted)
    tree = Directory(entries={b"f": File(content=content)})
    assert compare_trees(tree, tree, contents=True) == []
    assert reads == [(0, 1000), (0, 1000), (2000, 1000), (2000, 1000)]


def test_holes_are_equal_to_zeros() -> None:
    left = Directory(entries={b"f": File(content=PatternContent(5 << 20, ((1 << 20, 3),), seed=1))})
    body = bytearray(5 << 20)
    left.entries[b"f"].content.read_into(0, memoryview(body))  # type: ignore[attr-defined]  # a File
    right = Directory(entries={b"f": File(content=BytesContent(bytes(body)))})
    assert compare_trees(left, right, contents=True) == []
    body[-1] = 1
    right = Directory(entries={b"f": File(content=BytesContent(bytes(body)))})
    assert [found.left for found in compare_trees(left, right, contents=True)] == [((5 << 20) - 1, b"\0")]


def test_huge_holes_are_not_read() -> None:
    left = Directory(entries={b"f": File(content=PatternContent(1 << 60, ((1 << 50, 3),)))})
    assert compare_trees(left, left, contents=True) == []


def test_an_unknown_aspect() -> None:
    with pytest.raises(ValueError, match="mode"):
        compare_trees(sample(), sample(), ignore={"mode"})


@settings(max_examples=15, deadline=None, print_blob=True)
@given(trees())
def test_a_tree_equals_its_copy(tree: Directory) -> None:
    assert compare_trees(tree, shuffled(tree, random.Random(0)), contents=True) == []
