"""Extended attributes as they are stored: in the inode, in a block, and in inodes of their own.

Knows: where they lie, their bounds, hashes and checksums. Refuses to know: what a value means; names and values
come out as they lie on the disk.

Source: Linux 6.1, Documentation/filesystems/ext4 (attributes, checksums, eainode).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc32c_raw
from blockwright.errors import LimitExceeded
from blockwright.fs.ext4.contents import RunReader
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.layout import (
    ACL_VERSION,
    GOOD_OLD_INODE_SIZE,
    XATTR_ENTRY,
    XATTR_HEADER,
    XATTR_MAGIC,
    Incompat,
    InodeFlag,
)
from blockwright.fs.ext4.mapping import block_runs
from blockwright.fs.ext4.volume import Volume
from blockwright.units import KiB, MiB

MAX_VALUE: Final = 64 * KiB
"""Bytes of a value: Linux's XATTR_SIZE_MAX."""
MAX_TOTAL: Final = 64 * MiB
"""Bytes of all values of one inode, which ea_inode lets refer to the same bytes again and again."""
MAX_SHARED: Final = 256
"""Attribute blocks whose attributes are kept for the next inode that shares them."""
INDEX_SYSTEM: Final = 7
"""The prefix of system.data, which is the format's own and not shown."""
ACL_INDEXES: Final = (2, 3)
"""The names that hold an access control list."""
_MAGIC: Final = XATTR_MAGIC.to_bytes(4, "little")
_BLOCK_HEADER: Final = 32
_ENTRY: Final = XATTR_ENTRY.unpack_from
_SPEC: Final = "ext4 attributes"


_ACL_HEADER: Final = Struct("<I")
_ACL_SHORT: Final = Struct("<HH")
_ACL_LONG: Final = Struct("<HHI")
_ACL_WITHOUT_ID: Final = frozenset({0x1, 0x4, 0x10, 0x20})
_ACL_WITH_ID: Final = frozenset({0x2, 0x8})
_NO_ID: Final = 0xFFFFFFFF


class Attribute(NamedTuple):
    """One attribute: the index of its prefix, the rest of its name, and its value on disk."""

    prefix: int
    name: bytes
    value: bytes


def attributes(volume: Volume, inode: Inode, *, strict: bool = False) -> Iterator[Attribute]:
    """Yield an inode's attributes, those in the inode first. Raises Corrupt, Unsupported.

    ``strict`` refuses also an empty value that claims to lie outside, and leaves values in other inodes alone: they
    come out empty.
    """
    body = GOOD_OLD_INODE_SIZE + inode.extra_isize
    raw = inode.raw
    if raw[body : body + 4] == _MAGIC and inode.extra_isize:
        area = raw[body + 4 :]
        yield from _attributes(volume, inode, area, 0, inode.position + body + 4, strict=strict)
    if inode.file_acl:
        yield from _block_attributes(volume, inode, strict=strict)


def _block_attributes(volume: Volume, inode: Inode, *, strict: bool) -> Sequence[Attribute]:
    """Return the attributes of an inode's block; inodes that share a block also share the values in memory."""
    known = volume.shared_attributes.get(inode.file_acl)
    if known is not None and not strict:
        return known
    data = volume.block(inode.file_acl, f"inode {inode.number}: attribute block")
    position = inode.file_acl * volume.block_size
    magic, _refcount, blocks, _hash, checksum = XATTR_HEADER.unpack_from(data)
    if magic != XATTR_MAGIC or blocks != 1:
        message = f"header: expected {XATTR_MAGIC:#x} and 1 block, found {magic:#x} and {blocks}"
        raise _corrupt(volume, inode, message, position)
    if volume.has_checksums and volume.verify:
        expected = attribute_block_checksum(volume.seed, inode.file_acl, data)
        if checksum != expected:
            message = f"checksum: expected {expected:#010x}, found {checksum:#010x}"
            raise _corrupt(volume, inode, message, position + 16)
    found = tuple(_attributes(volume, inode, data, _BLOCK_HEADER, position, strict=strict))
    if not volume.superblock.s_feature_incompat & Incompat.ea_inode:
        if len(volume.shared_attributes) >= MAX_SHARED:
            volume.shared_attributes.clear()
        volume.shared_attributes[inode.file_acl] = found
    return found


def inline_tail(volume: Volume, inode: Inode) -> bytes:
    """Return the value of system.data: what an inode's inline data has beyond the 60 bytes of i_block."""
    body = GOOD_OLD_INODE_SIZE + inode.extra_isize
    raw = inode.raw
    if raw[body : body + 4] == _MAGIC and inode.extra_isize:
        for found in _attributes(volume, inode, raw[body + 4 :], 0, inode.position + body + 4):
            if found.prefix == INDEX_SYSTEM and found.name == b"data":
                return found.value
    return b""


def shown_acl(value: bytes) -> bytes:
    """Return an access control list in the form of getxattr (version 2), from that on disk (version 1).

    On disk, entries for owner, group, mask and others lack the id. A list of another form comes out as it is.
    """
    if len(value) < 4 or _ACL_HEADER.unpack_from(value)[0] != ACL_VERSION:
        return value
    parts, at = [_ACL_HEADER.pack(2)], 4
    while at + 4 <= len(value):
        tag, permissions = _ACL_SHORT.unpack_from(value, at)
        if tag in _ACL_WITHOUT_ID:
            parts.append(_ACL_LONG.pack(tag, permissions, _NO_ID))
            at += 4
        elif tag in _ACL_WITH_ID and at + 8 <= len(value):
            parts.append(value[at : at + 8])
            at += 8
        else:
            return value
    return b"".join(parts) if at == len(value) else value


def attribute_block_checksum(seed: int, block: int, data: bytes) -> int:
    """Return h_checksum of an attribute block, whatever the field holds."""
    return crc32c_raw(seed, block.to_bytes(8, "little") + data[:16] + b"\0\0\0\0" + data[20:])


def entry_hash(name: bytes, value: bytes, *, signed: bool = False) -> int:
    """Return e_hash of an attribute whose value lies beside it; ``name`` is what the entry stores.

    Bytes of the name and little-endian words of the zero-padded value are mixed into a rotating register.
    """
    register = name_hash(name, signed=signed)
    padded = value + bytes(-len(value) % 4)
    for at in range(0, len(padded), 4):
        register = hash_with(register, int.from_bytes(padded[at : at + 4], "little"))
    return register


def name_hash(name: bytes, *, signed: bool = False) -> int:
    """Return the part of e_hash that follows from the name; old kernels on some machines took bytes as signed."""
    register = 0
    for byte in name:
        value = byte - 256 if signed and byte > 127 else byte
        register = (register << 5 ^ register >> 27 ^ value) & 0xFFFFFFFF
    return register


def _corrupt(volume: Volume, inode: Inode, message: str, position: int) -> Exception:
    return volume.corrupt(f"inode {inode.number}: attributes: {message}", position, _SPEC)


def _attributes(
    volume: Volume, inode: Inode, area: bytes, start: int, position: int, *, strict: bool = False
) -> Iterator[Attribute]:
    at, end, total = start, len(area), 0
    while at + 4 <= end and area[at : at + 4] != b"\0\0\0\0":
        if at + 16 > end:
            raise _corrupt(volume, inode, f"entry: expected 16 bytes below {end}, found them at {at}", position + at)
        name_length, index, offset, value_inode, size, hashed = _ENTRY(area, at)
        stop = at + 16 + name_length
        if stop > end:
            raise _corrupt(
                volume, inode, f"name: expected it below byte {end}, found it end at {stop}", position + at
            )
        outside = not value_inode and offset + size > end and (strict or size > 0)
        if size > MAX_VALUE or outside:
            raise _corrupt(
                volume, inode, f"value: expected it below byte {end}, found {size} at {offset}", position + at
            )
        total += size
        if total > MAX_TOTAL:
            raise LimitExceeded(
                f"inode {inode.number}: attributes: expected at most {MAX_TOTAL} bytes, found more",
                source=volume.source,
                offset=position + at,
            )
        name = area[at + 16 : stop]
        if value_inode and strict:
            yield Attribute(index, name, b"")
        elif value_inode:
            yield Attribute(index, name, _value_in_inode(volume, inode, value_inode, size, hashed, name))
        else:
            yield Attribute(index, name, area[offset : offset + size])
        at = stop + 3 & ~3


def _value_in_inode(volume: Volume, owner: Inode, number: int, size: int, hashed: int, name: bytes) -> bytes:
    """Return a value that is the content of inode ``number``, checked against the hash that inode keeps."""
    if not volume.superblock.s_feature_incompat & Incompat.ea_inode:
        raise _corrupt(
            volume, owner, f"value: expected it beside the name, found it in inode {number}", owner.position
        )
    inode = volume.inode(number)
    if not inode.flags & InodeFlag.ea_inode or inode.size != size:
        raise _corrupt(
            volume,
            owner,
            f"value: expected an attribute inode of {size} bytes, found inode {number} of {inode.size} bytes",
            inode.position,
        )
    value = bytearray(size)
    RunReader(volume, block_runs(volume, inode), size).read_into(0, memoryview(value))
    result = bytes(value)
    if volume.verify and not value_inode_holds(volume, owner, inode, result, hashed, name):
        raise _corrupt(
            volume, owner, f"value: expected the hash that inode {number} keeps, found another", inode.position
        )
    return result


def value_inode_holds(volume: Volume, owner: Inode, inode: Inode, value: bytes, hashed: int, name: bytes) -> bool:
    """Whether an attribute inode's value is what its owner means.

    The inode keeps its value's CRC-32C where others keep the time of access, and the entry's hash mixes it with the
    name. An older form instead keeps its one owner's number and generation, in the place of the time of
    modification and in its own generation.
    """
    own = int.from_bytes(inode.raw[0x8:0xC], "little")
    if crc32c_raw(volume.seed, value) == own:
        stored = own.to_bytes(4, "little")
        return any(
            hashed == hash_with(name_hash(name, signed=signed), int.from_bytes(stored, "little"))
            for signed in (False, True)
        )
    return int.from_bytes(inode.raw[0x10:0x14], "little") == owner.number and inode.generation == owner.generation


def hash_with(register: int, word: int) -> int:
    """Return the register with a word of a value mixed in."""
    return (register << 16 ^ register >> 16 ^ word) & 0xFFFFFFFF
