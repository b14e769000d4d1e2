"""The rules of group descriptors, and the blocks that groups use for themselves.

Knows: where bitmaps and tables may lie. Refuses to know: what they hold.

Source: Linux 6.1, Documentation/filesystems/ext4 (group_descr, blockgroup).
"""

from __future__ import annotations

from typing import Final

from blockwright.fs.ext4.check.claims import Claims
from blockwright.fs.ext4.check.state import Group, State
from blockwright.fs.ext4.layout import GroupDescriptor, GroupFlag, Incompat
from blockwright.fs.ext4.volume import parse_descriptor

MAX_GROUPS: Final = 1 << 22
"""Groups that a check keeps in memory: 512 TiB with blocks of 4 KiB."""


def check_groups(state: State) -> bool:
    """Report what is wrong with the descriptors and claim what groups use; return whether inodes can be read."""
    volume, geo = state.volume, state.volume.geometry
    if geo.groups > MAX_GROUPS:
        raise volume.unsupported(f"check: expected at most {MAX_GROUPS} groups, found {geo.groups}")
    usable = True
    for group in range(geo.groups):
        raw = volume.raw_descriptor(group)
        descriptor = parse_descriptor(raw)
        group_state = _joined(descriptor)
        state.groups.append(group_state)
        expected = volume.descriptor_checksum(group, raw)
        if expected is not None and expected != descriptor.bg_checksum:
            _report(state, group, "checksum", f"expected {expected:#06x}, found {descriptor.bg_checksum:#06x}", 0x1E)
        _counts(state, group, group_state)
        usable &= _places(state, group, group_state)
    _claim_tables(state)
    return usable


def _joined(descriptor: GroupDescriptor) -> Group:
    return Group(
        block_bitmap=descriptor.block_bitmap,
        inode_bitmap=descriptor.inode_bitmap,
        inode_table=descriptor.inode_table,
        free_clusters=descriptor.free_blocks_count,
        free_inodes=descriptor.free_inodes_count,
        directories=descriptor.used_dirs_count,
        unused_inodes=descriptor.itable_unused,
        flags=descriptor.bg_flags,
        block_bitmap_checksum=descriptor.block_bitmap_checksum,
        inode_bitmap_checksum=descriptor.inode_bitmap_checksum,
    )


def _report(state: State, group: int, rule: str, message: str, offset: int) -> None:
    position = state.volume.descriptor_position(group) + offset
    state.report(f"group.{rule}", f"group {group}: {message}", position, repairable=True)


def _counts(state: State, group: int, descriptor: Group) -> None:
    geo = state.volume.geometry
    bounds = (
        ("free-blocks", descriptor.free_clusters, geo.blocks_per_group, 0xC),
        ("free-inodes", descriptor.free_inodes, geo.inodes_per_group, 0xE),
        ("directories", descriptor.directories, geo.inodes_per_group, 0x10),
    )
    for rule, found, most, offset in bounds:
        if found > most:
            _report(state, group, rule, f"expected at most {most}, found {found}", offset)
    unused, flags = descriptor.unused_inodes, descriptor.flags
    if state.group_checksums:
        most = min(descriptor.free_inodes, geo.inodes_per_group)
        if unused > most:
            _report(state, group, "unused-inodes", f"expected at most {most}, found {unused}", 0x1C)
    elif unused or flags & (GroupFlag.block_uninit | GroupFlag.inode_uninit):
        _report(
            state, group, "flags", f"without checksums: expected none, found {flags:#x} and {unused} unused", 0x12
        )
    if group == geo.groups - 1 and flags & GroupFlag.block_uninit:
        _report(state, group, "flags", "expected the last group's block bitmap initialised, found it not", 0x12)


def _places(state: State, group: int, descriptor: Group) -> bool:
    """Check where bitmaps and table lie; without flex_bg that is in the group. Return whether the table is usable."""
    geo = state.volume.geometry
    low, high = geo.group_start(group), geo.group_end(group)
    if state.incompat(Incompat.flex_bg):
        low, high = geo.first_data_block, geo.blocks_count
    usable = True
    for rule, start, count, offset in (
        ("block-bitmap", descriptor.block_bitmap, 1, 0x0),
        ("inode-bitmap", descriptor.inode_bitmap, 1, 0x4),
        ("inode-table", descriptor.inode_table, geo.inode_table_blocks, 0x8),
    ):
        if start == 0 or start < low or start + count > high:
            _report(
                state, group, rule, f"expected blocks from {low} to {high - 1}, found {count} from {start} on", offset
            )
            usable &= start > 0 and start + count <= geo.blocks_count
    return usable


def _claim_tables(state: State) -> None:
    """Claim superblocks, descriptors, bitmaps and tables, and report where those meet one another."""
    geo = state.volume.geometry
    tables = Claims()
    for group, descriptor in enumerate(state.groups):
        for start, count in geo.overhead(group):
            tables.add(start, min(count, geo.blocks_count - start), group)
        for start, count in (
            (descriptor.block_bitmap, 1),
            (descriptor.inode_bitmap, 1),
            (descriptor.inode_table, geo.inode_table_blocks),
        ):
            if start > 0 and start + count <= geo.blocks_count:
                tables.add(start, count, group)
    if state.volume.superblock.s_feature_incompat & Incompat.mmp:
        block = state.volume.superblock.s_mmp_block
        if geo.first_data_block < block < geo.blocks_count:
            tables.add(block, 1, 0)
    for overlap in tables.overlaps():
        state.report(
            "group.overlap",
            f"expected each block used once, found {overlap.units} from block {overlap.start} on "
            f"in tables of group {overlap.first} and group {overlap.second}",
            overlap.start * geo.block_size,
        )
    state.tables = tables
    state.claims = tables.in_clusters(geo.cluster_blocks, geo.first_data_block)
