"""Layers over one another: what an unpacker would have made of them."""

import gzip
import random
import time
from pathlib import Path

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import ArchiveRejected, Rejection
from blockwright.source import open_source
from blockwright.source.stack import open_stack
from blockwright.tree.node import Directory, File, Symlink, walk
from blockwright.tree.rules import DEFAULT_RULES, ArchiveRules
from blockwright.tree.spool import Spool
from tests.support.oci import Image
from tests.support.tarmaker import archive, header, member
from tests.support.trees import content_bytes


def merged(tmp_path: Path, *layers: bytes, rules: ArchiveRules = DEFAULT_RULES) -> Directory:
    names = []
    for number, layer in enumerate(layers):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(layer)
        names.append(str(path))
    with open_stack(names, rules) as source:
        return source.read()


def paths(root: Directory) -> set[str]:
    return {path.decode() for path, _ in walk(root) if path}


def directory(name: bytes, **fields: object) -> bytes:
    return header(name, kind=b"5", mode=0o755, **fields)


LOWER = archive(
    directory(b"d"), member(b"d/a", b"1"), member(b"d/b", b"2"), directory(b"d/e"), member(b"d/e/f", b"3")
)


@pytest.mark.parametrize(
    ("upper", "expected"),
    [
        ([header(b"d/.wh.a")], {"d", "d/b", "d/e", "d/e/f"}),
        ([header(b".wh.d")], set()),
        ([header(b".wh.d/", kind=b"5")], set()),
        ([header(b"./d/./.wh.a")], {"d", "d/b", "d/e", "d/e/f"}),
        ([header(b"d/.wh.a", kind=b"1", link=b"d/b")], {"d", "d/b", "d/e", "d/e/f"}),
        ([header(b"d/.wh.nothing"), header(b"no/.wh.x")], {"d", "d/a", "d/b", "d/e", "d/e/f"}),
        # what the same layer brings stays, before and after
        ([member(b"d/a", b"new"), header(b"d/.wh.a")], {"d", "d/a", "d/b", "d/e", "d/e/f"}),
        ([header(b"d/.wh.a"), member(b"d/a", b"new")], {"d", "d/a", "d/b", "d/e", "d/e/f"}),
        ([header(b"d/.wh..wh..opq"), member(b"d/n", b"new")], {"d", "d/n"}),
        ([member(b"d/n", b"new"), header(b"d/.wh..wh..opq")], {"d", "d/n"}),
        ([member(b"d/e/n", b"new"), header(b"d/.wh..wh..opq")], {"d", "d/e", "d/e/n"}),
        ([directory(b"d/e"), header(b"d/.wh..wh..opq")], {"d", "d/e"}),
        ([member(b"d/e/n", b"new"), header(b".wh.d")], {"d", "d/e", "d/e/n"}),
        ([header(b".wh.d"), member(b"d/e/n", b"new")], {"d", "d/e", "d/e/n"}),
        ([header(b".wh..wh..opq")], set()),
        ([header(b".wh..wh.plnk/1"), header(b".wh..wh.aufs")], {"d", "d/a", "d/b", "d/e", "d/e/f"}),
        # a link to what is removed behind it
        ([header(b"h", kind=b"1", link=b"d/a"), header(b"d/.wh.a")], {"h", "d", "d/b", "d/e", "d/e/f"}),
        # types that change
        ([member(b"d", b"file")], {"d"}),
        ([header(b"d/e", kind=b"2", link=b"/x")], {"d", "d/a", "d/b", "d/e"}),
        ([directory(b"d/a")], {"d", "d/a", "d/b", "d/e", "d/e/f"}),
        ([member(b"name.wh.in", b"x"), header(b".wh.d")], {"name.wh.in"}),
    ],
)
def test_whiteouts(tmp_path: Path, upper: list[bytes], expected: set[str]) -> None:
    assert paths(merged(tmp_path, LOWER, archive(*upper))) == expected


@pytest.mark.parametrize("name", [b".wh.", b"d/.wh.", b".wh...", b".wh..", b"d/.wh../x", b".wh.a/b", b"../.wh.a"])
def test_whiteouts_that_are_none(tmp_path: Path, name: bytes) -> None:
    """Class 20."""
    with pytest.raises(ArchiveRejected) as caught:
        merged(tmp_path, LOWER, archive(header(name)))
    assert (caught.value.reason, caught.value.layer, caught.value.entry) == (Rejection.WHITEOUT, 1, name)


def test_a_whiteout_goes_through_the_trees_own_links(tmp_path: Path) -> None:
    links = archive(header(b"l", kind=b"2", link=b"/d"), header(b"up", kind=b"2", link=b"../../../d"))
    assert paths(merged(tmp_path, LOWER, links, archive(header(b"l/.wh.a"), header(b"up/.wh.b")))) == {
        *("d", "d/e", "d/e/f", "l", "up")
    }


def test_usrmerged_parents(tmp_path: Path) -> None:
    base = archive(directory(b"usr"), directory(b"usr/lib"), header(b"lib", kind=b"2", link=b"usr/lib"))
    root = merged(tmp_path, base, archive(member(b"lib/x", b"1"), member(b"lib/new/y", b"2")))
    assert paths(root) == {"usr", "usr/lib", "lib", "usr/lib/x", "usr/lib/new", "usr/lib/new/y"}
    assert isinstance(root.entries[b"lib"], Symlink)
    root = merged(tmp_path, base, archive(directory(b"lib"), member(b"lib/x", b"1")))
    assert paths(root) == {"usr", "usr/lib", "lib", "lib/x"}


def test_links_across_layers(tmp_path: Path) -> None:
    first = archive(member(b"a", b"one"), header(b"b", kind=b"1", link=b"a"))
    second = archive(member(b"a", b"two"), header(b"c", kind=b"1", link=b"b"), header(b"d", kind=b"1", link=b"a"))
    root = merged(tmp_path, first, second)
    bodies = {name: content_bytes(node.content) for name, node in root.entries.items() if isinstance(node, File)}
    assert bodies == {b"a": b"two", b"b": b"one", b"c": b"one", b"d": b"two"}
    assert root.entries[b"b"] is root.entries[b"c"]


def test_a_directory_takes_the_metadata_of_the_last(tmp_path: Path) -> None:
    root = merged(tmp_path, archive(directory(b"d", uid=1), member(b"d/f")), archive(directory(b"d", uid=2, mtime=9)))
    assert (root.entries[b"d"].uid, root.entries[b"d"].mtime_ns) == (2, 9 * 10**9)
    assert paths(root) == {"d", "d/f"}


def test_an_error_has_its_layer(tmp_path: Path) -> None:
    for bad in (header(b"h", kind=b"1", link=b"gone"), header(b"../f"), header(b"f", kind=b"Z")):
        with pytest.raises(ArchiveRejected) as caught:
            merged(tmp_path, LOWER, archive(member(b"ok", b"x"), bad))
        assert caught.value.layer == 1
        assert caught.value.entry in (b"h", b"../f", b"f")
        assert "1.tar" in str(caught.value)


def test_all_layers_share_a_budget(tmp_path: Path) -> None:
    layers = [archive(member(b"%d" % number, bytes(1000))) for number in range(5)]
    merged(tmp_path, *layers, rules=ArchiveRules(size=5000, entries=5))
    for rules, reason in (
        (ArchiveRules(size=4999), Rejection.BYTES),
        (ArchiveRules(entries=4), Rejection.ENTRIES),
    ):
        with pytest.raises(ArchiveRejected) as caught:
            merged(tmp_path, *layers, rules=rules)
        assert caught.value.reason is reason


def test_many_whiteouts_cost_what_they_are(tmp_path: Path) -> None:
    """A directory that is marked opaque again and again (CVE-2026-95838), and whiteouts of what is deep."""
    lower = archive(*[header(b"d/%d" % number) for number in range(20_000)])
    upper = [header(b"d/.wh..wh..opq"), *[header(b"d/n%d" % number) for number in range(3000)]]
    started = time.process_time()
    root = merged(tmp_path, lower, archive(*upper, *[header(b"d/.wh..wh..opq")] * 3000, *[header(b".wh.d")] * 3000))
    assert len(paths(root)) == 3001
    assert time.process_time() - started < 30  # half a second; quadratic it would be minutes


# -- against a model -------------------------------------------------------------------------------------------------


def test_compressed_layers_are_the_same_as_plain_ones(tmp_path: Path) -> None:
    for number in range(30):
        source = random.Random(f"layers {number}")
        layers = [random_layer(source, first=not each) for each in range(3)]
        try:
            plain = merged(tmp_path, *layers)
        except ArchiveRejected:
            continue
        (tmp_path / str(number)).mkdir()
        image = Image(layers).seal().directory(tmp_path / str(number))
        with open_source(image) as opened:
            assert not opened.addressable
            packed = opened.read(Spool(MemoryDevice(0)).place)
        left = {path: content(node) for path, node in walk(plain)}
        right = {path: content(node) for path, node in walk(packed)}
        assert left == right, f"layers {number}"


def content(node) -> object:
    return content_bytes(node.content) if isinstance(node, File) else node.kind


NAMES = [b"a", b"b", b"c"]


def random_layer(source: random.Random, *, first: bool) -> bytes:
    members = []
    for _ in range(source.randrange(1, 8)):
        path = b"/".join(source.choice(NAMES) for _ in range(source.randrange(1, 4)))
        kind = source.randrange(6 if first else 9)
        if kind < 2:
            members.append(member(path, source.randbytes(source.randrange(2000))))
        elif kind < 4:
            members.append(directory(path))
        elif kind == 4:
            members.append(header(path, kind=b"2", link=source.choice([b"a", b"../b", b"/c"])))
        elif kind == 5:
            members.append(member(path + b".x", gzip.compress(path)))
        else:
            folder, _, name = path.rpartition(b"/")
            hidden = b".wh..wh..opq" if kind == 8 else b".wh." + name
            members.append(header(folder + b"/" + hidden if folder else hidden))
    return archive(*members)
