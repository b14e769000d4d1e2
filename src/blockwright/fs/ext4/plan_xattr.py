"""Extended attributes as they are written: behind the inode's fields first, the rest in one block.

Knows: name indexes, hashes, the order of entries, and the two forms of an access control list.
Refuses to know: nodes, and where the block goes.

Source: Linux 6.1, Documentation/filesystems/ext4/attributes.rst; acl(5) for the tags of an access control list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc32c_raw
from blockwright.errors import UsageError
from blockwright.fs.ext4.layout import ACL_VERSION, XATTR_ENTRY, XATTR_HEADER, XATTR_MAGIC, XATTR_PREFIXES

BODY_SIZE: Final = 96
"""Bytes for attributes in an inode of 256 bytes, behind the 32 extra ones."""
MAX_SHARED: Final = 1024
"""Inodes that may share a block of attributes, as in Linux."""

_MAGIC: Final = XATTR_MAGIC.to_bytes(4, "little")
_END: Final = 4
"""Bytes of zeros that end the entries."""

_ACL_INDEXES: Final = (2, 3)
_ACL_HEADER: Final = Struct("<I")
_ACL_SHORT: Final = Struct("<HH")
_ACL_LONG: Final = Struct("<HHI")
_ACL_SHOWN_VERSION: Final = 2
_ACL_NAMED: Final = frozenset({0x2, 0x8})
_ACL_UNNAMED: Final = frozenset({0x1, 0x4, 0x10, 0x20})

_WHOLE_NAMES: Final = {name: index for index, name in XATTR_PREFIXES.items() if not name.endswith(b".")}
_DOTTED: Final = [(name, index) for index, name in XATTR_PREFIXES.items() if name.endswith(b".")]


class Packed(NamedTuple):
    """A node's attributes: 96 bytes for its inode, and a block without its checksum or reference count, or None."""

    body: bytes
    block: bytes | None


class Attribute(NamedTuple):
    """An attribute as it is stored: the index of its prefix, the rest of its name, and its value.

    A value of ``length`` bytes that is the content of inode ``outside`` is empty here; ``hashed`` is then its e_hash.
    """

    kind: int
    suffix: bytes
    value: bytes
    outside: int = 0
    length: int = 0
    hashed: int = 0

    @property
    def entry_size(self) -> int:
        """The bytes of the entry."""
        return XATTR_ENTRY.size + len(self.suffix) + 3 & ~3

    @property
    def size(self) -> int:
        """The bytes of the entry and of the value beside it."""
        return self.entry_size + (len(self.value) + 3 & ~3)

    @property
    def order(self) -> tuple[int, int, bytes]:
        """The key that a block's entries are sorted by."""
        return self.kind, len(self.suffix), self.suffix


NO_BODY: Final = bytes(BODY_SIZE)


def pack_xattrs(xattrs: Mapping[bytes, bytes], block_size: int, body_room: int = BODY_SIZE) -> Packed:
    """Return the attributes in both places. Raises UsageError for names ext4 has no index for, and if too large.

    ``body_room`` is how many bytes there are in the inode: all that follow its fields, or none.
    """
    attributes = sorted((stored_attribute(name, value) for name, value in xattrs.items()), key=lambda one: one.order)
    room = body_room - len(_MAGIC) - _END
    inside, outside = [], []
    for attribute in attributes:
        if attribute.size <= room:
            room -= attribute.size
            inside.append(attribute)
        else:
            outside.append(attribute)
    body = _MAGIC + pack_entries(inside, BODY_SIZE - len(_MAGIC), 0, hashed=False) if inside else NO_BODY
    if not outside:
        return Packed(body, None)
    need = XATTR_HEADER.size + _END + sum(attribute.size for attribute in outside)
    if need > block_size:
        raise UsageError(
            f"extended attributes: expected at most one block of {block_size} bytes, found {need} bytes, of which "
            f"{largest(outside)}"
        )
    entries = pack_entries(outside, block_size - XATTR_HEADER.size, XATTR_HEADER.size, hashed=True)
    return Packed(body, XATTR_HEADER.pack(XATTR_MAGIC, 0, 1, block_hash(outside), 0) + entries)


def largest(attributes: Iterable[Attribute]) -> str:
    """Return which attribute takes the most, and how much, for a message."""
    found = max(attributes, key=lambda one: one.size)
    return f"{ascii(XATTR_PREFIXES.get(found.kind, b'') + found.suffix)[2:-1]} takes {found.size}"


def finish_block(block: bytes, references: int, place: int, seed: int | None) -> bytes:
    """Return a block of ``pack_xattrs`` with its count and its checksum, which covers where it lies.

    ``seed`` starts the checksum; None for none.
    """
    magic, _, blocks, total, _ = XATTR_HEADER.unpack_from(block)
    counted = XATTR_HEADER.pack(magic, references, blocks, total, 0) + block[XATTR_HEADER.size :]
    checksum = 0 if seed is None else crc32c_raw(seed, place.to_bytes(8, "little") + counted)
    return XATTR_HEADER.pack(magic, references, blocks, total, checksum) + block[XATTR_HEADER.size :]


def stored_attribute(name: bytes, value: bytes) -> Attribute:
    """Return an attribute of getxattr's form as it is stored. Raises UsageError for what ext4 has no form for."""
    index, suffix = _WHOLE_NAMES.get(name), b""
    if index is None:
        for prefix, number in _DOTTED:
            if name.startswith(prefix) and len(name) > len(prefix):
                index, suffix = number, name[len(prefix) :]
                break
        else:
            raise UsageError(
                f"extended attribute {ascii(name)[2:-1]}: expected a name in user, trusted, security or system"
            )
    if len(suffix) > 255 or b"\0" in suffix:
        raise UsageError(f"extended attribute {ascii(name)[2:-1]}: expected a name of at most 255 bytes without NUL")
    return Attribute(index, suffix, stored_acl(value) if index in _ACL_INDEXES else value)


def pack_entries(attributes: list[Attribute], size: int, base: int, *, hashed: bool) -> bytes:
    """Return ``size`` bytes, entries from the front and values from the back; offsets count from ``base`` before."""
    entries, values, end = [], [], size
    for attribute in attributes:
        padded = attribute.value + bytes(-len(attribute.value) % 4)
        end -= len(padded)
        values.append(padded)
        entry = XATTR_ENTRY.pack(
            len(attribute.suffix),
            attribute.kind,
            base + end if padded else 0,
            attribute.outside,
            attribute.length if attribute.outside else len(attribute.value),
            _entry_hash(attribute) if hashed or attribute.outside else 0,
        )
        entries.append((entry + attribute.suffix).ljust(attribute.entry_size, b"\0"))
    front, back = b"".join(entries), b"".join(reversed(values))
    return front + bytes(size - len(front) - len(back)) + back


def _entry_hash(attribute: Attribute) -> int:
    if attribute.outside:
        return attribute.hashed
    value = 0
    for byte in attribute.suffix:
        value = (value << 5 ^ value >> 27 ^ byte) & 0xFFFFFFFF
    padded = attribute.value + bytes(-len(attribute.value) % 4)
    for word in memoryview(padded).cast("I") if _NATIVE_LITTLE else _words(padded):
        value = (value << 16 ^ value >> 16 ^ word) & 0xFFFFFFFF
    return value


_NATIVE_LITTLE: Final = memoryview(b"\1\0\0\0").cast("I")[0] == 1


def _words(data: bytes) -> Iterable[int]:
    return (word for (word,) in Struct("<I").iter_unpack(data))


def block_hash(attributes: list[Attribute]) -> int:
    """Return h_hash of a block that holds the attributes, 0 where one of them has none."""
    value = 0
    for attribute in attributes:
        part = _entry_hash(attribute)
        if not part:
            return 0
        value = (value << 16 ^ value >> 16 ^ part) & 0xFFFFFFFF
    return value


def stored_acl(value: bytes) -> bytes:
    """Return an access control list as ext4 keeps it, from the form that getxattr gives.

    On disk, entries that name nobody lack the id. Raises UsageError for what is no such list.
    """
    if len(value) < _ACL_HEADER.size or (len(value) - _ACL_HEADER.size) % _ACL_LONG.size:
        raise UsageError(f"access control list: expected 4 bytes and 8 for each entry, found {len(value)} bytes")
    (version,) = _ACL_HEADER.unpack_from(value)
    if version != _ACL_SHOWN_VERSION:
        raise UsageError(f"access control list: expected version {_ACL_SHOWN_VERSION}, found {version}")
    parts = [_ACL_HEADER.pack(ACL_VERSION)]
    for tag, permissions, identity in _ACL_LONG.iter_unpack(value[_ACL_HEADER.size :]):
        if tag in _ACL_NAMED:
            parts.append(_ACL_LONG.pack(tag, permissions, identity))
        elif tag in _ACL_UNNAMED:
            parts.append(_ACL_SHORT.pack(tag, permissions))
        else:
            raise UsageError(f"access control list: expected a known tag, found {tag:#x}")
    return b"".join(parts)
