import hashlib
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.errors import Corrupt, FormatError, IntegrityError, NotFound, UsageError
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent
from blockwright.tree.mtree.apply import apply_manifest
from blockwright.tree.mtree.digest import NAMES, digests
from blockwright.tree.mtree.escape import escape, unescape
from blockwright.tree.mtree.parse import parse
from blockwright.tree.mtree.write import write_manifest
from blockwright.tree.node import Directory, File, Special, Symlink
from blockwright.tree.rebuild import rebuild, with_metadata
from tests.support.trees import PatternContent, content_bytes, trees


def tree():
    shared = File(0o600, content=BytesContent(b"abc"))
    passwd = File(content=BytesContent(b"web:x:33:34::/:\n"))
    return Directory(
        entries={
            b"a": shared,
            b"b": shared,
            b"d": Directory(entries={b"e": Directory(entries={b"f": File()}), b"l": Symlink(b"old")}),
            b"etc": Directory(entries={b"passwd": passwd}),
        }
    )


def applied(text, root=None, **options):
    data = text if isinstance(text, bytes) else text.encode()
    return apply_manifest(root or tree(), parse(data, "m"), mtime_ns=77, **options)


def at(root, path):
    for part in path.encode().split(b"/"):
        root = root.entries[part]
    return root


@given(st.binary(max_size=40))
def test_names_come_back(name):
    text = escape(name)
    assert unescape(text) == name
    assert not text or text.split() == [text]
    assert b"#" not in text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (rb"a\040b\012", b"a b\n"),
        (rb"\s\t\n\\\#\0", b" \t\n\\#\0"),
        (rb"\M-a\M^C\^?\^C", b"\xe1\x83\x7f\x03"),
        (rb"\7x\12y", b"\x07x\x0ay"),
    ],
)
def test_escapes_of_vis(text, name):
    assert unescape(text) == name


@pytest.mark.parametrize("numbers", ["4294967296,0", "0,0x100000000", "linux,0xffffffffffffffff,1"])
def test_numbers_of_devices_that_no_file_system_keeps(numbers):
    device = numbers if numbers.startswith("linux") else f"linux,{numbers}"
    with pytest.raises(Corrupt, match="32 bits"):
        parse(f"#mtree\n./dev type=char device={device}\n".encode(), "m")


@settings(max_examples=40)
@given(trees())
def test_a_manifest_of_a_tree_makes_any_metadata_that_tree_s(root):
    text = b"".join(write_manifest(root))
    other = rebuild(root, lambda _path, node: with_metadata(node, permissions=0o111, uid=5, gid=6, mtime_ns=7))
    made = apply_manifest(other, parse(text, "m"), mtime_ns=0)
    assert not compare_trees(root, made)
    assert b"".join(write_manifest(made)) == text


def test_relative_names_and_defaults():
    made = applied(
        "#mtree\n/set type=file uid=1 gid=2 mode=0640\n. type=dir mode=0711\n    a\n    d type=dir\n"
        "# a comment\n        e type=dir nochange\n            f time=5.5 # to be\n        ..\n"
        "/unset mode uid\n    l type=link \\\n      link=new\\040target\n    ..\n/unset all\n"
        "b type=file\n"
    )
    assert (made.permissions, made.uid) == (0o711, 1)
    assert (at(made, "a").permissions, at(made, "a").uid) == (0o640, 1)
    assert at(made, "b") is at(made, "a")
    assert at(made, "d/e").uid == 0
    assert at(made, "d/e/f").mtime_ns == 5_000_000_005
    link = at(made, "d/l")
    assert (link.target, link.uid, link.gid) == (b"new target", 0, 2)


def test_new_nodes():
    made = applied(
        "./dev type=dir mode=0755\n./dev/null type=char device=linux,1,3 mode=0666 uname=web\n"
        "./dev/sda type=block device=0x801 mode=0660\n./p type=fifo\n./s type=socket\n./n type=link link=../x\n"
        "./empty type=file size=0 mode=0400\n./gone type=file optional\n"
    )
    null = at(made, "dev/null")
    assert isinstance(null, Special)
    assert (null.kind, null.major, null.minor, null.uid, null.mtime_ns) == (stat.S_IFCHR, 1, 3, 33, 77)
    assert (at(made, "dev/sda").major, at(made, "dev/sda").minor) == (8, 1)
    assert (at(made, "p").kind, at(made, "s").kind) == (stat.S_IFIFO, stat.S_IFSOCK)
    assert at(made, "empty").permissions == 0o400
    assert b"gone" not in made.entries


def test_contents_of_the_host(tmp_path):
    (tmp_path / "body").write_bytes(b"12345")
    digest = hashlib.sha256(b"12345").hexdigest()
    made = applied(f"./a contents=body sha256={digest}\n./x/y type=file contents=body size=5", base=str(tmp_path))
    for path in ("a", "b", "x/y"):
        assert content_bytes(at(made, path).content) == b"12345"
    with pytest.raises(IntegrityError, match="size: expected 4, found 5"):
        applied("./a contents=body size=4", base=str(tmp_path))
    with pytest.raises(NotFound, match="m: line 1"):
        applied("./a contents=none", base=str(tmp_path))


def test_digests_are_verified():
    found = digests(BytesContent(b"abc"), NAMES)
    assert found["sha256"] == hashlib.sha256(b"abc").hexdigest()
    words = {"ripemd160": "rmd160"}
    text = "./a type=file size=3 " + " ".join(f"{words.get(name, name)}={value}" for name, value in found.items())
    applied(text)
    for name, value in found.items():
        wrong = str(int(value) ^ 1) if name == "cksum" else ("0" if value[0] != "0" else "1") + value[1:]
        with pytest.raises(IntegrityError, match=rf"m: line 1: /a: {name}: expected {wrong}, found {value}"):
            applied(text.replace(value, wrong))


def test_holes_are_zeros_to_a_digest():
    content = PatternContent(3_000_000, ((4096, 4096), (2_000_000, 10)), seed=3)
    assert digests(content, ("sha1", "cksum")) == digests(BytesContent(content_bytes(content)), ("sha1", "cksum"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a mode=9", Corrupt),
        ("a mode=17777", Corrupt),
        ("a uid=-1", Corrupt),
        ("a uid=4294967295", Corrupt),
        ("a type=door", Corrupt),
        ("a time=x", Corrupt),
        ("a time=1.2.3", Corrupt),
        ("a sha256=00", Corrupt),
        ("a md5=zz345678901234567890123456789012", Corrupt),
        ("a flags=uchg", FormatError),
        ("a frobnicate=1", FormatError),
        ("a frobnicate", Corrupt),
        ("/set mode=9", Corrupt),
        ("..", Corrupt),
        ("./d/ok optional\n./d/x\0y uid=1", Corrupt),
        ("./d/ok optional\n./d/.. uid=1", Corrupt),
        ("d type=dir\n.. x=1", Corrupt),
        ("./../a uid=1", Corrupt),
        ("a\\qb uid=1", Corrupt),
        ("a link=\\000", Corrupt),
        ("a device=1,2,3,4", FormatError),
        ("a device=linux,1", FormatError),
        ("a device=linux,x,1", Corrupt),
        ("a uid=1 \\", Corrupt),
        ("./" + "n" * 256 + " uid=1", Corrupt),
        ("a type=dir", UsageError),
        ("none type=dir nochange", NotFound),
        ("none type=file", NotFound),
        ("none uid=5", NotFound),
        ("none type=link", UsageError),
        ("none type=char", UsageError),
        ("a uname=nobody", NotFound),
        ("./a/x type=fifo", UsageError),
        ("a size=4", IntegrityError),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text, error):
    line = text.count("\n") + 1
    with pytest.raises(error, match=rf"m: line {line}: "):
        applied(text)


def test_numbers_count_before_names():
    made = applied("a uid=7 uname=nobody gid=8 gname=nobody")
    assert (at(made, "a").uid, at(made, "a").gid) == (7, 8)
