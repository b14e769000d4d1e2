"""Extended attributes judged: room, overlap, hashes, checksums, and the inodes that hold large values.

Knows: the rules in an inode and in a block. Refuses to know: how often a block or a value's inode is met in all;
that is compared in the end (``finish``).

Source: Linux 6.1, Documentation/filesystems/ext4 (attributes, eainode, checksums).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

from blockwright.fs.ext4.check.state import AttributeBlock, State
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.layout import (
    GOOD_OLD_INODE_SIZE,
    XATTR_ENTRY,
    XATTR_HEADER,
    XATTR_MAGIC,
    Compat,
    InodeFlag,
    ReservedInode,
)
from blockwright.fs.ext4.xattr_read import attribute_block_checksum, entry_hash, hash_with, name_hash

_MAGIC: Final = XATTR_MAGIC.to_bytes(4, "little")
_ENTRY: Final = XATTR_ENTRY.unpack_from
_HEADER_SIZE: Final = 32
_ENTRY_SIZE: Final = 16


class Usage(NamedTuple):
    """What attributes cost their inode: clusters, and inodes that hold values."""

    clusters: int
    inodes: int


class _Area:
    """Bytes of which no two parts may overlap, because each attribute owns its entry and its value."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._starts: list[int] = []
        self._ends: list[int] = []

    def take(self, start: int, length: int) -> bool:
        """Take a part; return whether it lies inside and was free."""
        end = start + length
        at = bisect_right(self._starts, start)
        if (
            end > self.size
            or (at and self._ends[at - 1] > start)
            or (at < len(self._starts) and self._starts[at] < end)
        ):
            return False
        self._starts.insert(at, start)
        self._ends.insert(at, end)
        return True


def in_inode(state: State, inode: Inode) -> Usage:
    """Check the attributes behind an inode's fields."""
    body = GOOD_OLD_INODE_SIZE + inode.extra_isize
    if inode.extra_isize >= len(inode.raw) - GOOD_OLD_INODE_SIZE - 4 or inode.raw[body : body + 4] != _MAGIC:
        return Usage(0, 0)
    header = inode.raw[body:]
    area = _Area(len(header))
    area.take(0, 4)
    return _entries(state, inode, header, 4, 4, area, inode.position + body, remain=len(header) - 4)


def in_block(state: State, inode: Inode) -> Usage:
    """Check the attribute block of an inode, once for all inodes that share it, and count the reference."""
    block, volume = inode.file_acl, state.volume
    if not block:
        return Usage(0, 0)
    geo = volume.geometry
    if not state.compat(Compat.ext_attr) or not max(1, geo.first_data_block) <= block < geo.blocks_count:
        if inode.number < volume.superblock.first_ino and inode.number != ReservedInode.root:
            return Usage(0, 0)  # no name leads there, so nobody looks for its attributes
        _report(
            state, inode, "block", f"expected a block below {geo.blocks_count}, found {block}", inode.position + 0x68
        )
        return Usage(0, 0)
    known = state.attribute_blocks.get(block)
    if known is not None:
        known.met += 1
        return Usage(known.clusters, known.inodes)
    data = volume.blocks(block, 1, "attribute block")
    position = block * volume.block_size
    magic, references, blocks, _hash, checksum = XATTR_HEADER.unpack_from(data)
    if magic != XATTR_MAGIC:
        _report(state, inode, "header", f"expected magic {XATTR_MAGIC:#x}, found {magic:#x}", position)
    if blocks != 1:
        _report(state, inode, "header", f"expected 1 block, found {blocks}", position + 8)
    if volume.has_checksums:
        expected = attribute_block_checksum(volume.seed, block, data)
        if checksum != expected:
            _report(state, inode, "checksum", f"expected {expected:#010x}, found {checksum:#010x}", position + 16)
    area = _Area(len(data))
    area.take(0, _HEADER_SIZE)
    usage = _entries(state, inode, data, _HEADER_SIZE, 0, area, position, remain=None)
    state.claims.add((block - geo.first_data_block) // geo.cluster_blocks, 1, inode.number)
    found = AttributeBlock(stated=references, met=1, clusters=usage.clusters + 1, inodes=usage.inodes)
    state.attribute_blocks[block] = found
    return Usage(found.clusters, found.inodes)


def _report(state: State, inode: Inode, rule: str, message: str, offset: int) -> None:
    state.report("attribute." + rule, f"inode {inode.number}: attributes: {message}", offset)


def _entries(
    state: State, inode: Inode, data: bytes, at: int, base: int, area: _Area, position: int, *, remain: int | None
) -> Usage:
    """Check entries from ``at`` on, with values from ``base`` on; ``remain`` is an inode's room, None in a block."""
    clusters = inodes = 0
    end = len(data)
    while at + 4 <= end and (remain is None or remain >= _ENTRY_SIZE) and data[at : at + 4] != b"\0\0\0\0":
        if at + _ENTRY_SIZE > end:
            _report(state, inode, "entry", f"expected 16 bytes below {end}, found them at {at}", position + at)
            break
        name_length, index, offset, value_inode, size, hashed = _ENTRY(data, at)
        length = _ENTRY_SIZE + (name_length + 3 & ~3)
        if not area.take(at, length):
            _report(
                state, inode, "overlap", f"entry at byte {at}: expected free room of {length} bytes", position + at
            )
            break
        if remain is None:
            if not index:
                _report(state, inode, "name", "expected a prefix, found 0", position + at + 1)
                break
        else:
            remain -= length
            if remain < 0 or (not value_inode and size > remain):
                _report(
                    state, inode, "room", f"expected entries and values to fit, found {size} too many", position + at
                )
                break
            remain -= 0 if value_inode else size
        name = data[at + _ENTRY_SIZE : at + _ENTRY_SIZE + name_length]
        if value_inode:
            clusters += _value_inode(state, inode, value_inode, size, hashed, name, position + at)
            inodes += 1
        elif not _value(
            state, inode, data, base, area, name, (offset, size, hashed), position + at, inner=remain is not None
        ):
            break
        at += length
    else:
        if not area.take(at, 4):
            _report(state, inode, "end", f"expected an empty entry at byte {at}, found no room for it", position + at)
    return Usage(clusters, inodes)


def _value(
    state: State,
    inode: Inode,
    data: bytes,
    base: int,
    area: _Area,
    name: bytes,
    found: tuple[int, int, int],
    position: int,
    *,
    inner: bool,
) -> bool:
    """Check a value that lies beside its entry; return whether its place makes sense."""
    offset, size, hashed = found
    start = base + offset
    if (size or not inner) and start + size > len(data):
        _report(state, inode, "value", f"expected it below byte {len(data)}, found {size} at {start}", position + 2)
        return False
    if size and not area.take(start, size + 3 & ~3):
        _report(state, inode, "overlap", f"value at byte {start}: expected free room of {size} bytes", position + 2)
        if inner:
            return False
    value = data[start : start + (size + 3 & ~3)]  # the padding counts as it is
    expected = entry_hash(name, value)
    if hashed != expected and hashed != entry_hash(name, value, signed=True) and (hashed or not inner):
        _report(state, inode, "hash", f"expected {expected:#010x}, found {hashed:#010x}", position + 12)
    return True


def _value_inode(state: State, owner: Inode, number: int, size: int, hashed: int, name: bytes, position: int) -> int:
    """Check a value that lies in an inode of its own, count the reference, and return its clusters."""
    volume, geo = state.volume, state.volume.geometry
    if not volume.superblock.first_ino <= number <= geo.inodes_count:
        _report(
            state, owner, "value-inode", f"expected an inode up to {geo.inodes_count}, found {number}", position + 4
        )
        return 0
    state.attribute_inodes[number] = state.attribute_inodes.get(number, 0) + 1
    inode = volume.inode(number)
    kept = int.from_bytes(inode.raw[0x8:0xC], "little")
    clusters = -(-size // (volume.block_size * geo.cluster_blocks))
    if hashed not in {hash_with(name_hash(name, signed=signed), kept) for signed in (False, True)}:
        old_form = int.from_bytes(inode.raw[0x10:0x14], "little") == owner.number
        if not old_form or inode.generation != owner.generation:
            _report(state, owner, "hash", f"expected that of inode {number}, found {hashed:#010x}", position + 12)
        clusters = 0
    if not inode.flags & InodeFlag.ea_inode:
        _report(
            state, owner, "value-inode", f"expected inode {number} marked as a value, found it is not", position + 4
        )
    return clusters


def finish(state: State) -> None:
    """Compare how often attribute blocks say they are shared with how often they were met."""
    for block, found in state.attribute_blocks.items():
        if found.stated != found.met:
            state.report(
                "attribute.references",
                f"attribute block {block}: expected {found.met} references, found {found.stated}",
                block * state.volume.block_size + 4,
                repairable=True,
            )
