"""What ext4 cannot store is refused before anything is written, by the path that has it."""

import stat
import struct

import pytest

from blockwright.errors import UsageError
from blockwright.fs.ext4.layout import Compat, Incompat, RoCompat
from blockwright.fs.ext4.options import DEFAULT_FEATURES, Ext4Options, Features
from blockwright.fs.ext4.plan import plan
from blockwright.tree.node import Directory, File, Node, Special, Symlink
from tests.support.trees import PatternContent


def below(name: bytes, node: Node) -> Directory:
    return Directory(entries={b"etc": Directory(entries={name: node})})


def refused(tree: Directory, message: str, **options) -> None:
    with pytest.raises(UsageError, match=message):
        plan(tree, Ext4Options(**options))


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b"])
def test_names_that_are_none(name):
    refused(below(name, File()), r"^/etc: '.*': is no name of a file")


def test_names_that_are_too_long():
    refused(below(b"n" * 256, File()), r"^/etc: 'n+': expected a name of at most 255 bytes, found 256")


@pytest.mark.parametrize("target", [b"", b"t" * 4096, b"a\0b"])
def test_targets(target):
    refused(below(b"link", Symlink(target)), r"^/etc/link: expected a target of 1 to 4095 bytes without NUL")


def test_targets_longer_than_a_block():
    refused(below(b"link", Symlink(b"t" * 1024)), "^/etc/link: expected a target of 1 to 1023", block_size=1024)


def test_files_that_are_too_large():
    content = PatternContent((1 << 44) - 4095, [])
    refused(
        below(b"f", File(content=content)), r"^/etc/f: expected at most 17592186040320 bytes, found 17592186040321"
    )


@pytest.mark.parametrize("runs", [[(5, 5), (0, 5)], [(0, 11)], [(0, 0)], [(0, 5), (4, 2)]])
def test_runs_that_are_not_as_promised(runs):
    refused(below(b"f", File(content=PatternContent(10, runs))), "^/etc/f: content: expected ascending runs")


@pytest.mark.parametrize("numbers", [(4096, 0), (0, 1 << 20), (-1, 0)])
def test_device_numbers(numbers):
    node = Special(stat.S_IFBLK, major=numbers[0], minor=numbers[1])
    refused(below(b"disk", node), r"^/etc/disk: expected a device number within 4095 and 1048575")


@pytest.mark.parametrize("owner", [(1 << 32, 0), (0, 1 << 32), (-1, 0)])
def test_owners(owner):
    refused(below(b"f", File(0o644, *owner)), r"^/etc/f: expected owner and permissions within 32 and 12 bits")


@pytest.mark.parametrize("node", [File(0o120777), File(0o10644), Directory(0o20755), Symlink(b"t", -1)])
def test_permissions_that_are_more_than_that(node):
    """The four bits above would be those of the kind."""
    refused(below(b"f", node), r"^/etc/f: expected owner and permissions within 32 and 12 bits, found 0:0")


def test_links():
    shared = File()
    names: dict[bytes, Node] = {b"%d" % index: shared for index in range(65_001)}
    refused(Directory(entries={b"d": Directory(entries=names)}), "^/d/0: expected at most 65000 links, found 65001")


def test_a_directory_with_two_names():
    twice = Directory()
    refused(Directory(entries={b"a": twice, b"b": Directory(entries={b"c": twice})}), "^/a: expected a directory to")


def test_a_directory_within_itself():
    root = Directory()
    root.entries[b"loop"] = root
    refused(root, "expected a directory to have one name")


def test_lost_and_found_that_is_no_directory():
    refused(Directory(entries={b"lost+found": File()}), r"^/lost\+found: expected a directory")
    plan(Directory(entries={b"d": Directory(entries={b"lost+found": File()})}), Ext4Options())


@pytest.mark.parametrize("name", [b"user.", b"other.name", b"plain", b"user.a\0b", b"user." + b"n" * 256])
def test_attribute_names(name):
    refused(below(b"f", File(xattrs={name: b""})), r"^/etc/f: extended attribute .*: expected a name")


def test_attributes_that_do_not_fit():
    refused(below(b"f", File(xattrs={b"user.a": bytes(4041)})), "^/etc/f: extended attributes: expected at most one")


@pytest.mark.parametrize(
    "value",
    [b"", b"\2\0\0", struct.pack("<I", 1), struct.pack("<I", 2) + b"1234", struct.pack("<IHHI", 2, 0x40, 7, 0)],
)
def test_access_control_lists(value):
    refused(below(b"f", File(xattrs={b"system.posix_acl_access": value})), "^/etc/f: access control list: expected")


@pytest.mark.parametrize(
    "options",
    [
        {"block_size": 8192},
        {"block_size": 0},
        {"free": 0.96},
        {"free": -0.1},
        {"size": 0},
        {"size": 1 << 63},
        {"label": "seventeen letters"},
        {"label": "größer als acht"},
        {"label": "a\0b"},
        {"inodes": 0},
        {"extra_inodes": -1},
        {"bytes_per_inode": 1000},
        {"reserved_percent": 51},
        {"journal": 1000},
        {"journal": 1023 * 4096},
        {"journal": 1 << 50},
        {"features": Features(DEFAULT_FEATURES.compat | Compat.sparse_super2)},
        {"features": Features(DEFAULT_FEATURES.compat & ~Compat.ext_attr)},
        {"features": Features(incompat=DEFAULT_FEATURES.incompat & ~Incompat.extent)},
        {"features": Features(Compat.ext_attr, DEFAULT_FEATURES.incompat | Incompat.large_dir)},
        {"features": Features(ro_compat=DEFAULT_FEATURES.ro_compat | RoCompat.uninit_bg)},
        {"features": Features(incompat=DEFAULT_FEATURES.incompat | Incompat.inline_data)},
        {"inode_size": 128},
        {"inode_size": 512},
    ],
)
def test_options(options):
    with pytest.raises(UsageError, match=r"^ext4 .*: expected .*, found "):
        Ext4Options(**options)


def test_indexes_of_more_than_two_levels():
    # 123 nodes below the root, 126 leaves below each, 3 names of 255 bytes in each.
    names: dict[bytes, Node] = {b"%0255d" % index: File() for index in range(123 * 126 * 3 + 1)}
    tree = Directory(entries={b"d": Directory(entries=names)})
    refused(tree, "^/d: directory: expected at most", block_size=1024, large_dir=False)
