"""A tree grown entry by entry: what an unpacker would have made, and what no unpacker should."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.errors import ArchiveRejected, FormatError
from blockwright.tree import unpack
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Node, Special, Symlink, walk
from blockwright.tree.rules import DEFAULT_RULES, ArchiveRules
from blockwright.tree.unpack import Unpacker


def tree_of(*entries: tuple[bytes, Node | bytes], rules: ArchiveRules = DEFAULT_RULES) -> Directory:
    """Enter nodes, and hard links where bytes stand for a node."""
    unpacker = Unpacker(rules)
    for path, node in entries:
        if isinstance(node, bytes):
            unpacker.link(path, node)
        else:
            unpacker.enter(path, node)
    return unpacker.finish(0)


def paths(root: Directory) -> list[bytes]:
    return [path for path, _ in walk(root)][1:]


def at(root: Directory, path: bytes) -> Node:
    return dict(walk(root))[path]


def test_parents_are_made_where_no_entry_names_them() -> None:
    root = tree_of((b"a/b/c", File(mtime_ns=5)))
    assert paths(root) == [b"a", b"a/b", b"a/b/c"]
    for path in (b"a", b"a/b"):
        node = at(root, path)
        assert (node.mode, node.uid, node.gid, node.mtime_ns) == (stat.S_IFDIR | 0o755, 0, 0, 5)


def test_a_directory_entry_behind_what_it_holds() -> None:
    root = tree_of((b"a/b", File()), (b"a", Directory(0o700, 1, 2, 3, {b"user.a": b""})))
    node = at(root, b"a")
    assert (node.permissions, node.uid, node.gid, node.mtime_ns, dict(node.xattrs)) == (
        0o700,
        1,
        2,
        3,
        {b"user.a": b""},
    )
    assert paths(root) == [b"a", b"a/b"]


@pytest.mark.parametrize("name", [b"a/b", b"/a/b", b"./a/b", b"a//b", b"///a/./b", b"a/b/", b"a/b/.", b"/a/b//./"])
def test_forms_of_one_name(name: bytes) -> None:
    assert paths(tree_of((name, Directory()))) == [b"a", b"a/b"]


@pytest.mark.parametrize("name", [b"", b".", b"/", b"./", b"//", b"/.", b"././"])
def test_names_of_the_root(name: bytes) -> None:
    root = tree_of((name, Directory(0o1777, 1, 2, 3)))
    assert (root.permissions, root.uid, root.gid, root.mtime_ns, paths(root)) == (0o1777, 1, 2, 3, [])
    for other in (File(), Symlink(b"/"), Special(stat.S_IFIFO)):
        with pytest.raises(ArchiveRejected, match="root to be a directory"):
            tree_of((name, other))
    with pytest.raises(ArchiveRejected, match="root to be a directory"):
        tree_of((b"a", File()), (name, b"a"))


def test_a_root_that_no_entry_names() -> None:
    unpacker = Unpacker()
    unpacker.enter(b"a", File())
    root = unpacker.finish(77)
    assert (root.permissions, root.uid, root.gid, root.mtime_ns) == (0o755, 0, 0, 77)


@pytest.mark.parametrize("name", [b"..", b"../a", b"a/..", b"a/../b", b"/..", b"a/b/../../..", b"./../x", b"a/../"])
def test_names_that_lead_upwards(name: bytes) -> None:
    with pytest.raises(ArchiveRejected, match=r"no '\.\.'"):
        tree_of((b"a", Directory()), (name, File()))
    with pytest.raises(ArchiveRejected, match=r"no '\.\.'"):
        tree_of((b"a", File()), (b"b", name))


def test_dots_that_are_names() -> None:
    names = [b"...", b"..a", b"a..", b".a", b"a."]
    assert paths(tree_of(*[(name, File()) for name in names])) == sorted(names)


# -- what replaces what ----------------------------------------------------------------------------------------------

LEAVES = {"file": File, "link": lambda: Symlink(b"x"), "fifo": lambda: Special(stat.S_IFIFO)}


@pytest.mark.parametrize("first", LEAVES)
@pytest.mark.parametrize("second", LEAVES)
def test_the_last_entry_of_a_name_stays(first: str, second: str) -> None:
    last = LEAVES[second]()
    assert at(tree_of((b"a", LEAVES[first]()), (b"a", last)), b"a") is last


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_directory_replaces_a_leaf_and_does_not_follow_it(leaf: str) -> None:
    root = tree_of((b"x", Directory(0o711)), (b"a", LEAVES[leaf]()), (b"a", Directory(0o700)), (b"a/b", File()))
    assert paths(root) == [b"a", b"a/b", b"x"]
    assert at(root, b"x").permissions == 0o711


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_replaces_an_empty_directory_only(leaf: str) -> None:
    node = LEAVES[leaf]()
    assert at(tree_of((b"d", Directory()), (b"d", node)), b"d") is node
    with pytest.raises(ArchiveRejected, match="since it holds something"):
        tree_of((b"d/x", File()), (b"d", node))


def test_a_replaced_name_leaves_its_hard_links_alone() -> None:
    first, second = File(), File()
    root = tree_of((b"a", first), (b"b", b"a"), (b"a", second))
    assert (at(root, b"a"), at(root, b"b")) == (second, first)


@pytest.mark.parametrize("leaf", ["file", "fifo"])
def test_what_is_no_directory_holds_nothing(leaf: str) -> None:
    with pytest.raises(ArchiveRejected, match="expected directories"):
        tree_of((b"a", LEAVES[leaf]()), (b"a/b", File()))


# -- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [b"usr/lib", b"/usr/lib", b"../../../usr/lib", b"./usr//lib/.", b"usr/x/../lib"])
def test_parents_go_through_the_trees_own_links(target: bytes) -> None:
    root = tree_of(
        (b"usr/lib", Directory()), (b"usr/x", Directory()), (b"lib", Symlink(target)), (b"lib/a/b", File())
    )
    assert paths(root) == [b"lib", b"usr", b"usr/lib", b"usr/lib/a", b"usr/lib/a/b", b"usr/x"]


def test_links_that_lead_nowhere_yet() -> None:
    root = tree_of((b"lib", Symlink(b"usr/lib")), (b"lib/x", File(mtime_ns=9)))
    assert paths(root) == [b"lib", b"usr", b"usr/lib", b"usr/lib/x"]
    assert at(root, b"usr").mtime_ns == 9


def test_links_end_at_the_root() -> None:
    root = tree_of((b"a/l", Symlink(b"../../../../etc")), (b"a/l/passwd", File()))
    assert paths(root) == [b"a", b"a/l", b"etc", b"etc/passwd"]


def test_absolute_links_begin_at_the_root_wherever_they_stand() -> None:
    root = tree_of((b"a/b/l", Symlink(b"/usr/lib")), (b"a/b/l/x", File()))
    assert paths(root) == [b"a", b"a/b", b"a/b/l", b"usr", b"usr/lib", b"usr/lib/x"]


def test_a_leaf_never_goes_through_a_link() -> None:
    secret = File(content=BytesContent(b"secret"))
    root = tree_of((b"etc/passwd", secret), (b"x", Symlink(b"/etc/passwd")), (b"x", File()))
    assert at(root, b"etc/passwd") is secret
    assert isinstance(at(root, b"x"), File)


def test_a_link_that_is_replaced_is_not_followed_any_more() -> None:
    root = tree_of(
        (b"one", Directory()),
        (b"two", Directory()),
        (b"l", Symlink(b"one")),
        (b"l/a", File()),
        (b"l", Symlink(b"two")),
        (b"l/b", File()),
        (b"l", Directory()),
        (b"l/c", File()),
    )
    assert paths(root) == [b"l", b"l/c", b"one", b"one/a", b"two", b"two/b"]


def test_a_directory_that_is_replaced_is_not_entered_any_more() -> None:
    unpacker = Unpacker(replace_directories=True)
    for path, node in (
        (b"e", Directory()),
        (b"d/x", File()),
        (b"d", Symlink(b"e")),
        (b"d/y", File()),
    ):
        unpacker.enter(path, node)
    assert paths(unpacker.finish(0)) == [b"d", b"e", b"e/y"]


def test_a_name_that_is_entered_again_as_itself_replaces_nothing() -> None:
    unpacker = Unpacker()
    unpacker.enter(b"a", File())
    unpacker.link(b"a", b"a")
    assert unpacker.replaced == 0
    unpacker.enter(b"a", File())
    assert unpacker.replaced == 1


@pytest.mark.parametrize("links", [[(b"a", b"a")], [(b"a", b"b"), (b"b", b"a")], [(b"a", b"./a/../a")]])
def test_links_that_turn_in_a_circle(links: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ArchiveRejected, match="at most 40 symbolic links"):
        tree_of(*[(name, Symlink(target)) for name, target in links], (b"a/x", File()))


def test_as_many_links_as_linux_follows() -> None:
    chain: list[tuple[bytes, Node]] = [(b"l0", Symlink(b"d")), (b"d", Directory())]
    chain += [(b"l%d" % i, Symlink(b"l%d" % (i - 1))) for i in range(1, 41)]
    assert b"d/x" in paths(tree_of(*chain, (b"l39/x", File())))
    with pytest.raises(ArchiveRejected, match="at most 40"):
        tree_of(*chain, (b"l40/x", File()))


# -- hard links ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_hard_link_is_the_node_itself(leaf: str) -> None:
    node = LEAVES[leaf]()
    root = tree_of((b"d/a", node), (b"b/c", b"./d//a"))
    assert at(root, b"b/c") is node


def test_a_hard_link_binds_to_what_is_there_now() -> None:
    first, second = File(), File()
    root = tree_of((b"a", first), (b"b", b"a"), (b"a", second), (b"c", b"a"))
    assert [at(root, name) for name in (b"a", b"b", b"c")] == [second, first, second]


def test_a_hard_link_goes_through_links_before_its_last_component_only() -> None:
    node, link = File(), Symlink(b"file")
    root = tree_of((b"d/file", node), (b"d/link", link), (b"l", Symlink(b"d")), (b"1", b"l/file"), (b"2", b"l/link"))
    assert (at(root, b"1"), at(root, b"2")) == (node, link)


def test_a_hard_link_to_itself() -> None:
    node = File()
    assert at(tree_of((b"a", node), (b"a", b"a")), b"a") is node


def test_a_hard_link_may_take_the_place_of_a_link() -> None:
    node = File()
    root = tree_of((b"a", node), (b"l", Symlink(b"/etc")), (b"l", b"a"))
    assert at(root, b"l") is node


@pytest.mark.parametrize("target", [b"missing", b"d/missing", b"no/such", b"l/x"])
def test_a_hard_link_to_nothing(target: bytes) -> None:
    with pytest.raises(ArchiveRejected, match="hard link: expected an earlier entry"):
        tree_of((b"d", Directory()), (b"l", Symlink(b"nowhere")), (b"a", target))


@pytest.mark.parametrize("target", [b"d", b".", b"/"])
def test_a_hard_link_to_a_directory(target: bytes) -> None:
    with pytest.raises(ArchiveRejected, match="expected no directory"):
        tree_of((b"d", Directory()), (b"a", target))


# -- limits ----------------------------------------------------------------------------------------------------------


def test_long_names() -> None:
    assert paths(tree_of((b"n" * 255, File()))) == [b"n" * 255]
    for name in (b"n" * 256, b"n" * 256 + b"/x", b"d/" + b"n" * 256, b"n" * 256 + b"/"):
        with pytest.raises(ArchiveRejected, match="at most 255 bytes, found 256"):
            tree_of((name, Directory()))
    with pytest.raises(ArchiveRejected, match="name: expected at most 4096 bytes"):
        tree_of((b"/" * 4097, File()))


def test_depth() -> None:
    assert len(paths(tree_of((b"d/" * 255 + b"x", File())))) == 256
    with pytest.raises(ArchiveRejected, match="at most 256 directories"):
        tree_of((b"d/" * 256 + b"x", File()))
    assert len(paths(tree_of((b"d/" * 999 + b"x", File()), rules=ArchiveRules(depth=1000)))) == 1000


def test_steps_through_links_are_limited() -> None:
    entries: list[tuple[bytes, Node]] = [(b"d", Directory())]
    entries += [(b"l%d" % i, Symlink(b"d/../" * 800 + b"l%d" % (i + 1))) for i in range(10)]
    entries += [(b"l10", Symlink(b"d"))]
    assert b"d/x" in paths(tree_of(*entries, (b"l9/x", File())))
    with pytest.raises(ArchiveRejected, match="at most 256 directories"):
        tree_of(*entries, (b"l0/x", File()))


def test_names_are_counted_those_made_on_the_way_too() -> None:
    rules = ArchiveRules(entries=4)
    tree_of((b"a/b/c/d", File()), rules=rules)
    tree_of((b"a/b/c/d", File()), (b"a/b/c/d", File()), (b"a", Directory()), rules=rules)
    for entry in (b"a/b/c/d/e", b"a/b/c/f"):
        with pytest.raises(ArchiveRejected, match="at most 4 names"):
            tree_of((b"a/b/c/d", Directory()), (entry, File()), rules=rules)


def test_remembered_parents_stay_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_CACHED_PARENTS", 3)
    unpacker = Unpacker()
    for i in range(20):
        unpacker.enter(b"d%d/x" % i, File())
        unpacker.enter(b"./" * 2000 + b"d%d/y" % i, File())
        assert len(unpacker._parents) <= 3
        assert max(map(len, unpacker._parents)) <= 4096
    assert len(paths(unpacker.finish(0))) == 60


# -- the same as the host's own file system --------------------------------------------------------------------------

PARTS = st.sampled_from([b"a", b"b", b"l"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(b"/".join)
ENTRIES = st.lists(
    st.one_of(
        st.tuples(PATHS, st.just("file"), st.none()),
        st.tuples(PATHS, st.just("directory"), st.none()),
        st.tuples(PATHS, st.just("symlink"), st.sampled_from([b"a", b"b", b"../a", b"l/a", b"./b"])),
        st.tuples(PATHS, st.just("link"), PATHS),
    ),
    max_size=10,
)


@given(ENTRIES)
def test_an_unpacker_on_the_host_makes_the_same_tree(tmp_path_factory: pytest.TempPathFactory, entries) -> None:
    top = tmp_path_factory.mktemp("host")
    unpacker = Unpacker()
    for path, kind, target in entries:
        # Where a parent is missing the host's unpacker has its own ideas; both get it first.
        host_failed = not on_host(top, path, kind, target)
        try:
            if kind == "link":
                unpacker.link(path, target)
            else:
                node = {"file": File, "directory": Directory}.get(kind, lambda link=target: Symlink(link))()
                unpacker.enter(path, node)
        except FormatError:
            assert host_failed
            return
        if host_failed:
            return
    found = {path: stat.S_IFMT(os.lstat(os.path.join(os.fsencode(top), path)).st_mode) for path, _ in host_walk(top)}
    assert {path: node.kind for path, node in walk(unpacker.finish(0)) if path} == found


def host_walk(top: Path):
    root = os.fsencode(top)
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(directory, name)
            yield path[len(root) + 1 :], None


def on_host(top: Path, path: bytes, kind: str, target: bytes | None) -> bool:
    """Unpack one entry as the usual programs do: make parents, remove what stands there, create."""
    full = os.path.join(os.fsencode(top), path)
    try:
        if not os.path.realpath(full).startswith(os.fsencode(top)):
            return False
        os.makedirs(os.path.dirname(full), exist_ok=True)
        if kind == "link":
            source = os.path.join(os.fsencode(top), target or b"")
            if stat.S_ISDIR(os.lstat(source).st_mode):
                return False
            if source == full or (os.path.lexists(full) and os.path.samestat(os.lstat(source), os.lstat(full))):
                return True
        if os.path.lexists(full):
            if stat.S_ISDIR(os.lstat(full).st_mode):
                if kind == "directory":
                    return True
                os.rmdir(full)
            else:
                os.unlink(full)
        if kind == "file":
            os.close(os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        elif kind == "directory":
            os.mkdir(full)
        elif kind == "symlink":
            os.symlink(target, full)
        else:
            os.link(source, full, follow_symlinks=False)
    except OSError:
        return False
    return True
