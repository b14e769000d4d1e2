"""Whole archives: members, what describes them, ends, and every way to be refused."""

import contextlib
import stat
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.device.memory import MemoryDevice
from blockwright.errors import ArchiveRejected, FormatError, NotThisFormat, UsageError
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent, Content, Fill, Runs
from blockwright.tree.node import Directory, File, Node, Special, Symlink, walk
from blockwright.tree.rules import ArchiveRules, Remarks, Xattrs
from blockwright.tree.spool import Spool
from blockwright.tree.tar import looks_like_tar, read_tar, read_tar_stream
from tests.support.tarmaker import (
    END,
    GNU,
    V7,
    archive,
    base256,
    header,
    long_name,
    member,
    padded,
    pax,
    tar_of,
)
from tests.support.trees import ALL_KINDS, content_bytes, trees


def reader_of(data: bytes, step: int = 700):
    """A binary stream that gives at most `step` bytes at once."""
    position = 0

    def read(length: int) -> bytes:
        nonlocal position
        part = data[position : position + min(length, step)]
        position += len(part)
        return part

    return read


ALL = ArchiveRules(xattrs=Xattrs.ALL)


def parse(data: bytes, rules: ArchiveRules = ALL) -> Directory:
    """The tree of an archive, which is the same from a device and from a stream."""
    root = read_tar(MemoryDevice(content=data), rules=rules)
    streamed = read_tar_stream(reader_of(data), Spool(MemoryDevice(0)).place, rules=rules)
    assert compare_trees(root, streamed, contents=True) == []
    return root


def refused(
    data: bytes, kind: type[FormatError], message: str, offset: int | None = None, rules: ArchiveRules = ALL
) -> None:
    """Both readers refuse the archive in the same way."""
    for read in (
        lambda: read_tar(MemoryDevice(content=data), source="x.tar", rules=rules),
        lambda: read_tar_stream(reader_of(data), Spool(MemoryDevice(0)).place, source="x.tar", rules=rules),
    ):
        with pytest.raises(kind, match=message) as caught:
            read()
        assert caught.value.source == "x.tar"
        assert str(caught.value).startswith("x.tar: ")
        assert caught.value.offset is not None
        if offset is not None:
            assert caught.value.offset == offset


def node(root: Directory, path: bytes) -> Node:
    return dict(walk(root))[path]


def body(root: Directory, path: bytes) -> bytes:
    found = node(root, path)
    assert isinstance(found, File)
    return content_bytes(found.content)


# -- members ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(trees(max_nodes=12, sparse=False, kinds=ALL_KINDS - {"socket"}))
def test_any_tree_comes_back_from_a_pax_archive(tree: Directory) -> None:
    assert compare_trees(tree, parse(tar_of(tree)), contents=True) == []


def test_every_type() -> None:
    root = parse(
        archive(
            header(b"d/", kind=b"5", mode=0o1777, uid=1, gid=2, mtime=3),
            member(b"d/f", b"body", mode=0o4711, uid=1000, gid=1001, mtime=1_700_000_000),
            header(b"l", kind=b"2", link=b"d/f", mode=0o777),
            header(b"h", kind=b"1", link=b"d/f"),
            header(b"c", kind=b"3", major=1, minor=3, mode=0o666),
            header(b"b", kind=b"4", major=259, minor=7),
            header(b"p", kind=b"6", mode=0o600),
            member(b"7", b"contiguous", kind=b"7"),
            member(b"0", b"old", kind=b"\0"),
            header(b"old/", kind=b"\0", magic=V7),
            header(b"slash/", kind=b"0"),
        )
    )
    found = node(root, b"d/f")
    assert (found.mode, found.uid, found.gid, found.mtime_ns) == (
        stat.S_IFREG | 0o4711,
        1000,
        1001,
        1_700_000_000 * 10**9,
    )
    assert node(root, b"h") is found
    kinds = {path: stat.filemode(one.mode)[0] for path, one in walk(root) if path}
    assert kinds == {
        b"0": "-",
        b"7": "-",
        b"b": "b",
        b"c": "c",
        b"d": "d",
        b"d/f": "-",
        b"h": "-",
        b"l": "l",
        b"old": "d",
        b"p": "p",
        b"slash": "d",
    }
    device, link = node(root, b"b"), node(root, b"l")
    assert isinstance(device, Special)
    assert (device.major, device.minor) == (259, 7)
    assert isinstance(link, Symlink)
    assert link.target == b"d/f"
    assert (body(root, b"7"), body(root, b"0")) == (b"contiguous", b"old")


def test_type_bits_in_a_mode_mean_nothing() -> None:
    assert node(parse(archive(header(b"f", mode=0o104755))), b"f").mode == stat.S_IFREG | 0o4755


def test_sizes_where_there_is_no_body() -> None:
    """Old writers put the size of the linked file, or a hint for a directory, where no bytes follow."""
    root = parse(
        archive(
            member(b"f", b"12345"),
            header(b"h", kind=b"1", link=b"f", size=5),
            header(b"l", kind=b"2", link=b"f", size=1),
            header(b"d", kind=b"5", size=4096),
            header(b"c", kind=b"3", size=1),
            member(b"g", b"last"),
        )
    )
    assert body(root, b"g") == b"last"
    assert len(dict(walk(root))) == 7


def test_a_gnu_dump_directory() -> None:
    root = parse(archive(member(b"d", b"Yname\0\0", kind=b"D", magic=GNU), member(b"d/f", b"x")))
    assert body(root, b"d/f") == b"x"


def test_a_volume_header_is_passed_over() -> None:
    assert [path for path, _ in walk(parse(archive(header(b"label", kind=b"V", magic=GNU), header(b"f"))))] == [
        b"",
        b"f",
    ]


def test_times_before_1970_and_after_2242() -> None:
    root = parse(
        archive(
            header(b"old", mtime=base256(-1, 12)), header(b"new", mtime=base256(10**11, 12)), header(b"x", mtime=b"")
        )
    )
    assert [node(root, name).mtime_ns for name in (b"old", b"new", b"x")] == [-(10**9), 10**20, 0]


def test_owners_beyond_octal() -> None:
    root = parse(archive(header(b"f", uid=base256(2**32 - 2, 8), gid=base256(3_000_000_000, 8), magic=GNU)))
    assert (node(root, b"f").uid, node(root, b"f").gid) == (2**32 - 2, 3_000_000_000)


def test_a_name_that_appears_twice() -> None:
    root = parse(archive(member(b"f", b"first"), member(b"f", b"second"), header(b"f/", kind=b"5"), member(b"f/x")))
    assert [path for path, _ in walk(root)] == [b"", b"f", b"f/x"]


def test_empty_bodies_are_not_placed() -> None:
    def place(size: int, runs: Runs, fill: Fill) -> Content:
        raise AssertionError("asked to place nothing")

    root = read_tar_stream(reader_of(archive(header(b"f"), header(b"g"))), place)
    assert len(root.entries) == 2


def test_the_time_of_what_no_entry_names() -> None:
    root = parse(archive(header(b"a/f", mtime=5), header(b"b/f", mtime=9)))
    assert [node(root, path).mtime_ns // 10**9 for path in (b"", b"a", b"b")] == [5, 5, 9]


# -- long names ------------------------------------------------------------------------------------------------------


def test_gnu_long_names() -> None:
    name, target = b"d/" + b"n" * 200, b"t" * 300
    root = parse(
        archive(
            long_name(name) + long_name(target, b"K") + header(name[:100], kind=b"2", link=target[:100], magic=GNU),
            long_name(name, b"K") + header(b"hard", kind=b"1", link=name[:100], magic=GNU),
            header(b"short"),
        )
    )
    link = node(root, name)
    assert isinstance(link, Symlink)
    assert link.target == target
    assert node(root, b"hard") is link
    assert b"short" in root.entries


def test_headers_about_a_member_in_any_order() -> None:
    name = b"n" * 150
    for before in (pax((b"uid", b"7")) + long_name(name), long_name(name) + pax((b"uid", b"7"))):
        assert node(parse(archive(before + header(b"x"))), name).uid == 7


def test_a_pax_header_is_about_the_next_member_only() -> None:
    root = parse(archive(pax((b"uid", b"7"), (b"size", b"3")) + member(b"a", b"abc", size=0) + member(b"b", b"xy")))
    assert (node(root, b"a").uid, node(root, b"b").uid) == (7, 0)
    assert (body(root, b"a"), body(root, b"b")) == (b"abc", b"xy")


def test_a_pax_size_is_not_that_of_a_long_name() -> None:
    """The header that a size is for is the member's, whatever stands between (CVE-2025-62518)."""
    data = archive(pax((b"size", b"600")) + long_name(b"n" * 150) + header(b"x", size=0) + padded(b"x" * 600))
    assert body(parse(data), b"n" * 150) == b"x" * 600


def test_a_pax_size_wins() -> None:
    inner = archive(member(b"smuggled", b"x"))
    data = archive(pax((b"size", b"%d" % len(inner))) + header(b"f", size=0) + inner, member(b"last"))
    assert sorted(parse(data).entries) == [b"f", b"last"]


def test_global_headers() -> None:
    root = parse(
        archive(
            pax((b"comment", b"0123"), kind=b"g"),
            header(b"a", uid=1),
            pax((b"hdrcharset", b"BINARY"), kind=b"g"),
            pax((b"uid", b"8")) + header(b"c"),
        )
    )
    assert [node(root, name).uid for name in (b"a", b"c")] == [1, 8]


@pytest.mark.parametrize("keyword", [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"SCHILY.xattr.user.a"])
def test_global_headers_that_change_members(keyword: bytes) -> None:
    data = archive(ONE, pax((keyword, b"1"), kind=b"g"), header(b"a"))
    refused(data, ArchiveRejected, "expected a global one to be a comment", len(ONE) + 512)


def test_a_solaris_header() -> None:
    assert node(parse(archive(pax((b"uid", b"7"), kind=b"X") + header(b"a"))), b"a").uid == 7


def test_permissions_follow_an_access_control_list() -> None:
    """libarchive puts the owning group's bits into the mode, where Linux has the mask's."""
    acl = pax((b"SCHILY.acl.access", b"user::rw-,user:5:rwx,group::r--,mask::rwx,other::---"))
    default = pax((b"SCHILY.acl.default", b"user::rw-,user:5:rwx,group::r--,mask::rwx,other::---"))
    root = parse(archive(acl + header(b"f", mode=0o4640), default + header(b"d", kind=b"5", mode=0o750)))
    assert (node(root, b"f").permissions, node(root, b"d").permissions) == (0o4670, 0o750)
    assert list(node(root, b"d").xattrs) == [b"system.posix_acl_default"]
    broken = pax((b"SCHILY.xattr.system.posix_acl_access", b"junk"))
    refused(archive(broken + header(b"f")), ArchiveRejected, "ACL")


def test_equal_attributes_are_one_object() -> None:
    label = pax((b"RHT.security.selinux", b"label"))
    root = parse(archive(label + header(b"a"), label + header(b"b")))
    assert root.entries[b"a"].xattrs is root.entries[b"b"].xattrs


# -- ends ------------------------------------------------------------------------------------------------------------

ONE = member(b"f", b"body")


@pytest.mark.parametrize(
    "end",
    [b"", bytes(512), bytes(1024), bytes(10240 - 1024), bytes(1024) + b"anything", bytes(1024) + header(b"hidden")],
)
def test_ends_that_are_accepted(end: bytes) -> None:
    assert list(parse(archive(ONE, end=end)).entries) == [b"f"]


@pytest.mark.parametrize("end", [bytes(100), bytes(512) + header(b"hidden"), bytes(512) + bytes(100), b"junk"])
def test_ends_that_are_not(end: bytes) -> None:
    refused(archive(ONE, end=end), ArchiveRejected, "tar end|tar header", len(ONE))


def test_an_archive_without_members() -> None:
    assert parse(END).entries == {}
    assert parse(bytes(10240)).entries == {}


@pytest.mark.parametrize(
    "data", [b"", b"x", bytes(511), b"not a tar archive".ljust(2000, b"x"), b"\x7fELF".ljust(512)]
)
def test_what_is_no_archive(data: bytes) -> None:
    refused(data, NotThisFormat, "expected a tar header", 0)
    assert not looks_like_tar(data[:512])


def test_what_looks_like_an_archive() -> None:
    for magic in (GNU, V7, b"ustar\x0000"):
        assert looks_like_tar(header(b"f", magic=magic))
    assert looks_like_tar(bytes(512))
    damaged = bytearray(header(b"f"))
    damaged[0] += 1
    assert looks_like_tar(bytes(damaged))
    refused(bytes(damaged), ArchiveRejected, "checksum", 0)


def test_the_stream_is_read_to_its_end() -> None:
    source = iter([archive(ONE), b"x" * 5000, b"y" * 5000])
    read_tar_stream(lambda _: next(source, b""), Spool(MemoryDevice(0)).place)
    assert list(source) == []


@pytest.mark.parametrize("length", [1, 511, 513])
def test_the_padding_behind_the_last_body_may_be_left_out_and_no_part_of_it(length: int) -> None:
    whole = archive(member(b"first", b"1"), member(b"last", b"x" * length), end=b"")
    end = len(whole) - -length % 512
    last = parse(whole[:end]).entries[b"last"]
    assert isinstance(last, File)
    assert last.content.size == length
    for cut in {end - 1, end + 1, len(whole) - 1} - {end}:
        if cut < len(whole) and cut != end:
            refused(whole[:cut], ArchiveRejected, "archive's end", cut)


@pytest.mark.parametrize("cut", range(1, 1024 + 1 - 512, 61))
def test_a_cut_archive(cut: int) -> None:
    data = member(b"f", b"x" * 600)
    refused(data[:-cut], ArchiveRejected, "archive's end|expected 512 bytes", len(data) - cut)


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"../f", b"a/../../f", b"/../f", b"a/.."])
def test_names_upwards(name: bytes) -> None:
    refused(archive(ONE, header(name)), ArchiveRejected, r"no '\.\.'", len(ONE))
    refused(archive(ONE, header(b"h", kind=b"1", link=name)), ArchiveRejected, r"no '\.\.'", len(ONE))
    refused(archive(ONE, pax((b"path", name)) + header(b"x")), ArchiveRejected, r"no '\.\.'")


def test_absolute_names_are_of_the_tree() -> None:
    root = parse(archive(header(b"/etc/passwd"), header(b"l", kind=b"2", link=b"/etc/shadow")))
    assert sorted(path for path, _ in walk(root)) == [b"", b"etc", b"etc/passwd", b"l"]


def test_a_chain_of_links_that_once_escaped() -> None:
    """A link to a link whose target goes up (CVE-2025-4517, CVE-2026-11940, CVE-2026-82049)."""
    root = parse(
        archive(
            header(b"d", kind=b"5"),
            header(b"d/up", kind=b"2", link=b"../../../../../tmp"),
            header(b"d/hard", kind=b"1", link=b"d/up"),
            header(b"d/hard/escaped", kind=b"5"),
            member(b"d/up/file", b"x"),
        )
    )
    assert b"tmp/file" in dict(walk(root))
    assert b"tmp/escaped" in dict(walk(root))
    assert node(root, b"d/hard") is node(root, b"d/up")


@pytest.mark.parametrize("size", [base256(-512, 12), base256(-1, 12), base256(2**63, 12)])
@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"V", b"S"])
def test_sizes_that_cannot_be(size: bytes, kind: bytes) -> None:
    refused(archive(ONE, header(b"f", size=size, kind=kind)), FormatError, "expected", len(ONE))


@pytest.mark.parametrize("size", [2**63 - 1, 2**62, 10**6])
def test_sizes_beyond_the_archive(size: int) -> None:
    data = archive(ONE, header(b"f", size=base256(size, 12)), end=b"x" * 2000)
    with pytest.raises(ArchiveRejected, match=r"archive's end|in all, found more"):
        read_tar(MemoryDevice(content=data))
    with pytest.raises(ArchiveRejected, match=r"archive's end|in all, found more"):
        read_tar_stream(reader_of(data), lambda size, runs, fill: consume(size, fill))


def consume(size: int, fill: Fill) -> Content:
    buffer = memoryview(bytearray(1000))
    while size:
        fill(buffer[: min(size, 1000)])
        size -= min(size, 1000)
    return BytesContent(b"")


@pytest.mark.parametrize(("uid", "gid"), [(base256(-1, 8), 0), (0, base256(-1, 8)), (base256(2**32 - 1, 8), 0)])
def test_owners_that_cannot_be(uid: int, gid: int) -> None:
    refused(archive(header(b"f", uid=uid, gid=gid)), ArchiveRejected, "owner: expected ids")


def test_times_that_cannot_be() -> None:
    refused(archive(header(b"f", mtime=base256(2**80, 12))), ArchiveRejected, "mtime")
    refused(archive(header(b"f", mtime=base256(-(2**80), 12))), ArchiveRejected, "mtime")


def test_devices_that_cannot_be() -> None:
    refused(archive(header(b"f", kind=b"3", major=base256(2**32, 8))), ArchiveRejected, "device: expected numbers")
    refused(archive(header(b"f", kind=b"4", minor=base256(-1, 8))), ArchiveRejected, "device: expected numbers")
    refused(archive(header(b"f", kind=b"4", minor=b"junk")), ArchiveRejected, "devminor: expected an octal number")


@pytest.mark.parametrize("kind", [b"Z", b"N", b"A", b"8", b" ", b"\xff"])
def test_types_that_are_not_known(kind: bytes) -> None:
    refused(archive(ONE, header(b"f", kind=kind)), ArchiveRejected, "type: expected one that is known", len(ONE))


def test_a_member_of_several_volumes() -> None:
    refused(archive(header(b"f", kind=b"M", magic=GNU)), ArchiveRejected, "earlier volume", 0)


def test_links_to_nothing() -> None:
    refused(
        archive(ONE, header(b"h", kind=b"1", link=b"missing")), ArchiveRejected, "expected an earlier entry", len(ONE)
    )
    refused(
        archive(header(b"h", kind=b"1", link=b"late"), member(b"late")),
        ArchiveRejected,
        "expected an earlier entry",
        0,
    )
    refused(archive(header(b"l", kind=b"2")), ArchiveRejected, "link target: expected one", 0)
    refused(archive(header(b"l", kind=b"1")), ArchiveRejected, "link target: expected one", 0)


def test_two_headers_that_contradict_one_another() -> None:
    name, other = b"n" * 150, b"m" * 150
    assert name in parse(archive(long_name(name) + pax((b"path", name)) + header(b"x"))).entries
    refused(archive(long_name(name) + pax((b"path", other)) + header(b"x")), ArchiveRejected, "in both headers")
    link = header(b"l", kind=b"2", link=b"x")
    refused(archive(long_name(name, b"K") + pax((b"linkpath", other)) + link), ArchiveRejected, "in both headers")


@pytest.mark.parametrize("twice", [pax((b"uid", b"1")), long_name(b"n"), long_name(b"n", b"K")])
def test_two_headers_of_one_kind_about_a_member(twice: bytes) -> None:
    refused(
        archive(twice + twice + header(b"f")), ArchiveRejected, "expected one for a member, found two", len(twice)
    )


@pytest.mark.parametrize("alone", [pax((b"uid", b"1")), long_name(b"n"), long_name(b"n", b"K")])
@pytest.mark.parametrize("end", [b"", END])
def test_a_header_about_nothing(alone: bytes, end: bytes) -> None:
    refused(archive(ONE, alone, end=end), ArchiveRejected, "expected a member behind it", len(ONE))


def test_a_file_that_is_a_directory_by_its_slash_and_holds_something() -> None:
    refused(archive(member(b"f/", b"body")), ArchiveRejected, "expected a directory to have no body", 0)


def test_a_long_name_with_nul() -> None:
    refused(archive(long_name(b"a\0b") + header(b"f")), ArchiveRejected, "no NUL", 0)


def test_damage_in_a_pax_header_has_its_byte() -> None:
    damaged = member(b"x", b"6 a=b\n" + b"7 broken", kind=b"x")
    refused(archive(ONE, damaged + header(b"f")), ArchiveRejected, "length keyword=value", len(ONE) + 512 + 6)


LIMITS = {
    "pax header": (header(b"x", kind=b"x", size=(1 << 20) + 1), "extended header: expected at most 1048576"),
    "global header": (header(b"x", kind=b"g", size=(1 << 20) + 1), "extended header: expected at most 1048576"),
    "long name": (header(b"x", kind=b"L", size=300_000), "long name: expected at most 4096"),
    "long link": (header(b"x", kind=b"K", size=2**40), "long name: expected at most 4096"),
    "component": (pax((b"path", b"n" * 256)) + header(b"f"), "at most 255 bytes, found 256"),
    "path": (pax((b"path", b"n/" * 2049)) + header(b"f"), "name: expected at most 4096"),
    "depth": (pax((b"path", b"n/" * 257)) + header(b"f"), "at most 256 directories"),
    "target": (pax((b"linkpath", b"t" * 4096)) + header(b"l", kind=b"2"), "at most 4095 bytes, found 4096"),
}


@pytest.mark.parametrize("what", LIMITS)
def test_limits(what: str) -> None:
    data, message = LIMITS[what]
    refused(archive(data), ArchiveRejected, message)


def test_targets_and_attributes_are_limited_together() -> None:
    rules = ArchiveRules(metadata=30)
    link = header(b"l", kind=b"2", link=b"0123456789")
    attribute = pax((b"SCHILY.xattr.user.a", b"1234")) + header(b"f")
    parse(archive(link, link, attribute), rules)
    refused(archive(link, link, attribute, attribute), ArchiveRejected, "in all", rules=rules)
    refused(archive(link, link, link, link), ArchiveRejected, "in all", rules=rules)


def test_what_was_dropped_is_counted() -> None:
    label = pax((b"RHT.security.selinux", b"label"), (b"SCHILY.xattr.user.a", b"1"))
    remarks = Remarks()
    root = read_tar(MemoryDevice(content=archive(label + ONE, label + ONE, header(b"d", kind=b"5"))), remarks=remarks)
    assert root.entries[b"f"].xattrs == {b"user.a": b"1"}
    assert (remarks.replaced, dict(remarks.dropped_xattrs)) == (1, {b"security.selinux": 2})


# -- placing ---------------------------------------------------------------------------------------------------------


def test_bodies_arrive_in_order_and_whole() -> None:
    bodies = {b"%d" % i: bytes([i]) * (i * 700) for i in range(1, 9)}
    seen = []

    def place(size: int, runs: Runs, fill: Fill) -> Content:
        assert runs == ((0, size),)
        buffer = bytearray(size)
        for start in range(0, size, 1000):
            fill(memoryview(buffer)[start : start + 1000])
        seen.append(bytes(buffer))
        return BytesContent(bytes(buffer))

    data = archive(*[member(name, content) for name, content in bodies.items()])
    root = read_tar_stream(reader_of(data, step=333), place)
    assert seen == list(bodies.values())
    assert {name: body(root, name) for name in bodies} == bodies


@pytest.mark.parametrize("take", [3, 5])
def test_a_place_must_take_what_there_is(take: int) -> None:
    def place(size: int, runs: Runs, fill: Fill) -> Content:
        fill(memoryview(bytearray(take)))
        return BytesContent(b"")

    with pytest.raises(UsageError, match="expected to take 4 bytes"):
        read_tar_stream(reader_of(archive(ONE)), place)


def test_what_a_place_raises_passes() -> None:
    def place(size: int, runs: Runs, fill: Fill) -> Content:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        read_tar_stream(reader_of(archive(ONE)), place)


# -- noise -----------------------------------------------------------------------------------------------------------


def mutations(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), 7):
        yield data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def test_single_changed_bytes_raise_nothing_else() -> None:
    data = archive(
        pax((b"path", b"long/name"), (b"mtime", b"1.5")) + member(b"f", b"body"), long_name(b"n") + header(b"x")
    )
    for mutated in mutations(data):
        with contextlib.suppress(FormatError):
            read_tar(MemoryDevice(content=mutated))


@given(
    st.lists(
        st.sampled_from([ONE, END[:512], pax((b"uid", b"1")), long_name(b"n"), header(b"h", kind=b"1", link=b"f")])
    )
)
def test_any_order_of_sound_headers(parts: list[bytes]) -> None:
    with contextlib.suppress(FormatError):
        parse(archive(*parts))


@pytest.mark.timeout(60)
def test_a_stream_that_goes_on_for_ever_behind_the_archive_is_left():
    """A disk with an archive at its start, or a device of zeros."""
    whole = archive(ONE)
    taken = 0

    def read(length: int) -> bytes:
        nonlocal taken
        part = whole[taken : taken + length] or bytes(length)
        taken += len(part)
        return part

    root = read_tar_stream(read, Spool(MemoryDevice(0)).place)
    assert list(root.entries) == list(parse(archive(ONE)).entries)
    assert taken < len(whole) + (80 << 20)
