"""Inodes while they are changed: a draft of one, the table it goes back to, and which number a new one gets.

Knows: fields, times, counts of blocks, and inode bitmaps. Refuses to know: what an inode's blocks hold.

Source: Linux 6.1, Documentation/filesystems/ext4 (inodes, blockgroup "Lazy Block Group Initialization").
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

from blockwright.codec.checksum import crc32c_raw
from blockwright.errors import NoSpace, UsageError
from blockwright.fs.ext4 import layout
from blockwright.fs.ext4.edit.groups import Group, Groups
from blockwright.fs.ext4.edit.superblock import LiveSuperblock
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.inode import S_IFDIR, S_IFMT, Inode
from blockwright.fs.ext4.layout import GOOD_OLD_INODE_SIZE, GroupFlag, InodeFlag, RoCompat, encode_time
from blockwright.units import SECTOR

_SEARCHED: Final = 64
"""Groups that are looked at for the emptiest place of a directory."""
_FULL_RECORD: Final = layout.Inode.SIZE
encoded_time: Final = lru_cache(maxsize=16)(encode_time)
"""``encode_time``, which is asked for few times again and again."""
_EXTRA_ENDS: Final = {
    name: layout.Inode.FIELDS[f"i_{name}_extra"].offset + 4 for name in ("atime", "ctime", "mtime", "crtime")
}
"""The byte behind the field that makes each time exact."""
_LOW_SUM: Final = layout.Inode.FIELDS["i_checksum_lo"].offset
_HIGH_SUM: Final = layout.Inode.FIELDS["i_checksum_hi"].offset
_HIGH_SUM_END: Final = _HIGH_SUM + 2
_HUGE_FILE: Final = int(InodeFlag.huge_file)
_BLOCK_UNINIT, _INODE_UNINIT = int(GroupFlag.block_uninit), int(GroupFlag.inode_uninit)
_HALF: Final = Struct("<H")
_NOTHING: Final = bytes(2)


class Draft:
    """An inode that is being changed. ``fields`` are the record, ``raw`` all bytes as of the last ``pack``."""

    __slots__ = ("fields", "number", "position", "raw")

    def __init__(self, number: int, raw: bytes, position: int) -> None:
        self.number = number
        self.position = position
        self.raw = bytearray(raw)
        self.fields = layout.Inode.parse(raw if len(raw) >= _FULL_RECORD else raw.ljust(_FULL_RECORD, b"\0"))

    @property
    def kind(self) -> int:
        """The type bits of the mode."""
        return self.fields.i_mode & S_IFMT

    @property
    def flags(self) -> int:
        """i_flags."""
        return self.fields.i_flags

    @property
    def size(self) -> int:
        """The content's bytes."""
        return self.fields.i_size_high << 32 | self.fields.i_size_lo

    @size.setter
    def size(self, value: int) -> None:
        self.fields.i_size_lo, self.fields.i_size_high = value & 0xFFFFFFFF, value >> 32

    @property
    def file_acl(self) -> int:
        """The block of extended attributes, or 0."""
        return self.fields.i_file_acl_high << 32 | self.fields.i_file_acl_lo

    @file_acl.setter
    def file_acl(self, value: int) -> None:
        self.fields.i_file_acl_lo, self.fields.i_file_acl_high = value & 0xFFFFFFFF, value >> 32

    @property
    def body_start(self) -> int:
        """The byte behind the fields, where attributes within the inode begin."""
        return GOOD_OLD_INODE_SIZE + (self.fields.i_extra_isize if len(self.raw) > GOOD_OLD_INODE_SIZE else 0)

    def has(self, flag: InodeFlag) -> bool:
        """Whether a flag is set."""
        return bool(self.fields.i_flags & flag.real)  # an int, since enum's own operators are slow

    def has_field(self, end: int) -> bool:
        """Whether the inode has the fields up to byte ``end``."""
        return end <= min(self.body_start, len(self.raw))

    def set_owner(self, uid: int | None, gid: int | None) -> None:
        """Set the owner and the group, each where it is given."""
        for name, value in (("uid", uid), ("gid", gid)):
            if value is None:
                continue
            if not 0 <= value < 1 << 32:
                raise UsageError(f"{name}: expected 0 to {(1 << 32) - 1}, found {value}")
            setattr(self.fields, f"i_{name}", value & 0xFFFF)
            setattr(self.fields, f"i_{name}_high", value >> 16)

    def set_time(self, name: str, time_ns: int) -> None:
        """Set ``atime``, ``ctime``, ``mtime`` or ``crtime``, as exact as the inode has room for."""
        seconds, extra = encoded_time(time_ns)
        fields = vars(self.fields)
        if self.has_field(_EXTRA_ENDS[name]):
            fields["i_" + name] = seconds
            fields[f"i_{name}_extra"] = extra
        elif name != "crtime":
            most = (1 << 31) - 1
            fields["i_" + name] = min(max(time_ns // 1_000_000_000, -(1 << 31)), most) & 0xFFFFFFFF

    def put_body(self, body: bytes) -> None:
        """Have the bytes behind the fields; the record may reach into them."""
        self.pack()
        self.raw[self.body_start :] = body
        if len(self.raw) >= _FULL_RECORD:
            self.fields = layout.Inode.parse(self.raw)

    def pack(self) -> bytes:
        """Return the inode's bytes; the checksum is as it was."""
        size = len(self.raw)
        if size >= _FULL_RECORD:
            self.fields.pack_into(self.raw)
        else:
            self.raw[:] = self.fields.pack()[:size]
        return bytes(self.raw)

    def inode(self) -> Inode:
        """Return the draft as readers take it."""
        return Inode(self.number, self.pack(), self.position)


class InodeTable:
    """The inodes of a file system, to be read, changed, made and freed."""

    def __init__(self, transaction: Transaction, groups: Groups, superblock: LiveSuperblock) -> None:
        self._transaction = transaction
        self._volume = transaction.volume
        self._geometry = self._volume.geometry
        self._groups = groups
        self._superblock = superblock
        self._huge_files = bool(superblock.fields.s_feature_ro_compat & RoCompat.huge_file)
        self.extra_size = self._choose_extra_size()

    def _choose_extra_size(self) -> int:
        room = self._geometry.inode_size - GOOD_OLD_INODE_SIZE
        fields = self._superblock.fields
        wanted = max(fields.s_want_extra_isize, fields.s_min_extra_isize) or 32
        return wanted if wanted <= room and not wanted & 3 else min(room, 32)

    # -- one inode -------------------------------------------------------------------------------------------

    def load(self, number: int) -> Draft:
        """Return a draft of an inode. Raises Corrupt for one that is not in use."""
        inode = self._volume.inode(number)
        if not inode.links or not inode.mode:
            raise self._volume.corrupt(f"inode {number}: expected it in use, found no links", inode.position)
        return Draft(number, inode.raw, inode.position)

    def load_any(self, number: int) -> Draft:
        """Return a draft of an inode, in use or not."""
        inode = self._volume.inode(number)
        return Draft(number, inode.raw, inode.position)

    def save(self, draft: Draft) -> None:
        """Put a draft into the transaction, with its checksum."""
        size = self._volume.block_size
        number, at = divmod(draft.position, size)
        block = self._transaction.modify(number, f"inode {draft.number}")
        draft.pack()
        raw = draft.raw
        if self._volume.has_checksums:
            high = draft.has_field(_HIGH_SUM_END)
            raw[_LOW_SUM : _LOW_SUM + 2] = _NOTHING
            if high:
                raw[_HIGH_SUM : _HIGH_SUM + 2] = _NOTHING
            checksum = crc32c_raw(self.seed(draft), bytes(raw))
            fields = draft.fields
            fields.i_checksum_lo = checksum & 0xFFFF
            _HALF.pack_into(raw, _LOW_SUM, checksum & 0xFFFF)
            if high:
                fields.i_checksum_hi = checksum >> 16
                _HALF.pack_into(raw, _HIGH_SUM, checksum >> 16)
        block[at : at + len(raw)] = raw

    def seed(self, draft: Draft) -> int:
        """Return what the checksums of an inode's own blocks start from."""
        return layout.inode_seed(self._volume.seed, draft.number, draft.fields.i_generation)

    def add_blocks(self, draft: Draft, count: int) -> None:
        """Count blocks that an inode got, or lost where it is negative. The caller saves the draft."""
        fields, size = draft.fields, self._volume.block_size
        high = fields.i_blocks_high if self._huge_files else 0
        stored = high << 32 | fields.i_blocks_lo
        per_block = size // SECTOR
        sectors = (stored * per_block if draft.has(InodeFlag.huge_file) and self._huge_files else stored) + (
            count * per_block
        )
        if sectors < 0:
            raise self._volume.corrupt(
                f"inode {draft.number}: blocks: expected at least {-count * per_block} sectors, found {stored}",
                draft.position + 0x1C,
            )
        if sectors < 1 << (48 if self._huge_files else 32):
            value = sectors
            fields.i_flags &= ~_HUGE_FILE
        elif self._huge_files:
            value = sectors // per_block
            fields.i_flags |= _HUGE_FILE
        else:
            raise UsageError(f"inode {draft.number}: expected less than 2 TiB of blocks without huge_file")
        fields.i_blocks_lo = value & 0xFFFFFFFF
        if self._huge_files:
            fields.i_blocks_high = value >> 32

    def group_of(self, number: int) -> int:
        """Return the group that an inode lies in."""
        return self._geometry.inode_place(number)[0]

    # -- allocation ------------------------------------------------------------------------------------------

    def allocate(self, parent: int, *, directory: bool) -> Draft:
        """Take a free inode near the directory ``parent``; return it blank but for its generation."""
        home = self.group_of(parent)
        spread = directory and parent == layout.ReservedInode.root
        group = self._emptiest(home) if spread else None
        if group is None:
            group = self._nearest(home)
        return self._take(group, directory=directory)

    def allocate_files(self, parent: int, count: int) -> list[int]:
        """Take ``count`` free inodes near the directory ``parent``, as they lie; return their numbers."""
        numbers: list[int] = []
        while len(numbers) < count:
            group = self._nearest(self.group_of(parent))
            first = group.number * self._geometry.inodes_per_group + 1
            numbers += [first + index for index in self._reserve(group, count - len(numbers))]
        return numbers

    def _nearest(self, home: int) -> Group:
        for step in range(self._geometry.groups):
            group = self._groups.group((home + step) % self._geometry.groups)
            if group.free_inodes and self._first_free(group) is not None:
                return group
        raise NoSpace(f"file system: expected a free inode, found all {self._geometry.inodes_count} of them in use")

    def _emptiest(self, home: int) -> Group | None:
        """Return the group with the fewest directories whose free space is above the average."""
        geo, fields = self._geometry, self._superblock.fields
        groups = geo.groups
        enough_inodes, enough_blocks = fields.s_free_inodes_count // groups, fields.free_blocks_count // groups
        best: Group | None = None
        for step in range(min(groups, _SEARCHED)):
            group = self._groups.group((home + step) % groups)
            if group.free_inodes < max(1, enough_inodes) or group.free_blocks < enough_blocks:
                continue
            if best is None or group.directories < best.directories:
                best = group
        return best if best is not None and self._first_free(best) is not None else None

    def _first_free(self, group: Group, inodes: int | None = None) -> int | None:
        """Return the index of the first free inode of a group that is not reserved; ``inodes`` are those in use."""
        free = (
            ~(self._groups.inodes(group) if inodes is None else inodes) & (1 << self._geometry.inodes_per_group) - 1
        )
        reserved = self._superblock.fields.first_ino - 1 - group.number * self._geometry.inodes_per_group
        if reserved > 0:
            free = free >> reserved << reserved
        return (free & -free).bit_length() - 1 if free else None

    def _take(self, group: Group, *, directory: bool) -> Draft:
        (index,) = self._reserve(group, 1)
        group.directories += directory
        return self.blank(group.number * self._geometry.inodes_per_group + index + 1)

    def _reserve(self, group: Group, most: int) -> list[int]:
        """Take the first free inodes of a group, up to ``most``; return their places in it."""
        groups = self._groups
        inodes, taken = groups.inodes(group), list[int]()
        while len(taken) < most and (index := self._first_free(group, inodes)) is not None:
            run = (~inodes >> index) & (1 << most - len(taken)) - 1
            count = (~run & run + 1).bit_length() - 1
            count = min(count, self._geometry.inodes_per_group - index)
            taken += range(index, index + count)
            inodes |= (1 << count) - 1 << index
        assert taken, "inode: a group with a free one was chosen"
        groups.touch(group)
        if groups.has_flags:
            if group.flags & _BLOCK_UNINIT:
                groups.blocks(group)
                group.blocks_changed = True
                group.flags &= ~_BLOCK_UNINIT
            self._extend_table(group, taken[-1])
        group.inodes = inodes
        group.inodes_changed = True
        group.flags &= ~_INODE_UNINIT
        group.free_inodes = max(0, group.free_inodes - len(taken))
        self._superblock.add_free(0, -len(taken))
        return taken

    def _extend_table(self, group: Group, index: int) -> None:
        """Have the part of the inode table that is in use reach to ``index``, and clear what it comes to include."""
        geo = self._geometry
        used = geo.inodes_per_group - (geo.inodes_per_group if group.flags & _INODE_UNINIT else group.itable_unused)
        if index < used:
            return
        size, block_size = geo.inode_size, geo.block_size
        table = group.descriptor.inode_table
        self._volume.check_run(table, geo.inode_table_blocks, f"group {group.number}: inode table")
        per_block = block_size // size
        for place in range(used // per_block, index // per_block + 1):
            block = self._transaction.modify(table + place, f"inodes of group {group.number}")
            start = max(0, used - place * per_block) * size
            block[start:] = bytes(block_size - start)
        group.itable_unused = geo.inodes_per_group - index - 1

    def blank(self, number: int) -> Draft:
        """Return a new inode's draft: nothing but the next generation of what was there."""
        position = self._volume.inode_position(number)
        size = self._geometry.inode_size
        block, at = divmod(position, self._volume.block_size)
        before = self._volume.block(block, f"inode {number}")[at : at + size]
        generation = int.from_bytes(before[0x64:0x68], "little") + 1 & 0xFFFFFFFF
        draft = Draft(number, bytes(size), position)
        draft.fields.i_generation = generation
        if size > GOOD_OLD_INODE_SIZE:
            draft.fields.i_extra_isize = self.extra_size
        return draft

    def free(self, draft: Draft, now_ns: int) -> None:
        """Give back an inode whose blocks are freed; save it as deleted at that time."""
        group = self._groups.group(self.group_of(draft.number))
        index = self._geometry.inode_place(draft.number)[1]
        inodes = self._groups.inodes(group)
        if not inodes >> index & 1:
            raise self._volume.corrupt(
                f"inode {draft.number}: expected it in use in its group's bitmap, found it free"
            )
        if draft.number < self._superblock.fields.first_ino:
            raise UsageError(f"inode {draft.number}: is reserved and cannot be freed")
        self._groups.touch(group)
        group.inodes = inodes & ~(1 << index)
        group.inodes_changed = True
        group.free_inodes += 1
        group.directories -= draft.kind == S_IFDIR and group.directories > 0
        self._superblock.add_free(0, 1)
        draft.fields.i_links_count = 0
        draft.fields.i_dtime = max(1, now_ns // 1_000_000_000) & 0xFFFFFFFF
        draft.size = 0
        self.save(draft)
