"""Extended headers: records, and what each keyword says."""

import base64
import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.errors import ArchiveRejected, FormatError
from blockwright.tree.tar import pax
from blockwright.tree.tar.pax import parse_global, parse_records, parse_time
from tests.support.tarmaker import record


def parse(*pairs: tuple[bytes, bytes]) -> pax.Extended:
    return parse_records(b"".join(record(*pair) for pair in pairs))


def test_metadata() -> None:
    found = parse(
        (b"path", b"a/\xff"),
        (b"linkpath", b"b=c\nd"),
        (b"size", b"9223372036854775807"),
        (b"uid", b"4000000000"),
        (b"gid", b"1"),
        (b"mtime", b"1.5"),
        (b"uname", b"somebody"),
        (b"comment", b"nothing"),
        (b"SCHILY.fflags", b"nodump"),
        (b"SCHILY.ino", b"x"),
    )
    assert (found.path, found.link, found.size) == (b"a/\xff", b"b=c\nd", 2**63 - 1)
    assert (found.uid, found.gid, found.mtime_ns) == (4_000_000_000, 1, 1_500_000_000)
    assert found.xattrs == {}


@given(st.binary(max_size=300), st.integers(0, 120))
def test_lengths_of_any_number_of_digits(value: bytes, fill: int) -> None:
    value = value.replace(b"\0", b"-") + b"x" * fill
    assert parse((b"path", value), (b"linkpath", b"t")).path == (value or None)


def test_the_last_of_two_records_counts() -> None:
    assert parse((b"uid", b"1"), (b"uid", b"2")).uid == 2


def test_an_empty_value_takes_back_what_was_said() -> None:
    found = parse((b"uid", b"5"), (b"mtime", b"7"), (b"uid", b""), (b"path", b""))
    assert (found.uid, found.mtime_ns, found.path) == (None, 7_000_000_000, None)


BROKEN = [
    b"x",
    b"\0",
    b"4 a\n",
    b"6 a=b",
    b"7 a=b\n",
    b"5 a=b\n",
    b"6 a=bX",
    b"5 =a\n",
    b"06 a=b",
    b"-6 a=b\n",
    b"+6 a=b\n",
    b"6\ta=b\n",
    b"99999999999 a=b\n",
    b"0 a=b\n",
    b"1 a=b\n",
    b"3 \n",
    b"junk",
    bytes(4),
]


@pytest.mark.parametrize("body", BROKEN)
def test_what_is_no_record(body: bytes) -> None:
    with pytest.raises(ArchiveRejected, match="length keyword=value") as caught:
        parse_records(body)
    assert caught.value.offset == 0
    with pytest.raises(ArchiveRejected, match="length keyword=value") as caught:
        parse_records(record(b"a", b"b") + body)
    assert caught.value.offset == 6


TIMES = {
    b"0": 0,
    b"1": 10**9,
    b"1.": 10**9,
    b"1.5": 1_500_000_000,
    b"1.000000001": 1_000_000_001,
    b"1.0000000019": 1_000_000_001,
    b"-1": -(10**9),
    b"-1.5": -1_500_000_000,
    b"-0.000000001": -1,
    b"-0.0000000001": -1,
    b"-1.5000000000": -1_500_000_000,
    b"00001.5": 1_500_000_000,
    b"9223372036854775807.999999999": (2**63 - 1) * 10**9 + 999_999_999,
}


@pytest.mark.parametrize("text", TIMES)
def test_times(text: bytes) -> None:
    assert parse_time(text) == TIMES[text]


@pytest.mark.parametrize(
    "text", [b"", b".5", b"-", b"1e3", b"1,5", b" 1", b"1 ", b"--1", b"+1", b"9223372036854775808", b"1" * 30]
)
def test_what_is_no_time(text: bytes) -> None:
    with pytest.raises(ArchiveRejected, match="mtime"):
        parse_time(text)


@pytest.mark.parametrize("keyword", [b"size", b"uid", b"gid"])
@pytest.mark.parametrize("value", [b"-1", b"1.0", b"0x1", b" 1", b"9223372036854775808", b"1" * 100])
def test_what_is_no_number(keyword: bytes, value: bytes) -> None:
    with pytest.raises(ArchiveRejected, match="decimal number"):
        parse((keyword, value))


@pytest.mark.parametrize("keyword", [b"path", b"linkpath"])
def test_a_name_with_nul(keyword: bytes) -> None:
    with pytest.raises(ArchiveRejected, match="without NUL"):
        parse((keyword, b"a\0b"))


# -- extended attributes ---------------------------------------------------------------------------------------------


def test_attributes_of_gnu_tar_and_star() -> None:
    found = parse(
        (b"SCHILY.xattr.user.a", b"\0\xff\n=bytes"),
        (b"SCHILY.xattr.user.empty", b""),
        (b"SCHILY.xattr.user.%3D%25", b"1"),
        (b"SCHILY.xattr.user.%41", b"2"),
    )
    assert found.xattrs == {b"user.a": b"\0\xff\n=bytes", b"user.empty": b"", b"user.=%": b"1", b"user.%41": b"2"}


def test_attributes_of_libarchive() -> None:
    value = bytes(range(256))
    encoded = base64.b64encode(value)
    found = parse((b"LIBARCHIVE.xattr.user.a%20b", encoded), (b"LIBARCHIVE.xattr.user.c", encoded.rstrip(b"=")))
    assert found.xattrs == {b"user.a b": value, b"user.c": value}
    with pytest.raises(ArchiveRejected, match="base64"):
        parse((b"LIBARCHIVE.xattr.user.a", b"!!!!"))
    with pytest.raises(ArchiveRejected, match="base64"):
        parse((b"LIBARCHIVE.xattr.user.a", b"A"))


def test_labels_end_in_nul() -> None:
    label = b"system_u:object_r:etc_t:s0"
    for value in (label, label + b"\0"):
        assert parse((b"RHT.security.selinux", value)).xattrs == {b"security.selinux": label + b"\0"}


def test_limits_of_attributes() -> None:
    assert parse((b"SCHILY.xattr." + b"u" * 255, b"v" * 65536)).xattrs == {b"u" * 255: b"v" * 65536}
    with pytest.raises(ArchiveRejected, match="at most 255 bytes, found 256"):
        parse((b"SCHILY.xattr." + b"u" * 256, b""))
    with pytest.raises(ArchiveRejected, match="at most 65536 bytes, found 65537"):
        parse((b"SCHILY.xattr.u", b"v" * 65537))
    with pytest.raises(ArchiveRejected, match="at most 1024"):
        parse(*[(b"SCHILY.xattr.u%d" % i, b"") for i in range(1025)])
    for name in (b"", b"a\0b"):
        with pytest.raises(ArchiveRejected, match="name without NUL"):
            parse((b"SCHILY.xattr." + name, b""))


def test_access_control_lists() -> None:
    text = b"user::rwx,user:lisa:r-x:502,group::r-x,mask::r-x,other::---"
    acl = parse((b"SCHILY.acl.access", text)).xattrs[b"system.posix_acl_access"]
    assert acl == struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *entry)
        for entry in [
            (0x01, 7, 0xFFFFFFFF),
            (0x02, 5, 502),
            (0x04, 5, 0xFFFFFFFF),
            (0x10, 5, 0xFFFFFFFF),
            (0x20, 0, 0xFFFFFFFF),
        ]
    )
    assert parse((b"SCHILY.acl.default", text)).xattrs == {b"system.posix_acl_default": acl}
    assert parse((b"SCHILY.acl.access", b"user::rwx,group::r-x,other::r-x")).xattrs == {}
    named = (b"SCHILY.acl.access", text.replace(b":502", b""))
    with pytest.raises(ArchiveRejected, match="lisa") as caught:
        parse((b"uid", b"1"), named)
    assert caught.value.offset == len(record(b"uid", b"1"))
    given = (b"SCHILY.xattr.system.posix_acl_access", acl)
    for pairs in ([named, given], [given, named]):
        assert parse(*pairs).xattrs == {b"system.posix_acl_access": acl}
    with pytest.raises(ArchiveRejected, match="NFSv4"):
        parse((b"SCHILY.acl.ace", b"owner@:rwx:allow"))


# -- global headers --------------------------------------------------------------------------------------------------


def test_a_global_header_may_comment() -> None:
    parse_global(record(b"comment", b"0123abcd") + record(b"charset", b"BINARY") + record(b"VENDOR.x", b"1"))


@pytest.mark.parametrize(
    "keyword",
    [
        b"path",
        b"linkpath",
        b"size",
        b"uid",
        b"gid",
        b"mtime",
        b"GNU.sparse.name",
        b"GNU.sparse.offset",
        b"SCHILY.xattr.user.a",
        b"LIBARCHIVE.xattr.user.a",
        b"RHT.security.selinux",
        b"SCHILY.acl.access",
    ],
)
def test_a_global_header_may_change_nothing(keyword: bytes) -> None:
    with pytest.raises(ArchiveRejected, match="expected a global one to be a comment"):
        parse_global(record(keyword, b"1"))


@given(
    st.lists(
        st.tuples(st.sampled_from([*pax._LOCAL, *pax._ACLS, *pax._PREFIXES, b"x"]), st.binary(max_size=40)),
        max_size=5,
    )
)
def test_any_values(pairs: list[tuple[bytes, bytes]]) -> None:
    with contextlib.suppress(FormatError):
        parse(*pairs)
