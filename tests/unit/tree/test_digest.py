"""What the digest of a tree follows, and what it does not."""

import hashlib
import random
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent
from blockwright.tree.digest import tree_digest
from blockwright.tree.node import Directory, File, Special, Symlink
from tests.support.trees import PatternContent, shuffled, trees


@settings(max_examples=100, deadline=None, print_blob=True)
@given(trees(), st.randoms(use_true_random=False))
def test_the_order_of_entries_does_not_matter(tree: Directory, source: random.Random) -> None:
    assert tree_digest(shuffled(tree, source)) == tree_digest(tree)


@settings(max_examples=200, deadline=None, print_blob=True)
@given(trees(max_nodes=4), trees(max_nodes=4))
def test_equal_digests_mean_equal_trees(left: Directory, right: Directory) -> None:
    assert (tree_digest(left) == tree_digest(right)) == (compare_trees(left, right) == [])


def test_bodies_and_holes_do_not_matter() -> None:
    digests = {
        tree_digest(Directory(entries={b"f": File(content=content)}))
        for content in [BytesContent(b"12345"), BytesContent(b"abcde"), PatternContent(5, ((1, 2),))]
    }
    assert len(digests) == 1


PAIRS = {
    "a name's end": (
        Directory(entries={b"ab": Symlink(b"c")}),
        Directory(entries={b"a": Symlink(b"bc")}),
    ),
    "a level": (
        Directory(entries={b"a": Directory(), b"b": File()}),
        Directory(entries={b"a": Directory(entries={b"b": File()})}),
    ),
    "an attribute's end": (
        Directory(xattrs={b"user.a": b"b"}),
        Directory(xattrs={b"user.ab": b""}),
    ),
    "a device": (
        Directory(entries={b"a": Special(stat.S_IFCHR, major=1, minor=2)}),
        Directory(entries={b"a": Special(stat.S_IFBLK, major=1, minor=2)}),
    ),
    "a nanosecond": (Directory(mtime_ns=-1), Directory(mtime_ns=0)),
    "a far time": (Directory(mtime_ns=2**63), Directory(mtime_ns=2**63 + 1)),
}


@pytest.mark.parametrize("what", PAIRS)
def test_what_must_differ(what: str) -> None:
    left, right = PAIRS[what]
    assert tree_digest(left) != tree_digest(right)


def test_a_hard_link_is_not_a_copy() -> None:
    node = File()
    linked = Directory(entries={b"a": node, b"b": node})
    copied = Directory(entries={b"a": File(), b"b": File()})
    assert tree_digest(linked) != tree_digest(copied)


def test_which_names_are_one_node_matters() -> None:
    one, two = File(), File()
    first = Directory(entries={b"1": one, b"2": two, b"3": one})
    second = Directory(entries={b"1": one, b"2": two, b"3": two})
    assert tree_digest(first) != tree_digest(second)


def test_large_trees_are_hashed_in_batches() -> None:
    tree = Directory(
        entries={b"d%d" % i: Directory(entries={b"%d" % j: File() for j in range(50)}) for i in range(200)}
    )
    first = tree_digest(tree)
    tree.entries[b"d199"].entries[b"49"].uid = 1  # type: ignore[attr-defined]  # a Directory
    assert tree_digest(tree) != first


def test_the_encoding_is_kept() -> None:
    """Output that was reproducible stays so: this value changes only together with the version in the encoding."""
    tree = Directory(
        0o755, 1, 2, 3, {b"user.a": b"b"}, {b"x": Symlink(b"y"), b"z": File(content=BytesContent(b"12"))}
    )
    expected = hashlib.sha256(
        b"blockwright tree 1\n"
        + bytes.fromhex("0000ed4101000000020000000000000000000000030000000100000002000000000000000600000001000000")
        + b"user.ab"
        + bytes.fromhex("0100ffa100000000000000000000000000000000000000000000000001000000000000007879")
        + bytes.fromhex("0100a48100000000000000000000000000000000000000000000000002000000000000007a")
    ).digest()
    assert tree_digest(tree) == expected
