"""Whose files they are: ids from one user namespace to another, one owner for everything, permissions masked.

Ids that are kept in extended attributes are mapped too: users and groups that a POSIX ACL names, and the root user
that a file's capabilities are for.

Knows: where ids are. Refuses to know: names.

Source: Linux, user_namespaces(7), include/uapi/linux/posix_acl_xattr.h, include/uapi/linux/capability.h.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from blockwright.errors import UsageError
from blockwright.tree.changes.edit import show_path
from blockwright.tree.changes.options import REFUSE
from blockwright.tree.node import MAX_ID, Directory, Node, Symlink
from blockwright.tree.rebuild import copy_node, rebuild, with_metadata

MAX_RANGES: Final = 340
"""Ranges of one map, as in Linux."""
KEEP: Final = "keep"

_ACLS: Final = (b"system.posix_acl_access", b"system.posix_acl_default")
_CAPABILITY: Final = b"security.capability"
_ACL_ENTRY: Final = struct.Struct("<HHI")
_ACL_OWNER, _ACL_USER, _ACL_GROUP_OWNER, _ACL_GROUP, _ACL_MASK, _ACL_OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_REVISION_2, _REVISION_3 = 0x02000000, 0x03000000


class IdRange(NamedTuple):
    """``length`` ids: from ``source`` on in the source, from ``first`` on in what is made of it."""

    first: int
    source: int
    length: int


class IdMap:
    """Ranges of users or of groups. ``unmapped`` is the rule for other ids: ``refuse``, ``keep`` or a number."""

    def __init__(self, ranges: Sequence[IdRange], unmapped: str, what: str) -> None:
        self._what = what
        self._ranges = sorted(ranges, key=lambda each: each.source)
        self._starts = [each.source for each in self._ranges]
        self._known: dict[int, int] = {}
        self._rule = unmapped
        if len(ranges) > MAX_RANGES:
            raise UsageError(f"map of {what}s: expected at most {MAX_RANGES} ranges, found {len(ranges)}")
        for field in ("source", "first"):
            ordered = sorted(ranges, key=lambda each: int(getattr(each, field)))
            for low, high in pairwise(ordered):
                if getattr(low, field) + low.length > getattr(high, field):
                    raise UsageError(f"map of {what}s: expected ranges apart, found {_text(low)} and {_text(high)}")

    def get(self, number: int, path: bytes) -> int:
        """Return what an id becomes. Raises UsageError, naming ``path``, where no range covers it and none may."""
        found = self._known.get(number)
        if found is None:
            found = self._known[number] = self._look(number, path)
        return found

    def _look(self, number: int, path: bytes) -> int:
        index = bisect_right(self._starts, number) - 1
        if index >= 0:
            first, source, length = self._ranges[index]
            if number < source + length:
                return first + number - source
        if self._rule == KEEP or not self._ranges:
            return number
        if self._rule == REFUSE:
            raise UsageError(
                f"{show_path(path)}: {self._what} {number} is in no range of the map: expected one that covers it, or"
                " --unmapped"
            )
        return int(self._rule)


def parse_maps(texts: Sequence[str], unmapped: str) -> tuple[IdMap, IdMap]:
    """Return the maps of users and of groups. Each text is ``[u:|g:]FIRST:FIRST_IN_SOURCE:COUNT``; without a letter
    it is for both. What no range is given for stays. Raises UsageError.
    """
    if unmapped not in (REFUSE, KEEP) and not (unmapped.isascii() and unmapped.isdigit() and int(unmapped) <= MAX_ID):
        raise UsageError(f"unmapped ids: expected refuse, keep or a number, found {unmapped[:64]!r}")
    users: list[IdRange] = []
    groups: list[IdRange] = []
    for text in texts:
        match = re.fullmatch(r"(?:([ug]):)?([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10})", text)
        if match is None:
            raise UsageError(f"map of ids: expected FIRST:FIRST_IN_SOURCE:COUNT, found {text[:64]!r}")
        found = IdRange(*(int(each) for each in match.groups()[1:]))
        if not found.length or max(found.first, found.source) + found.length - 1 > MAX_ID:
            raise UsageError(f"map of ids: expected a range of ids up to {MAX_ID}, found {text[:64]!r}")
        if match[1] != "g":
            users.append(found)
        if match[1] != "u":
            groups.append(found)
    return IdMap(users, unmapped, "user"), IdMap(groups, unmapped, "group")


def map_ids(root: Directory, users: IdMap, groups: IdMap) -> Directory:
    """Return the tree with every id as the maps say. Raises UsageError for one that they do not cover."""

    def change(path: bytes, node: Node) -> Node:
        uid, gid = users.get(node.uid, path), groups.get(node.gid, path)
        xattrs = node.xattrs and _mapped_xattrs(node.xattrs, users, groups, path)
        if (uid, gid) == (node.uid, node.gid) and xattrs is node.xattrs:
            return node
        return copy_node(node, node.permissions, uid, gid, node.mtime_ns, xattrs)

    return rebuild(root, change)


def set_owner(root: Directory, uid: int | None, gid: int | None) -> Directory:
    """Return the tree with one user and group for everything; None keeps what each node has."""

    def change(_path: bytes, node: Node) -> Node:
        user, group = node.uid if uid is None else uid, node.gid if gid is None else gid
        if (user, group) == (node.uid, node.gid):
            return node
        return copy_node(node, node.permissions, user, group, node.mtime_ns, node.xattrs)

    return rebuild(root, change)


def parse_umask(text: str) -> int:
    """Return the permission bits of an octal text such as ``022``. Raises UsageError."""
    if not re.fullmatch(r"[0-7]{1,4}", text):
        raise UsageError(f"umask: expected octal digits such as 022, found {text[:32]!r}")
    return int(text, 8)


def mask_permissions(root: Directory, umask: int) -> Directory:
    """Return the tree without the permissions in ``umask``; those of symbolic links mean nothing and stay."""

    def change(_path: bytes, node: Node) -> Node:
        permissions = node.permissions & ~umask
        if permissions == node.permissions or isinstance(node, Symlink):
            return node
        made = with_metadata(node)
        set_permissions(made, permissions)
        return made

    return rebuild(root, change)


def set_permissions(node: Node, permissions: int) -> None:
    """Change a node's permissions in place, and the access control list that says them too, as chmod(2) does.

    The group's permissions are the list's mask where it has one.
    """
    node.permissions = permissions
    value = node.xattrs.get(_ACLS[0])
    if value is None or not _is_acl(value):
        return
    entries = list(_ACL_ENTRY.iter_unpack(value[4:]))
    group = _ACL_MASK if any(tag == _ACL_MASK for tag, _, _ in entries) else _ACL_GROUP_OWNER
    bits = {_ACL_OWNER: permissions >> 6 & 7, group: permissions >> 3 & 7, _ACL_OTHER: permissions & 7}
    changed = b"".join([_ACL_ENTRY.pack(tag, bits.get(tag, old), number) for tag, old, number in entries])
    node.xattrs = {**node.xattrs, _ACLS[0]: value[:4] + changed}


def _is_acl(value: bytes) -> bool:
    return len(value) >= 4 and value[:4] == b"\2\0\0\0" and (len(value) - 4) % 8 == 0


def _mapped_xattrs(xattrs: Mapping[bytes, bytes], users: IdMap, groups: IdMap, path: bytes) -> Mapping[bytes, bytes]:
    changed: dict[bytes, bytes] = {}
    for name in _ACLS:
        value = xattrs.get(name)
        if value is not None:
            changed[name] = _mapped_acl(value, users.get, groups.get, path)
    capability = xattrs.get(_CAPABILITY)
    if capability is not None:
        changed[_CAPABILITY] = _mapped_capability(capability, users, path)
    return xattrs if all(xattrs[name] == value for name, value in changed.items()) else {**xattrs, **changed}


def _mapped_acl(
    value: bytes, users: Callable[[int, bytes], int], groups: Callable[[int, bytes], int], path: bytes
) -> bytes:
    """Return a POSIX ACL (version 2, as getxattr gives it) with the users and groups that it names mapped."""
    if not _is_acl(value):
        return value  # whoever writes it down says what is wrong with it
    entries = []
    for tag, bits, number in _ACL_ENTRY.iter_unpack(value[4:]):
        mapped = users(number, path) if tag == _ACL_USER else groups(number, path) if tag == _ACL_GROUP else number
        entries.append((tag, mapped, bits))
    entries.sort()  # as Linux wants them
    named = [(tag, number) for tag, number, _ in entries if tag in (_ACL_USER, _ACL_GROUP)]
    if len(set(named)) < len(named):
        raise UsageError(f"{show_path(path)}: the map makes one of two ids that its access control list names")
    return value[:4] + b"".join(_ACL_ENTRY.pack(tag, bits, number) for tag, number, bits in entries)


def _mapped_capability(value: bytes, users: IdMap, path: bytes) -> bytes:
    """Return file capabilities with the root user of revision 3 mapped; the namespace's own root is revision 2."""
    if len(value) != 24:
        return value
    (magic,) = struct.unpack_from("<I", value)
    if magic & 0xFF000000 != _REVISION_3:
        return value
    root = users.get(struct.unpack_from("<I", value, 20)[0], path)
    if root == 0:
        return struct.pack("<I", _REVISION_2 | magic & 0x00FFFFFF) + value[4:20]
    return value[:20] + struct.pack("<I", root)


def _text(each: IdRange) -> str:
    return f"{each.first}:{each.source}:{each.length}"
