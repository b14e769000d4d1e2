"""All that has to be written so that a file system has another size, computed before anything is.

What new groups need lies behind the old end, where nothing refers to it (``early``). What makes the new size count
is one set of blocks within the old file system: ``switch``, and over it ``behind``, which would be wrong before the
superblock says what is new. Copies for the case of damage come last.

The whole is a function of the target and of what is in use, and blocks that hold already what they should are left
out. So the same call finishes what an earlier one began, wherever that ended.

Knows: which blocks change. Refuses to know: how they reach the device (``apply``).

Source: Linux 6.1, Documentation/filesystems/ext4 (blockgroup, group_descr, super).
"""

from __future__ import annotations

from collections.abc import Iterator

from blockwright.device.extent import ZERO
from blockwright.fs.ext4.geometry import Geometry
from blockwright.fs.ext4.layout import (
    SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE,
    Compat,
    GroupDescriptor,
    GroupFlag,
    Incompat,
    ReservedInode,
    State,
    Superblock,
)
from blockwright.fs.ext4.resize.bitmaps import (
    Bitmaps,
    has_group_checksums,
    read_block_bitmap,
    set_block_checksum,
    set_free_blocks,
)
from blockwright.fs.ext4.resize.descriptors import Descriptors
from blockwright.fs.ext4.resize.groups import NewGroup, block_bitmap, inode_bitmap, new_groups
from blockwright.fs.ext4.resize.mark import pack_copy, pack_home
from blockwright.fs.ext4.resize.reserve import ResizeInode
from blockwright.fs.ext4.resize.target import Target, metadata_blocks
from blockwright.fs.ext4.resize.writer import whole
from blockwright.fs.ext4.volume import Volume


class Plan:
    """What turns ``volume`` into ``target``. Raises Corrupt for metadata that cannot be followed, NoSpace."""

    def __init__(self, volume: Volume, target: Target) -> None:
        self.volume = volume
        self.superblock = target.superblock
        self.geometry = target.geometry
        self.early: dict[int, bytes] = {}
        self.zeros: list[tuple[int, int]] = []
        """Runs of blocks, as (block, count), that must read as zeros before the new size counts."""
        self.switch: dict[int, bytes] = {}
        self.behind: dict[int, bytes] = {}
        self._checksums = has_group_checksums(volume)
        self._same: dict[bytes, bytes] = {}
        self._descriptors = Descriptors(volume, target.geometry)
        bitmaps = Bitmaps(volume, target.geometry, self._descriptors)
        self._check_heads()
        self._add_groups(bitmaps)
        self._drop_groups(bitmaps)
        self._change_heads(bitmaps)
        self._change_resize_inode(bitmaps)
        for block, before_end, data in bitmaps.finish():
            self._put(block, before_end)
            self._put_behind(block, data)
        self._place_descriptors()
        self._finish_superblock()

    @property
    def first_new(self) -> int:
        """The first group that was not there before."""
        return min(self.volume.geometry.groups, self.geometry.groups)

    @property
    def changes(self) -> dict[int, bytes]:
        """What the blocks of the old file system are to hold that differ from it."""
        return {**self.switch, **self.behind}

    # -- groups ----------------------------------------------------------------------------------------------

    def _check_heads(self) -> None:
        """Raise Corrupt where blocks kept for descriptors are free, so that they may be somebody's tomorrow."""
        geo = self.volume.geometry
        bits = int.from_bytes(read_block_bitmap(self.volume, 0, self.volume.descriptor(0)), "little")
        for start, count in geo.overhead(0):
            mask = ((1 << count) - 1) << start - geo.group_start(0)
            if bits & mask != mask:
                raise self.volume.corrupt(
                    f"group 0: expected {count} blocks from {start} on in use for descriptors, found some free"
                )

    def _add_groups(self, bitmaps: Bitmaps) -> None:
        old, geo = self.volume.geometry, self.geometry
        if geo.blocks_count > old.blocks_count:
            end = min(geo.blocks_count, geo.group_start(old.groups))
            bitmaps.give(old.blocks_count, end - old.blocks_count)
        flex = self.superblock.s_feature_incompat & Incompat.flex_bg
        log_flex = self.superblock.s_log_groups_per_flex if flex else None
        for batch in new_groups(geo, old.groups, log_flex):
            zeroed = self._zero_tables(batch)
            for group in batch:
                self._add_group(group, zeroed=zeroed)

    def _zero_tables(self, batch: list[NewGroup]) -> bool:
        """Return whether the inode tables read as zeros; where nothing says that they need not, have them zeroed."""
        table = self.geometry.inode_table_blocks
        zeroed = True
        for group in batch:
            if self._reads_zero(group.inode_table, table):
                continue
            if self._checksums:
                zeroed = False  # the flag says so, and the kernel clears tables in the background
            else:
                self.zeros.append((group.inode_table, table))
        return zeroed

    def _reads_zero(self, block: int, count: int) -> bool:
        size = self.geometry.block_size
        device = self.volume.device
        return all(extent.flags & ZERO for extent in device.extents(*whole(device, block * size, count * size)))

    def _add_group(self, group: NewGroup, *, zeroed: bool) -> None:
        geo, volume = self.geometry, self.volume
        number, last = group.number, group.number == geo.groups - 1
        places = group.block_bitmap, group.inode_bitmap, group.inode_table
        low, high = [place & 0xFFFFFFFF for place in places], [place >> 32 for place in places]
        descriptor = GroupDescriptor(
            bg_block_bitmap_lo=low[0],
            bg_inode_bitmap_lo=low[1],
            bg_inode_table_lo=low[2],
            bg_block_bitmap_hi=high[0],
            bg_inode_bitmap_hi=high[1],
            bg_inode_table_hi=high[2],
            bg_free_inodes_count_lo=geo.inodes_per_group & 0xFFFF,
            bg_free_inodes_count_hi=geo.inodes_per_group >> 16,
        )
        set_free_blocks(descriptor, geo.group_end(number) - geo.group_start(number) - group.used_blocks)
        flags = 0
        if self._checksums:
            flags = int(GroupFlag.inode_uninit) | (int(GroupFlag.inode_zeroed) if zeroed else 0)
            descriptor.bg_itable_unused_lo = geo.inodes_per_group & 0xFFFF
            descriptor.bg_itable_unused_hi = geo.inodes_per_group >> 16
        else:
            self._put_early(group.inode_bitmap, inode_bitmap(geo))
        if self._checksums and group.alone and not last:
            flags |= int(GroupFlag.block_uninit)
        else:
            data = block_bitmap(geo, number, group.used)
            self._put_early(group.block_bitmap, data)
            set_block_checksum(volume, descriptor, data[: geo.blocks_per_group // 8])
        descriptor.bg_flags = flags
        self._descriptors.put(number, descriptor)

    def _put_early(self, block: int, data: bytes) -> None:
        self.early[block] = self._same.setdefault(data, data)

    def _drop_groups(self, bitmaps: Bitmaps) -> None:
        """Free what groups that go have among those that stay, and end the bitmap of the new last one there."""
        old, geo = self.volume.geometry, self.geometry
        if geo.groups <= old.groups:
            bitmaps.bits(geo.groups - 1)
        for group in range(geo.groups, old.groups):
            found = self.volume.descriptor(group)
            bitmaps.give(found.block_bitmap, 1)
            bitmaps.give(found.inode_bitmap, 1)
            bitmaps.give(found.inode_table, geo.inode_table_blocks)

    def _change_heads(self, bitmaps: Bitmaps) -> None:
        """Give blocks where a group that stays opens with less than before; what is new there ``Bitmaps`` takes."""
        old, geo = self.volume.geometry, self.geometry
        for group in range(self.first_new):
            before, after = old.overhead(group), geo.overhead(group)
            if before == after or _blocks(before) == _blocks(after):
                continue
            for block in sorted(_blocks(before) - _blocks(after)):
                bitmaps.give(block, 1)
            bitmaps.bits(group)

    # -- the resize inode ------------------------------------------------------------------------------------

    def _change_resize_inode(self, bitmaps: Bitmaps) -> None:
        volume, number = self.volume, int(ReservedInode.resize)
        before = volume.superblock.s_feature_compat & Compat.resize_inode
        after = self.superblock.s_feature_compat & Compat.resize_inode
        if not before and not any(volume.inode(number).block):
            return
        keeper = ResizeInode(volume)
        if after:
            raw = keeper.bytes_for(self.geometry)
            for block, data in keeper.blocks_for(self.geometry).items():
                self._put_behind(block, data)
        else:
            raw = keeper.emptied()
            if before:
                bitmaps.give(keeper.double, 1)
        size = volume.block_size
        block, offset = divmod(keeper.inode.position, size)
        table = bytearray(volume.blocks(block, 1, "inode table"))
        table[offset : offset + len(raw)] = raw
        self._put_behind(block, bytes(table))

    # -- descriptors and superblocks -------------------------------------------------------------------------

    def _place_descriptors(self) -> None:
        geo = self.geometry
        boundary = geo.group_start(self.volume.geometry.groups)
        for index in range(geo.descriptor_blocks):
            block, data = geo.descriptor_block(index), self._descriptors.block(index)
            if block >= boundary:
                self.early[block] = data
            else:
                self._put(block, data)

    def _finish_superblock(self) -> None:
        superblock, old, geo = self.superblock, self.volume.geometry, self.geometry
        free, superblock.s_free_inodes_count = self._descriptors.totals()
        superblock.s_free_blocks_count_lo = free & 0xFFFFFFFF
        superblock.s_free_blocks_count_hi = free >> 32
        if superblock.s_overhead_blocks and geo.blocks_count != old.blocks_count:
            change = _metadata(geo) - _metadata(old)
            superblock.s_overhead_blocks = max(0, superblock.s_overhead_blocks + change) & 0xFFFFFFFF
        superblock.s_state |= int(State.valid)
        self._put(geo.super_block, superblock_block(self.volume, superblock))

    def _put(self, block: int, data: bytes) -> None:
        """Have a block of the old file system written if it holds anything else."""
        size = self.geometry.block_size
        if self.volume.read_bytes(block * size, size) != data:
            self.switch[block] = data

    def _put_behind(self, block: int, data: bytes) -> None:
        """Have a block written once the superblock is, if it holds anything else then."""
        size = self.geometry.block_size
        if (self.switch.get(block) or self.volume.read_bytes(block * size, size)) != data:
            self.behind[block] = data

    # -- copies ----------------------------------------------------------------------------------------------

    def descriptor_copies(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """Yield (block, bytes) of the copies of descriptors in the groups [first, last) but 0."""
        geo = self.geometry
        count = min(geo.descriptor_blocks, geo.first_meta_bg)
        common = self._descriptors.blocks(count)
        per_block = geo.descriptors_per_block
        for group in range(max(1, first), last):
            start = geo.group_start(group)
            if geo.has_super(group) and common and group // per_block < geo.first_meta_bg:
                yield start + 1, common
            index, place = divmod(group, per_block)
            if index >= geo.first_meta_bg and place in (1, per_block - 1):
                yield start + geo.has_super(group), self._descriptors.block(index)

    def superblock_copies(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """Yield (block, bytes) of the backups of the superblock in the groups [first, last) but 0."""
        geo = self.geometry
        for group in range(max(1, first), last):
            if geo.has_super(group):
                copy = self.superblock.replace(s_block_group_nr=group & 0xFFFF)
                copy.s_state &= ~int(State.valid)
                copy.s_feature_incompat &= ~int(Incompat.needs_recovery)
                yield geo.group_start(group), pack_copy(copy).ljust(geo.block_size, b"\0")

    def kept_heads(self) -> Iterator[tuple[int, int]]:
        """Yield (block, count) of the blocks kept for descriptors in new groups."""
        geo = self.geometry
        if geo.reserved_gdt_blocks:
            for group in range(self.first_new, geo.groups):
                if geo.has_super(group):
                    yield geo.group_start(group) + 1 + geo.descriptor_blocks, geo.reserved_gdt_blocks

    def copies_are_stale(self) -> bool:
        """Whether a backup in a group that stays tells of another size or layout than is to be."""
        geo, size = self.geometry, self.geometry.block_size
        for group in range(1, self.first_new):
            if geo.has_super(group):
                found = Superblock.parse(self.volume.read_bytes(geo.group_start(group) * size, SUPERBLOCK_SIZE))
                if _layout(found) != _layout(self.superblock):
                    return True
        return False


def superblock_block(volume: Volume, superblock: Superblock, *, marked: bool = False) -> bytes:
    """Return the block with the primary superblock, as it is to be with ``superblock`` in place of what is there."""
    size, home = volume.block_size, volume.geometry.super_block
    block = bytearray(volume.read_bytes(home * size, size))
    at = SUPERBLOCK_OFFSET - home * size
    stored = bytes(block[at : at + SUPERBLOCK_SIZE])
    block[at : at + SUPERBLOCK_SIZE] = pack_home(superblock, stored, marked=marked)
    return bytes(block)


def _layout(superblock: Superblock) -> tuple[int | bytes, ...]:
    return (
        superblock.s_magic,
        superblock.blocks_count,
        superblock.s_inodes_count,
        superblock.s_reserved_gdt_blocks,
        superblock.s_first_meta_bg,
        superblock.s_backup_bgs,
        superblock.s_feature_compat & Compat.resize_inode,
        superblock.s_feature_incompat & Incompat.meta_bg,
    )


def _blocks(parts: list[tuple[int, int]]) -> set[int]:
    return {block for start, count in parts for block in range(start, start + count)}


def _metadata(geo: Geometry) -> int:
    return sum(metadata_blocks(geo, group) for group in range(geo.groups))
