"""POSIX ACLs: the text that archives hold, and the bytes that Linux's getxattr gives.

Text is ``tag:qualifier:permissions`` entries between commas or line ends, optionally with a fourth part that
repeats the qualifier as a number. Bytes are a version word and (tag, permissions, id) of 8 bytes each, little-endian
(``linux/posix_acl_xattr.h``, version 2).

Knows: the two forms. Refuses to know: user names, but root's: whose they are, only the host that packed them knew.
"""

from __future__ import annotations

import struct
from typing import Final

from blockwright.errors import Corrupt, LimitExceeded, Unsupported

MAX_ENTRIES: Final = 4096
"""Entries in one ACL; a file system holds a few hundred."""

_SPEC: Final = "POSIX.1e draft 17, 23.3 ACL text forms"
_SPEC_BINARY: Final = "linux/posix_acl_xattr.h"
_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI").pack
_ENTRIES: Final = struct.Struct("<HHI").iter_unpack
_NO_ID: Final = 0xFFFFFFFF
_USER, _GROUP, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20
_NAMED: Final = {_USER: 0x02, _GROUP: 0x08}
_TAGS: Final = {
    b"user": _USER,
    b"u": _USER,
    b"group": _GROUP,
    b"g": _GROUP,
    b"mask": _MASK,
    b"m": _MASK,
    b"other": _OTHER,
    b"o": _OTHER,
}
_BITS: Final = {ord("r"): 4, ord("w"): 2, ord("x"): 1, ord("-"): 0}


def acl_from_text(text: bytes) -> bytes | None:
    """Return the ACL in Linux's form, or None where it says no more than the mode does (or nothing).

    Raises Corrupt for what is no ACL, Unsupported for a user or group that is given by name alone.
    """
    entries: set[tuple[int, int, int]] = set()
    for line in text.replace(b",", b"\n").split(b"\n"):
        entry = line.partition(b"#")[0].strip()
        if not entry:
            continue
        entries.add(_entry(entry))
        if len(entries) > MAX_ENTRIES:
            raise LimitExceeded(f"ACL: expected at most {MAX_ENTRIES} entries, found more")
    ordered = sorted(entries, key=lambda entry: (entry[0], entry[2]))
    tags = [tag for tag, _, _ in ordered]
    if not ordered:
        return None
    if len({(tag, who) for tag, _, who in ordered}) != len(ordered):
        raise Corrupt("ACL: two entries for one tag and id", spec=_SPEC)
    if not {_USER, _GROUP, _OTHER} <= set(tags):
        raise Corrupt("ACL: expected entries for the owner, the group and others, found one missing", spec=_SPEC)
    if len(ordered) == 3:
        return None
    if _MASK not in tags and set(tags) & set(_NAMED.values()):
        raise Corrupt("ACL: expected a mask beside named entries, found none", spec=_SPEC)
    return _VERSION + b"".join(_ENTRY(*entry) for entry in ordered)


def _entry(entry: bytes) -> tuple[int, int, int]:
    """Return tag, permission bits and id of one entry."""
    parts = entry.split(b":")
    # POSIX lets mask and other go without the empty qualifier.
    if len(parts) == 2:
        parts.insert(1, b"")
    tag = _TAGS.get(parts[0])
    if tag is None or len(parts) not in (3, 4):
        raise Corrupt(f"ACL: expected tag:qualifier:permissions, found {entry[:64]!r}", spec=_SPEC)
    qualifier, letters = parts[1], parts[2]
    if not letters or len(letters) > 3 or not all(letter in _BITS for letter in letters):
        raise Corrupt(f"ACL: expected permissions such as r-x, found {letters[:64]!r}", spec=_SPEC)
    bits = 0
    for letter in letters:
        bits |= _BITS[letter]
    if not qualifier:
        return tag, bits, _NO_ID
    named = _NAMED.get(tag)
    if named is None:
        raise Corrupt(f"ACL: expected no qualifier, found {entry[:64]!r}", spec=_SPEC)
    who = parts[3] if len(parts) == 4 and parts[3] else qualifier
    if who == b"root":
        who = b"0"
    if not who.isdigit():
        raise Unsupported(
            f"ACL: {entry[:64]!r}: names somebody whose number the archive does not say "
            "(GNU tar says it with --xattrs --xattrs-include='*')"
        )
    if len(who) > 10 or int(who) >= _NO_ID:
        raise Corrupt(f"ACL: expected an id below {_NO_ID}, found {who[:32]!r}", spec=_SPEC)
    return named, bits, int(who)


def permissions_of_acl(acl: bytes) -> int:
    """Return the nine permission bits that go with an access ACL in Linux's form: the group's are those of the mask.

    Linux keeps the mode so whenever such a list is set. Raises Corrupt for what is no list.
    """
    if acl[:4] != _VERSION or len(acl) % 8 != 4:
        raise Corrupt(f"ACL: expected version 2 and entries of 8 bytes, found {acl[:16]!r}", spec=_SPEC_BINARY)
    bits: dict[int, int] = {tag: permissions & 7 for tag, permissions, _ in _ENTRIES(acl[4:])}
    if not {_USER, _GROUP, _OTHER} <= bits.keys():
        raise Corrupt(
            "ACL: expected entries for the owner, the group and others, found one missing", spec=_SPEC_BINARY
        )
    return bits[_USER] << 6 | bits.get(_MASK, bits[_GROUP]) << 3 | bits[_OTHER]
