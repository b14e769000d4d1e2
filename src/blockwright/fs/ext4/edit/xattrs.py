"""Extended attributes while they are changed: all of an inode's are read, one is changed, and all are stored again.

In the inode first, the rest in a block of its own; a block that other inodes share is left to them. Where the file
system has ea_inode, a value too large for a block goes to an inode.

Knows: where attributes lie and who counts them. Refuses to know: what values mean (``plan_xattr`` knows their form).

Source: Linux 6.1, Documentation/filesystems/ext4 (attributes, eainode, checksums).
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc32c_raw
from blockwright.errors import NoSpace, NotFound, UsageError
from blockwright.fs.ext4.edit.blockmap import BlockMap
from blockwright.fs.ext4.edit.bodies import Bodies
from blockwright.fs.ext4.edit.inodes import Draft, InodeTable
from blockwright.fs.ext4.edit.space import Space
from blockwright.fs.ext4.edit.superblock import LiveSuperblock
from blockwright.fs.ext4.inode import S_IFREG
from blockwright.fs.ext4.layout import XATTR_ENTRY, XATTR_HEADER, XATTR_MAGIC, Compat, Incompat, InodeFlag
from blockwright.fs.ext4.plan_xattr import (
    Attribute,
    block_hash,
    finish_block,
    largest,
    pack_entries,
    stored_attribute,
)
from blockwright.fs.ext4.xattr_read import INDEX_SYSTEM, MAX_VALUE, attributes, hash_with, name_hash
from blockwright.units import ceil_div

INLINE_DATA: Final = (INDEX_SYSTEM, b"data")
_ACL_ACCESS: Final = 2
_OWNER, _GROUP, _MASK, _OTHER = 0x1, 0x4, 0x10, 0x20
_NAMED_TAGS: Final = frozenset({0x2, 0x8})
_TAG: Final = Struct("<H")
_MAGIC: Final = XATTR_MAGIC.to_bytes(4, "little")
_END: Final = 4
"""Bytes of zeros that end the entries."""


class _Found(NamedTuple):
    """An inode's attributes: those within it, those of its block, and whether other inodes share the block."""

    inside: list[Attribute]
    block: list[Attribute]
    shared: bool

    @property
    def all(self) -> list[Attribute]:
        return self.inside + self.block


class Attributes:
    """The extended attributes of a file system's inodes. The caller saves the drafts."""

    def __init__(
        self, superblock: LiveSuperblock, space: Space, inodes: InodeTable, maps: BlockMap, bodies: Bodies
    ) -> None:
        transaction = bodies.transaction
        self._superblock = superblock
        self._transaction = transaction
        self._volume = transaction.volume
        self._space = space
        self._inodes = inodes
        self._maps = maps
        self._bodies = bodies
        self._outside = bool(self._volume.superblock.s_feature_incompat & Incompat.ea_inode)

    def set_all(self, draft: Draft, values: Mapping[bytes, bytes], now_ns: int) -> None:
        """Give a new inode its attributes. Raises UsageError, NoSpace."""
        if values:
            found = [self._checked(stored_attribute(name, value), name, now_ns) for name, value in values.items()]
            self._change(draft, _Found([], [], shared=False), found, now_ns)

    def set(self, draft: Draft, name: bytes, value: bytes | None, now_ns: int) -> None:
        """Set or, with None, remove an attribute. Raises UsageError, NoSpace, NotFound."""
        new = stored_attribute(name, b"" if value is None else value) if value is not None else _named(name)
        before = self._load(draft)
        kept = [each for each in before.all if (each.kind, each.suffix) != (new.kind, new.suffix)]
        if value is None and len(kept) == len(before.all):
            raise NotFound(f"inode {draft.number}: has no extended attribute {ascii(name)[2:-1]}")
        if value is not None:
            kept.append(self._checked(new, name, now_ns))
        self._change(draft, before, kept, now_ns)

    def follow_permissions(self, draft: Draft, permissions: int, now_ns: int) -> None:
        """Have an access control list say what the permissions say: of the owner, the others, and mask or group."""
        before = self._load(draft) if draft.file_acl or len(draft.raw) > draft.body_start else None
        if before is None:
            return
        kept = [
            each._replace(value=_with_permissions(each.value, permissions)) if each.kind == _ACL_ACCESS else each
            for each in before.all
        ]
        if kept != before.all:
            self._change(draft, before, kept, now_ns)

    def release(self, draft: Draft, now_ns: int) -> None:
        """Give back what an inode's attributes take, before the inode itself goes."""
        if not draft.file_acl and len(draft.raw) <= draft.body_start:
            return
        if self._outside:
            before = self._load(draft)
            for each in before.inside if before.shared else before.all:
                if each.outside:
                    self._release_value(each.outside, now_ns)
        if draft.file_acl:
            self._drop_block(draft)

    def drop_inline(self, draft: Draft, now_ns: int) -> None:
        """Remove what an inode's own content has among its attributes."""
        before = self._load(draft)
        kept = [each for each in before.all if (each.kind, each.suffix) != INLINE_DATA]
        if len(kept) != len(before.all):
            self._change(draft, before, kept, now_ns)

    def _change(self, draft: Draft, before: _Found, kept: list[Attribute], now_ns: int) -> None:
        """Store what is kept, and count the owners of values in inodes; those of a shared block are the block's."""
        self._store(draft, kept)
        self._inodes.add_blocks(draft, self._outside_blocks(kept) - self._outside_blocks(before.all))
        for each in before.inside:
            if each.outside and each not in kept:
                self._release_value(each.outside, now_ns)
        for each in before.block:
            if each.outside and each in kept and before.shared:
                self._retain_value(each.outside)
            elif each.outside and each not in kept and not before.shared:
                self._release_value(each.outside, now_ns)

    # -- reading ---------------------------------------------------------------------------------------------

    def _load(self, draft: Draft) -> _Found:
        """Return all of an inode's attributes as they are stored. Raises Corrupt."""
        inode = draft.inode()
        for _ in attributes(self._volume, inode, strict=True):  # judges every bound and checksum
            pass
        start = draft.body_start
        body: list[Attribute] = []
        if inode.raw[start : start + 4] == _MAGIC and inode.extra_isize:
            body = _parse(inode.raw[start + 4 :], 0)
        if not draft.file_acl:
            return _Found(body, [], shared=False)
        data = self._volume.block(draft.file_acl, f"inode {draft.number}: attribute block")
        return _Found(body, _parse(data, XATTR_HEADER.size), shared=self._references(draft) > 1)

    def _checked(self, attribute: Attribute, name: bytes, now_ns: int) -> Attribute:
        """Return an attribute as it can be stored: with its value in an inode where that is too large."""
        size, shown = len(attribute.value), ascii(name)[2:-1]
        if size > MAX_VALUE:
            raise UsageError(f"extended attribute {shown}: expected at most {MAX_VALUE} bytes, found {size}")
        if XATTR_HEADER.size + attribute.size + _END <= self._volume.block_size:
            return attribute
        if not self._outside:
            raise NoSpace(
                f"extended attribute {shown}: expected at most {self._volume.block_size} bytes, found {size}"
            )
        return self._value_inode(attribute, now_ns)

    # -- storing ---------------------------------------------------------------------------------------------

    def _store(self, draft: Draft, found: list[Attribute]) -> None:
        """Put attributes into the inode as far as they fit, and the rest into its block."""
        if found:
            self._superblock.need(compat=Compat.ext_attr)
        found = sorted(found, key=lambda one: ((one.kind, one.suffix) != INLINE_DATA, one.order))
        start = draft.body_start
        size = len(draft.raw) - start - len(_MAGIC) if draft.fields.i_extra_isize else 0
        room = size - _END
        inside: list[Attribute] = []
        outside: list[Attribute] = []
        for each in found:
            if each.size <= room:
                room -= each.size
                inside.append(each)
            else:
                outside.append(each)
        if size > 0:
            body = _MAGIC + pack_entries(inside, size, 0, hashed=False) if inside else bytes(size + len(_MAGIC))
            draft.put_body(body)
        self._store_block(draft, outside)

    def _store_block(self, draft: Draft, found: list[Attribute]) -> None:
        block_size = self._volume.block_size
        if not found:
            if draft.file_acl:
                self._drop_block(draft)
            return
        need = XATTR_HEADER.size + _END + sum(each.size for each in found)
        if need > block_size:
            raise NoSpace(
                f"extended attributes: expected at most one block of {block_size} bytes, found {need} bytes, "
                f"of which {largest(found)}"
            )
        found.sort(key=lambda one: one.order)
        entries = pack_entries(found, block_size - XATTR_HEADER.size, XATTR_HEADER.size, hashed=True)
        packed = XATTR_HEADER.pack(XATTR_MAGIC, 0, 1, block_hash(found), 0) + entries
        if draft.file_acl and self._references(draft) > 1:
            self._drop_block(draft)
        if not draft.file_acl:
            goal = self._space.goal_of(self._inodes.group_of(draft.number))
            draft.file_acl, _ = self._space.allocate(goal, 1)
            self._inodes.add_blocks(draft, 1)
            block = self._transaction.create(draft.file_acl)
        else:
            block = self._transaction.modify(draft.file_acl, "attribute block")
        block[:] = self._finished(packed, 1, draft.file_acl)

    def _finished(self, packed: bytes, references: int, place: int) -> bytes:
        if self._volume.has_checksums:
            return finish_block(packed, references, place, self._volume.seed)
        return packed[:4] + references.to_bytes(4, "little") + packed[8:]

    def _references(self, draft: Draft) -> int:
        data = self._volume.block(draft.file_acl, f"inode {draft.number}: attribute block")
        return int(XATTR_HEADER.unpack_from(data)[1])

    def _drop_block(self, draft: Draft) -> None:
        """Let go of an inode's block, which others may still use."""
        place = draft.file_acl
        references = self._references(draft)
        if references > 1:
            block = self._transaction.modify(place, "attribute block")
            block[:] = self._finished(bytes(block), references - 1, place)
        else:
            self._space.free(place, 1)
        draft.file_acl = 0
        self._inodes.add_blocks(draft, -1)

    def _outside_blocks(self, found: list[Attribute]) -> int:
        """Return the blocks of values in inodes, which count as their owner's too."""
        return sum(ceil_div(each.length, self._volume.block_size) for each in found if each.outside)

    # -- values in inodes ------------------------------------------------------------------------------------

    def _value_inode(self, attribute: Attribute, now_ns: int) -> Attribute:
        """Put a value into an inode of its own, which keeps the value's sum and how many refer to it."""
        draft = self._inodes.allocate(int(self._volume.superblock.first_ino), directory=False)
        fields = draft.fields
        fields.i_mode, fields.i_links_count = S_IFREG | 0o600, 1
        self._maps.start(draft)
        fields.i_flags |= InodeFlag.ea_inode.real
        value = attribute.value
        runs = self._bodies.place_bytes(value, self._space.goal_of(self._inodes.group_of(draft.number)))
        self._maps.replace(draft, 0, ceil_div(len(value), self._volume.block_size), runs, before=())
        draft.size = len(value)
        draft.set_time("mtime", now_ns)
        checksum = crc32c_raw(self._volume.seed, value)
        fields.i_atime, fields.i_ctime, fields.i_version = checksum, 0, 1
        self._inodes.save(draft)
        hashed = hash_with(name_hash(attribute.suffix), checksum)
        return attribute._replace(value=b"", outside=draft.number, length=len(value), hashed=hashed)

    def _retain_value(self, number: int) -> None:
        """Count one owner of a value more."""
        draft = self._inodes.load(number)
        references = (draft.fields.i_ctime << 32 | draft.fields.i_version) + 1
        draft.fields.i_ctime, draft.fields.i_version = references >> 32, references & 0xFFFFFFFF
        self._inodes.save(draft)

    def _release_value(self, number: int, now_ns: int) -> None:
        """Count one owner of a value less; free it behind the last."""
        draft = self._inodes.load(number)
        fields = draft.fields
        if not draft.has(InodeFlag.ea_inode):
            raise self._volume.corrupt(f"inode {number}: expected an attribute's value, found a file", draft.position)
        references = (fields.i_ctime << 32 | fields.i_version) - 1
        if references > 0:
            fields.i_ctime, fields.i_version = references >> 32, references & 0xFFFFFFFF
            self._inodes.save(draft)
            return
        self._maps.replace(draft, 0, self._maps.most_blocks(draft) + 1, ())
        self._inodes.free(draft, now_ns)


def _with_permissions(acl: bytes, permissions: int) -> bytes:
    """Return a stored access control list with the permissions of a mode."""
    places: dict[int, int] = {}
    at = 4
    while at + 4 <= len(acl):
        (tag,) = _TAG.unpack_from(acl, at)
        places[tag] = at
        at += 8 if tag in _NAMED_TAGS else 4
    result = bytearray(acl)
    group = _MASK if _MASK in places else _GROUP
    for tag, shift in ((_OWNER, 6), (group, 3), (_OTHER, 0)):
        if tag in places:
            _TAG.pack_into(result, places[tag] + 2, permissions >> shift & 7)
    return bytes(result)


def _named(name: bytes) -> Attribute:
    """Return the index and suffix of a name, without a value."""
    if name in (b"system.posix_acl_access", b"system.posix_acl_default"):
        return Attribute(2 if name.endswith(b"access") else 3, b"", b"")
    return stored_attribute(name, b"")


def _parse(area: bytes, start: int) -> list[Attribute]:
    """Return the attributes of an area whose bounds were judged."""
    found, at, end = [], start, len(area)
    while at + 16 <= end and area[at : at + 4] != b"\0\0\0\0":
        length, kind, offset, outside, size, hashed = XATTR_ENTRY.unpack_from(area, at)
        suffix = area[at + 16 : at + 16 + length]
        value = b"" if outside else area[offset : offset + size]
        found.append(Attribute(kind, suffix, value, outside, size if outside else 0, hashed if outside else 0))
        at = at + 16 + length + 3 & ~3
    return found
