"""Block groups while they are changed: both bitmaps as integers, free counts, and flags.

A group is brought into blocks of the transaction only when that is committed (``put``), so an allocation costs no
more than arithmetic. Uninitialised bitmaps come into being when they are first used.

Knows: descriptors, bitmaps and their checksums. Refuses to know: which group is the best for what.

Source: Linux 6.1, Documentation/filesystems/ext4 (group_descr, bitmaps, blockgroup, checksums).
"""

from __future__ import annotations

from typing import Final

from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.layout import GroupDescriptor, GroupFlag, RoCompat
from blockwright.fs.ext4.volume import parse_descriptor

_BLOCK_UNINIT, _INODE_UNINIT = int(GroupFlag.block_uninit), int(GroupFlag.inode_uninit)
MAX_KEPT: Final = 4096
"""Groups that are kept in memory, but for changed ones."""


class Group:
    """One group. ``blocks`` and ``inodes`` are bitmaps, lowest bit first; a bit that is set is in use.

    ``held`` are blocks that are free in the transaction and in use by what is committed: not to be written to.
    """

    __slots__ = (
        "blocks",
        "blocks_changed",
        "changed",
        "descriptor",
        "directories",
        "flags",
        "free_blocks",
        "free_inodes",
        "held",
        "hint",
        "inodes",
        "inodes_changed",
        "itable_unused",
        "number",
        "touched",
    )

    def __init__(self, number: int, descriptor: GroupDescriptor) -> None:
        self.number = number
        self.descriptor = descriptor
        self.flags = descriptor.bg_flags
        self.free_blocks = descriptor.free_blocks_count
        self.free_inodes = descriptor.free_inodes_count
        self.directories = descriptor.used_dirs_count
        self.itable_unused = descriptor.itable_unused
        self.blocks: int | None = None
        self.inodes: int | None = None
        self.held = 0
        self.hint = 0
        """The bit behind the last block that was allocated."""
        self.changed = self.blocks_changed = self.inodes_changed = self.touched = False


_SAVED: Final = tuple(name for name in Group.__slots__ if name not in ("number", "descriptor", "hint", "touched"))


class Groups:
    """The groups of a file system, read when they are asked for."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._volume = transaction.volume
        self._geometry = self._volume.geometry
        features = self._volume.superblock.s_feature_ro_compat
        self.has_flags = bool(features & (RoCompat.uninit_bg | RoCompat.metadata_csum))
        self._groups: dict[int, Group] = {}
        self._changed: dict[int, Group] = {}
        self._touched: list[Group] = []

    def group(self, number: int) -> Group:
        """Return a group. Raises Corrupt for a descriptor whose checksum or count of unused inodes is wrong."""
        found = self._groups.get(number)
        if found is None:
            if len(self._groups) >= MAX_KEPT:
                self._groups = dict(self._changed)
            descriptor = parse_descriptor(self._volume.raw_descriptor(number))
            self._volume.descriptor(number)  # verifies it
            if not self.has_flags:
                descriptor.bg_flags = descriptor.bg_itable_unused_lo = descriptor.bg_itable_unused_hi = 0
            if descriptor.itable_unused > self._geometry.inodes_per_group:
                raise self._volume.corrupt(
                    f"group {number}: unused inodes: expected at most {self._geometry.inodes_per_group}, "
                    f"found {descriptor.itable_unused}",
                    self._volume.descriptor_position(number) + 0x1C,
                )
            found = self._groups[number] = Group(number, descriptor)
        return found

    # -- bitmaps ---------------------------------------------------------------------------------------------

    def blocks(self, group: Group) -> int:
        """Return a group's block bitmap. Raises Corrupt."""
        if group.blocks is None:
            if group.flags & _BLOCK_UNINIT:
                group.blocks = self._own_blocks(group)
            else:
                geo = self._geometry
                place = group.descriptor.block_bitmap
                data = self._read(group, place, "block bitmap")
                size = geo.blocks_per_group // 8
                self._verify(group, data[:size], group.descriptor.block_bitmap_checksum, "block bitmap")
                group.blocks = int.from_bytes(data[:size], "little")
                self._check_own(group)
        return group.blocks

    def inodes(self, group: Group) -> int:
        """Return a group's inode bitmap, only the bits that count. Raises Corrupt."""
        if group.inodes is None:
            if group.flags & _INODE_UNINIT:
                group.inodes = 0
            else:
                count = self._geometry.inodes_per_group
                data = self._read(group, group.descriptor.inode_bitmap, "inode bitmap")
                self._verify(group, data[: count // 8], group.descriptor.inode_bitmap_checksum, "inode bitmap")
                group.inodes = int.from_bytes(data[: -(-count // 8)], "little") & (1 << count) - 1
        return group.inodes

    def _read(self, group: Group, place: int, what: str) -> bytes:
        return self._volume.blocks(place, 1, f"group {group.number}: {what}")

    def _verify(self, group: Group, data: bytes, stored: int, what: str) -> None:
        volume = self._volume
        if not volume.has_checksums:
            return
        expected = volume.bitmap_checksum(data)
        if expected != stored:
            raise volume.corrupt(
                f"group {group.number}: {what}: checksum: expected {expected:#x}, found {stored:#x}",
                volume.descriptor_position(group.number),
            )

    def _own_blocks(self, group: Group) -> int:
        """Return what an uninitialised bitmap stands for: the group's own tables, as far as they lie in it."""
        geo = self._geometry
        start = geo.group_start(group.number)
        length = geo.group_end(group.number) - start
        return self._own_mask(group) | (1 << geo.blocks_per_group) - (1 << length)

    def _own_mask(self, group: Group) -> int:
        geo = self._geometry
        start, end = geo.group_start(group.number), geo.group_end(group.number)
        found = group.descriptor
        parts = [*geo.overhead(group.number), (found.block_bitmap, 1), (found.inode_bitmap, 1)]
        parts.append((found.inode_table, geo.inode_table_blocks))
        mask = 0
        for low, count in parts:
            begin, stop = max(low, start), min(low + count, end)
            if begin < stop:
                mask |= (1 << stop - start) - (1 << begin - start)
        return mask

    def _check_own(self, group: Group) -> None:
        """Raise Corrupt unless a bitmap has the group's own tables in use, and nothing behind its end free.

        Whatever else is wrong with it, what is allocated then lies in the file system and not in its tables.
        """
        mask = self._own_mask(group)
        geo = self._geometry
        length = geo.group_end(group.number) - geo.group_start(group.number)
        mask |= (1 << geo.blocks_per_group) - (1 << length)
        blocks = group.blocks
        assert blocks is not None, "group: its bitmap was read before"
        if mask & ~blocks:
            raise self._volume.corrupt(
                f"group {group.number}: block bitmap: expected its tables in use, found some of their blocks free",
                group.descriptor.block_bitmap * geo.block_size,
            )

    # -- changes ---------------------------------------------------------------------------------------------

    def touch(self, group: Group) -> None:
        """Announce a change of a group; taken back with the operation."""
        if not group.touched:
            group.touched = True
            self._touched.append(group)
            kept = [(name, getattr(group, name)) for name in _SAVED]
            known = group.number in self._changed

            def restore() -> None:
                for name, value in kept:
                    setattr(group, name, value)
                group.touched = False
                if not known:
                    self._changed.pop(group.number, None)

            self._transaction.undo(restore)
        group.changed = True
        self._changed[group.number] = group

    def keep(self) -> None:
        """End an operation."""
        for group in self._touched:
            group.touched = False
        self._touched.clear()

    @property
    def changed(self) -> int:
        """Groups that ``put`` changes, each of them up to three blocks."""
        return len(self._changed)

    @property
    def pending_blocks(self) -> int:
        """Blocks that ``put`` changes."""
        per_block = self._geometry.descriptors_per_block
        bitmaps = sum(group.blocks_changed + group.inodes_changed for group in self._changed.values())
        return bitmaps + len({number // per_block for number in self._changed})

    @property
    def held(self) -> int:
        """How many blocks are free in the transaction that only its commit makes usable."""
        return sum(group.held.bit_count() for group in self._changed.values())

    def put(self) -> None:
        """Put every changed group into blocks of the transaction."""
        for number in sorted(self._changed):
            self._put(self._changed[number])

    def _put(self, group: Group) -> None:
        transaction, geo, found = self._transaction, self._geometry, group.descriptor
        if group.blocks_changed:
            assert group.blocks is not None, "group: a bitmap that was changed was read"
            data = group.blocks.to_bytes(geo.blocks_per_group // 8, "little")
            self._put_bitmap(found.block_bitmap, data)
            if self._volume.has_checksums:
                found.block_bitmap_checksum = self._volume.bitmap_checksum(data)
            group.flags &= ~_BLOCK_UNINIT
        if group.inodes_changed:
            assert group.inodes is not None, "group: a bitmap that was changed was read"
            size = geo.inodes_per_group
            bits = group.inodes | (1 << -(-size // 8) * 8) - (1 << size)
            data = bits.to_bytes(-(-size // 8), "little")
            self._put_bitmap(found.inode_bitmap, data)
            if self._volume.has_checksums:
                found.inode_bitmap_checksum = self._volume.bitmap_checksum(data[: size // 8])
            group.flags &= ~_INODE_UNINIT
        self._put_descriptor(group)
        transaction.volume.forget_descriptor(group.number)
        group.changed = group.blocks_changed = group.inodes_changed = False

    def _put_bitmap(self, place: int, data: bytes) -> None:
        self._volume.check_run(place, 1, "bitmap")
        block = self._transaction.modify(place, "bitmap")
        block[:] = data.ljust(len(block), b"\xff")

    def _put_descriptor(self, group: Group) -> None:
        found, volume, geo = group.descriptor, self._volume, self._geometry
        found.bg_flags = group.flags
        for name, value in (
            ("bg_free_blocks_count", group.free_blocks),
            ("bg_free_inodes_count", group.free_inodes),
            ("bg_used_dirs_count", group.directories),
            ("bg_itable_unused", group.itable_unused),
        ):
            setattr(found, name + "_lo", value & 0xFFFF)
            setattr(found, name + "_hi", value >> 16)
        index, slot = divmod(group.number, geo.descriptors_per_block)
        block = self._transaction.modify(geo.descriptor_block(index), f"descriptors of group {group.number}")
        at = slot * geo.desc_size
        raw = bytearray(block[at : at + geo.desc_size].ljust(GroupDescriptor.SIZE, b"\0"))
        kept = raw[0x12:0x14], raw[0x1C:0x20]
        found.pack_into(raw)
        if not self.has_flags:
            raw[0x12:0x14], raw[0x1C:0x20] = kept
        checksum = volume.descriptor_checksum(group.number, bytes(raw[: geo.desc_size]))
        if checksum is not None:
            raw[0x1E:0x20] = checksum.to_bytes(2, "little")
        found.bg_checksum = int.from_bytes(raw[0x1E:0x20], "little")
        block[at : at + geo.desc_size] = raw[: geo.desc_size]

    def committed(self) -> None:
        """Begin a new transaction: what was freed in the last one may be written to."""
        for group in self._changed.values():
            group.held = 0
        self._changed.clear()
