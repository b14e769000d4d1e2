"""Manifests of NetBSD's mtree and of bsdtar, tables of genext2fs, capabilities of setcap: in both directions."""

import os

import pytest

from blockwright.resolve import open_device, open_file_system
from blockwright.tree.changes.devicetable import apply_table, parse_capabilities, parse_table
from blockwright.tree.changes.text import Line
from blockwright.tree.compare import compare_trees
from blockwright.tree.host import read_directory
from blockwright.tree.mtree.apply import apply_manifest
from blockwright.tree.mtree.digest import NAMES, digests
from blockwright.tree.mtree.parse import parse
from blockwright.tree.mtree.write import write_manifest
from blockwright.tree.node import Directory, walk
from blockwright.tree.rebuild import rebuild, with_metadata
from tests.support.inprocess import blockwright
from tests.support.tools import run, tool

ALL_WORDS = "type,mode,uid,gid,size,time,link,device,md5,sha1,sha256,sha384,sha512,rmd160,cksum,nlink"
NAMES_OF_FILES = ["plain", "with space", "hash#", "star*[?]", "back\\slash", "new\nline", "tab\t", "größe", "=", "~"]


@pytest.fixture
def folder(tmp_path):
    """What an ordinary user can make, with the names that escapes are for."""
    top = tmp_path / "folder"
    (top / "d" / "e").mkdir(parents=True)
    (top / "d" / "e").chmod(0o1750)
    for number, name in enumerate(NAMES_OF_FILES):
        (top / "d" / name).write_bytes(name.encode() * number)
        os.utime(top / "d" / name, ns=(0, 1_600_000_000_000_000_000 + number * 90_222_920))
    os.link(top / "d" / "plain", top / "hard")
    (top / "link").symlink_to("d/with space")
    os.mkfifo(top / "fifo", 0o640)
    (top / "etc").mkdir()
    (top / "etc" / "passwd").write_bytes(b"root:x:0:0::/root:/bin/sh\n")
    (top / "etc" / "group").write_bytes(b"root:x:0:\n")
    return top


def scrambled(root):
    """The same names with other metadata."""
    return rebuild(root, lambda _path, node: with_metadata(node, permissions=0o111, uid=77, gid=78, mtime_ns=9))


def test_mtree_finds_what_we_list(folder):
    mtree = tool("mtree")
    text = blockwright("manifest", folder, *(f"--digest={each}" for each in NAMES)).stdout
    assert run([mtree, "-p", folder], input=text).stdout == ""
    (folder / "d" / "plain").chmod(0o600)
    (folder / "etc" / "group").write_bytes(b"root:x:0;\n")
    told = run([mtree, "-p", folder], input=text, ok=[2]).stdout
    assert "permissions" in told
    assert "sha256" in told


def test_bsdtar_reads_what_we_list(folder, tmp_path):
    text = b"".join(write_manifest(read_directory(folder)))
    (tmp_path / "m").write_bytes(text)
    bsdtar = tool("bsdtar")
    listed = run([bsdtar, "-tf", tmp_path / "m"]).stdout.splitlines()
    assert len(listed) == text.count(b"\n") - 1
    packed = run([bsdtar, "--format=pax", "-cf", tmp_path / "out.tar", f"@{tmp_path / 'm'}"], cwd=folder)
    assert packed.stderr == ""
    assert blockwright("manifest", tmp_path / "out.tar").stdout == text


@pytest.mark.parametrize("relative", [True, False])
def test_what_mtree_lists_is_applied_and_verified(folder, relative):
    mtree = tool("mtree")
    text = run([mtree, "-c", "-p", folder, "-k", ALL_WORDS]).stdout
    if not relative:
        text = run([mtree, "-C", "-k", ALL_WORDS], input=text).stdout
    root = read_directory(folder)
    made = apply_manifest(scrambled(root), parse(text.encode(), "m"), mtime_ns=0)
    assert not compare_trees(root, made, contents=True)


def test_what_bsdtar_lists_is_applied_and_verified(folder):
    text = run([tool("bsdtar"), "-cf", "-", "--format=mtree", "--options=mtree:all", "-C", folder, "."]).stdout
    root = read_directory(folder)
    made = apply_manifest(scrambled(root), parse(text.encode(), "m"), mtime_ns=0)
    assert not compare_trees(root, made, contents=True)


def test_cksum_is_cksum(folder):
    for name in NAMES_OF_FILES:
        expected = run([tool("cksum", package="coreutils")], input=(folder / "d" / name).read_bytes()).stdout.split()[
            0
        ]
        content = read_directory(folder).entries[b"d"].entries[os.fsencode(name)].content
        assert digests(content, ("cksum",))["cksum"] == expected


TABLE = """\
# name type mode uid gid major minor start inc count
/dev d 755 0 0 - - - - -
/dev/console c 600 0 5 5 1 0 0 -
/dev/tty c 620 1 5 4 0 0 1 4
/dev/sd b 660 0 6 8 16 0 16 3
/run d 1777 3 4 - - - - -
/run/pipe p 640 7 8
/file f 4711 9 10 - - - - -
"""


def test_genext2fs_makes_the_same_of_a_table(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_bytes(b"x")
    (tmp_path / "table").write_text(TABLE)
    image = tmp_path / "image"
    run([tool("genext2fs"), "-d", tmp_path / "root", "-D", tmp_path / "table", "-b", "200", image])
    with open_file_system(open_device(str(image)), source="image") as system:
        theirs = system.tree()
        theirs.entries.pop(b"lost+found")
    ours = apply_table(read_directory(tmp_path / "root"), parse_table(TABLE.encode(), "t"), mtime_ns=0)
    for root in (theirs, ours):
        root.permissions = root.uid = root.gid = 0
    assert sum(1 for _ in walk(ours)) == 13
    assert not compare_trees(theirs, ours, ignore={"mtime_ns"})


@pytest.mark.skipif(os.geteuid() != 0, reason="setcap needs root")
@pytest.mark.parametrize(
    "text", ["cap_net_raw+ep", "cap_net_raw,cap_bpf=eip", "all=p", "cap_kill+i", "all=ep cap_chown-ep"]
)
def test_setcap_makes_the_same_of_capabilities(tmp_path, text):
    path = tmp_path / "program"
    path.write_bytes(b"")
    setcap = tool("setcap")
    run([setcap, text, path])
    theirs = os.getxattr(path, "security.capability")
    ours = parse_capabilities(text.encode(), Line("t", 1))
    if "all" in text:  # this kernel may know fewer, or more
        assert theirs[:4] == ours[:4]
        assert theirs[4:8] == ours[4:8]
    else:
        assert theirs == ours


def test_a_tree_of_nothing(tmp_path):
    assert b"".join(write_manifest(Directory(mtime_ns=1_000_000_001))) == (
        b"#mtree\n. type=dir mode=0755 uid=0 gid=0 time=1.000000001\n"
    )
