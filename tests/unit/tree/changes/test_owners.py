import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.errors import NotFound, UsageError
from blockwright.tree.changes.accounts import Accounts
from blockwright.tree.changes.owners import (
    map_ids,
    mask_permissions,
    parse_maps,
    parse_umask,
    set_owner,
    set_permissions,
)
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Symlink
from tests.support.trees import acl, trees

FULL = f"0:0:{2**32 - 1}"


def accounts(passwd=b"", group=b""):
    files = {b"passwd": passwd, b"group": group}
    etc = Directory(entries={name: File(content=BytesContent(data)) for name, data in files.items()})
    return Accounts(Directory(entries={b"etc": etc}))


def mapped(root, *texts, unmapped="refuse"):
    return map_ids(root, *parse_maps(texts, unmapped))


@settings(max_examples=40)
@given(trees())
def test_the_identity_map_changes_nothing(root):
    assert not compare_trees(root, mapped(root, FULL))


@settings(max_examples=40)
@given(trees(), st.integers(0, 2**31))
def test_a_map_and_its_reverse_change_nothing(root, shift):
    there, back = f"{shift}:0:{2**31 - 1}", f"0:{shift}:{2**31 - 1}"
    low = set_owner(root, 17, 4711)
    try:
        once = mapped(low, there)
    except UsageError:  # an ACL names an id that the range does not hold
        return
    assert not compare_trees(low, mapped(once, back))


def test_ids_in_attributes_are_mapped_too():
    capability = struct.pack("<IIIIII", 0x03000001, 1 << 10, 0, 0, 0, 100000)
    xattrs = {b"system.posix_acl_access": acl((100007, 6), (100003, 5)), b"security.capability": capability}
    root = Directory(uid=100000, gid=100000, entries={b"f": File(0o640, 100001, 100002, xattrs=xattrs)})
    file = mapped(root, "0:100000:65536").entries[b"f"]
    assert (file.uid, file.gid) == (1, 2)
    assert file.xattrs[b"system.posix_acl_access"] == acl((7, 6), (3, 5))
    assert file.xattrs[b"security.capability"] == struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    kept = mapped(root, "5:100000:65536").entries[b"f"].xattrs[b"security.capability"]
    assert kept == capability[:20] + struct.pack("<I", 5)


def test_an_acl_stays_in_order_when_its_ids_do_not():
    root = Directory(xattrs={b"system.posix_acl_access": acl((100, 6), (200, 5))})
    made = mapped(root, "0:0:1", "10:100:1", "5:200:1")
    assert made.xattrs[b"system.posix_acl_access"] == acl((5, 5), (10, 6))


def test_users_and_groups_have_maps_of_their_own():
    root = Directory(uid=1000, gid=1000)
    made = mapped(root, "u:0:1000:1", "g:7:1000:1")
    assert (made.uid, made.gid) == (0, 7)
    assert mapped(root, "u:0:1000:1").gid == 1000


@pytest.mark.parametrize(("rule", "expected"), [("keep", 70000), ("65534", 65534)])
def test_ids_that_no_range_covers_follow_the_rule(rule, expected):
    root = Directory(entries={b"f": File(uid=70000)})
    assert mapped(root, "0:0:10", unmapped=rule).entries[b"f"].uid == expected
    with pytest.raises(UsageError, match="/f: user 70000 is in no range"):
        mapped(root, "0:0:10")


def test_two_names_of_an_acl_never_become_one():
    root = Directory(xattrs={b"system.posix_acl_access": acl((8, 6), (9, 5))})
    with pytest.raises(UsageError, match="one of two"):
        mapped(root, "0:0:1", unmapped="9")


@pytest.mark.parametrize(
    "texts",
    [
        ["0:0"],
        ["0:0:0"],
        ["x:0:0:1"],
        ["0:0:4294967296"],
        ["4294967295:0:1"],
        ["0:0:10", "20:5:10"],
        ["0:0:5", "4:9:5"],
    ],
)
def test_maps_that_are_none_are_refused(texts):
    with pytest.raises(UsageError):
        parse_maps(texts, "refuse")


@pytest.mark.parametrize("rule", ["", "no", "-1", "4294967295", "²"])
def test_rules_that_are_none_are_refused(rule):
    with pytest.raises(UsageError):
        parse_maps(["0:0:1"], rule)


@settings(max_examples=40)
@given(trees())
def test_one_owner_for_everything(root):
    stack = [set_owner(root, 3, None)]
    assert stack[0].gid == root.gid
    while stack:
        node = stack.pop()
        assert node.uid == 3
        if isinstance(node, Directory):
            stack.extend(node.entries.values())


def test_a_umask_takes_permissions_but_of_links():
    root = Directory(0o777, entries={b"f": File(0o4666), b"l": Symlink(b"f")})
    made = mask_permissions(root, parse_umask("022"))
    assert made.permissions == 0o755
    assert [made.entries[each].permissions for each in (b"f", b"l")] == [0o4644, 0o777]
    for text in ("", "8", "00222", "-1"):
        with pytest.raises(UsageError):
            parse_umask(text)


def test_permissions_are_an_access_control_list_s_too():
    named = {b"system.posix_acl_access": acl((7, 6))}
    root = Directory(entries={b"f": File(0o775, xattrs=named), b"g": File(0o777, xattrs={b"user.a": b"x"})})
    made = mask_permissions(root, 0o027)
    found = dict(acl_bits(made.entries[b"f"].xattrs[b"system.posix_acl_access"]))
    assert made.entries[b"f"].permissions == 0o750
    assert found == {0x01: 7, 0x02: 6, 0x04: 5, 0x10: 5, 0x20: 0}  # the group's are the mask's
    assert root.entries[b"f"].xattrs is named
    assert made.entries[b"g"].xattrs == {b"user.a": b"x"}


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="this system has no ACLs of that kind")
def test_chmod_makes_the_same_of_an_access_control_list(tmp_path):
    path = tmp_path / "file"
    path.touch()
    try:
        os.setxattr(path, "system.posix_acl_access", acl((7, 6)))
    except OSError:
        pytest.skip("no ACLs on this file system")
    node = File(0o777, xattrs={b"system.posix_acl_access": os.getxattr(path, "system.posix_acl_access")})
    for mode in (0o640, 0o751, 0o007, 0o770):
        path.chmod(mode)
        set_permissions(node, mode)
        assert node.xattrs[b"system.posix_acl_access"] == os.getxattr(path, "system.posix_acl_access")


def acl_bits(value):
    return [(tag, bits) for tag, bits, _ in struct.iter_unpack("<HHI", value[4:])]


def test_owners_are_the_image_s():
    found = accounts(b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n", b"wheel:x:10:\n")
    assert found.owner("web:wheel") == (33, 10)
    assert found.owner("web:") == (33, 34)
    assert found.owner("web") == (33, None)
    assert found.owner(":12") == (None, 12)
    assert found.owner("7:8") == (7, 8)
    assert found.user(b"web").home == b"/var/www"
    for text, message in [("nobody", "user 'nobody'"), ("web:nobody", "group 'nobody'")]:
        with pytest.raises(NotFound, match=message):
            found.owner(text)
    for text in ("", ":", "4294967295", "99999999999"):
        with pytest.raises(UsageError):
            found.owner(text)


def test_lines_of_an_image_s_passwd_that_are_none_are_no_users():
    found = accounts(b"a:x:-1:0::/:\nb:x:1\n\xff\xfe\nc:x:99999999999:0::/:\nd:x:5:6::/d:\nd:x:7:8::/e:\n")
    assert found.user(b"d").uid == 5
    for name in (b"a", b"b", b"c"):
        with pytest.raises(NotFound):
            found.user(name)
