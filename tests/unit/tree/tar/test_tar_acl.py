"""POSIX ACLs from text."""

import struct

import pytest

from blockwright.errors import Corrupt, LimitExceeded, Unsupported
from blockwright.tree.tar.acl import acl_from_text, permissions_of_acl

NONE = 0xFFFFFFFF


def entries(acl: bytes | None) -> list[tuple[int, ...]]:
    assert acl is not None
    assert acl[:4] == struct.pack("<I", 2)
    return list(struct.iter_unpack("<HHI", acl[4:]))


FULL = [(1, 7, NONE), (2, 4, 5), (2, 6, 1000), (4, 5, NONE), (8, 1, 7), (0x10, 7, NONE), (0x20, 0, NONE)]


@pytest.mark.parametrize(
    "text",
    [
        b"user::rwx,user:5:r--,user:1000:rw-,group::r-x,group:7:--x,mask::rwx,other::---",
        b"user::rwx\nuser:1000:rw-\nuser:5:r--\ngroup::r-x\ngroup:7:--x\nmask::rwx\nother::---\n",
        b"o::---,m::rwx,g:7:--x,g::r-x,u:1000:rw-,u:5:r--,u::rwx",
        b"user::rwx,user:lisa:r--:5,user:bob:rw-:1000,group::r-x,group:adm:--x:7,mask:rwx,other:---",
        b"# f\nuser::rwx\nuser:5:r--\t#effective:r--\nuser:1000:rw-\ngroup::r-x\ngroup:7:x\nmask::xwr\nother::-\n",
    ],
)
def test_forms_of_one_list(text: bytes) -> None:
    assert entries(acl_from_text(text)) == FULL


@pytest.mark.parametrize("text", [b"", b"\n", b"user::rw-,group::r--,other::r--", b"# nothing"])
def test_what_the_mode_says_already(text: bytes) -> None:
    assert acl_from_text(text) is None


def test_a_mask_alone_is_kept() -> None:
    assert len(entries(acl_from_text(b"u::rwx,g::r-x,m::r-x,o::---"))) == 4


BASE = b",group::r-x,mask::rwx,other::---"


@pytest.mark.parametrize(
    "text",
    [
        b"user::rwx",
        b"user::rwx,user:1:r--,group::r-x,other::---",
        b"user::rwx,user::r--" + BASE,
        b"user::rwx,user:1:r--,user:1:rw-" + BASE,
        b"user::rwx,mask:5:r--" + BASE,
        b"user::rwz" + BASE,
        b"user::rwxr" + BASE,
        b"user::" + BASE,
        b"user" + BASE,
        b"owner::rwx" + BASE,
        b"user:1:r--:2:3,user::rwx" + BASE,
        b"user::rwx,user:4294967295:r--" + BASE,
        b"user::rwx,user:99999999999:r--" + BASE,
    ],
)
def test_what_is_no_list(text: bytes) -> None:
    with pytest.raises(Corrupt, match="ACL"):
        acl_from_text(text)


def test_a_name_without_a_number() -> None:
    with pytest.raises(Unsupported, match=r"lisa.*--xattrs-include"):
        acl_from_text(b"user::rwx,user:lisa:r--" + BASE)


def test_root_is_a_name_that_everybody_knows() -> None:
    assert (2, 4, 0) in entries(acl_from_text(b"user::rwx,user:root:r--" + BASE))


def test_permissions_that_go_with_a_list() -> None:
    assert permissions_of_acl(acl_from_text(b"u::rw-,u:5:r--,g::r--,m::rwx,o::--x") or b"") == 0o671
    three = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *entry) for entry in [(1, 6, NONE), (4, 4, NONE), (32, 0, NONE)]
    )
    assert permissions_of_acl(three) == 0o640


@pytest.mark.parametrize(
    "acl", [b"", b"\2\0\0", b"\1\0\0\0", b"\2\0\0\0", b"\2\0\0\0" + bytes(8), b"\2\0\0\0" + bytes(7)]
)
def test_what_is_no_list_in_linuxs_form(acl: bytes) -> None:
    with pytest.raises(Corrupt, match="ACL"):
        permissions_of_acl(acl)


def test_too_many_entries() -> None:
    text = b"user::rwx" + BASE + b"".join(b",user:%d:r--" % i for i in range(5000))
    with pytest.raises(LimitExceeded, match="4096"):
        acl_from_text(text)
