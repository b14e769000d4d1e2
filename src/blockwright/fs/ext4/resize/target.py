"""The superblock and the geometry that a file system has at another size.

Where descriptors need more blocks, those that the resize inode keeps are used first; behind them new groups keep
their descriptors themselves (meta_bg), so nothing that is there ever moves.

Knows: which numbers and features follow from a size. Refuses to know: what is in use, and free counts.

Source: Linux 6.1, Documentation/filesystems/ext4 (blockgroup, super, "Meta Block Groups").
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from blockwright.errors import LimitExceeded, NoSpace, Unsupported
from blockwright.fs.ext4.geometry import Geometry, geometry
from blockwright.fs.ext4.layout import Compat, Incompat, Superblock
from blockwright.units import MAX_SIZE, ceil_div

MAX_GROUPS: Final = 1 << 20
"""Groups of a file system that is resized: 128 TiB with blocks of 4 KiB, 64 MiB of descriptors in memory."""
LEAST_USEFUL: Final = 50
"""Blocks that a short last group has beyond its own metadata; a shorter one is left out, as by resize2fs."""
_BACKUP_BGS: Final = Struct("<II")


class Target(NamedTuple):
    """The superblock to be, free counts and checksum not yet set, and its geometry."""

    superblock: Superblock
    geometry: Geometry


def metadata_blocks(geo: Geometry, group: int) -> int:
    """Return how many blocks a group needs for itself: what it opens with, two bitmaps and an inode table."""
    return sum(count for _, count in geo.overhead(group)) + 2 + geo.inode_table_blocks


def target_of(superblock: Superblock, old: Geometry, blocks: int, backup_fits: Callable[[int], bool]) -> Target:
    """Return the target of at most ``blocks`` blocks.

    ``backup_fits`` says whether a group that exists has room for a backup at its head (sparse_super2). Raises NoSpace
    for no room at all, Unsupported without 64bit past 2**32 - 1 blocks, LimitExceeded.
    """
    if blocks >= 1 << 32 and not superblock.s_feature_incompat & Incompat.bit64:
        raise Unsupported(
            f"resize: expected at most {((1 << 32) - 1) * old.block_size} bytes without the feature 64bit, "
            f"found {blocks * old.block_size}"
        )
    while True:
        groups = ceil_div(blocks - old.first_data_block, old.blocks_per_group)
        if groups < 1:
            raise NoSpace(f"resize: expected room for one group, found {blocks} blocks")
        _check_counts(old, groups)
        found = _candidate(superblock, old, blocks, groups, backup_fits)
        geo = found.geometry
        rest = geo.group_end(groups - 1) - geo.group_start(groups - 1)
        needed = metadata_blocks(geo, groups - 1)
        short = rest < geo.blocks_per_group
        if blocks == old.blocks_count or not short or rest >= needed + LEAST_USEFUL:
            return found
        if groups == 1:
            raise NoSpace(
                f"resize: expected at least {(geo.first_data_block + needed + LEAST_USEFUL) * geo.block_size} bytes "
                f"for the first group, found {blocks * geo.block_size}"
            )
        blocks -= rest


def _check_counts(old: Geometry, groups: int) -> None:
    if groups > MAX_GROUPS:
        raise LimitExceeded(f"resize: expected at most {MAX_GROUPS} block groups, found {groups}")
    if groups * old.inodes_per_group > 0xFFFFFFFF:
        raise Unsupported(
            f"resize: expected at most {0xFFFFFFFF} inodes, found {groups} groups of {old.inodes_per_group}"
        )


def _candidate(
    superblock: Superblock, old: Geometry, blocks: int, groups: int, backup_fits: Callable[[int], bool]
) -> Target:
    reserved = superblock.reserved_blocks_count * blocks // old.blocks_count
    inodes = groups * old.inodes_per_group
    changed = superblock.replace(
        s_blocks_count_lo=blocks & 0xFFFFFFFF,
        s_blocks_count_hi=blocks >> 32,
        s_r_blocks_count_lo=reserved & 0xFFFFFFFF,
        s_r_blocks_count_hi=reserved >> 32,
        s_inodes_count=inodes,
    )
    _place_descriptors(
        changed, old, ceil_div(groups, old.descriptors_per_block), wide=blocks > max(old.blocks_count, 0xFFFFFFFF)
    )
    geo = geometry(changed, MAX_SIZE)
    if superblock.s_feature_compat & Compat.sparse_super2 and groups != old.groups:
        changed.s_backup_bgs = _BACKUP_BGS.pack(*_backups(old, groups))
        geo = geometry(changed, MAX_SIZE)
        last = groups - 1
        short = geo.group_end(last) - geo.group_start(last) < metadata_blocks(geo, last) + LEAST_USEFUL
        new_copy = last < old.groups and geo.has_super(last) and not old.has_super(last)
        if new_copy and (short or not backup_fits(last)):
            first, second = _BACKUP_BGS.unpack(changed.s_backup_bgs)
            kept = (0 if first == last else first, 0 if second == last else second)
            changed.s_backup_bgs = _BACKUP_BGS.pack(*kept)
            geo = geometry(changed, MAX_SIZE)
    return Target(changed, geo)


def _place_descriptors(superblock: Superblock, old: Geometry, needed: int, *, wide: bool) -> None:
    """Set the fields that say where ``needed`` descriptor blocks lie. What is in use already stays where it is."""
    if superblock.s_feature_incompat & Incompat.meta_bg:
        if superblock.s_first_meta_bg > needed:  # all that is left lies behind the superblock
            superblock.s_feature_incompat &= ~int(Incompat.meta_bg)
            superblock.s_first_meta_bg = 0
        return
    resizable = bool(superblock.s_feature_compat & Compat.resize_inode)
    more = needed - old.descriptor_blocks
    kept = superblock.s_reserved_gdt_blocks if resizable else 0
    if more > kept or (wide and resizable):  # block numbers past 32 bits do not fit the resize inode
        superblock.s_feature_compat &= ~int(Compat.resize_inode)
        superblock.s_feature_incompat |= int(Incompat.meta_bg)
        superblock.s_first_meta_bg = min(needed, old.descriptor_blocks + kept)
        superblock.s_reserved_gdt_blocks = 0
    elif resizable:
        superblock.s_reserved_gdt_blocks = min(kept - more, old.block_size // 4)


def _backups(old: Geometry, groups: int) -> tuple[int, int]:
    """Return the two groups with backups: the first stays, the second is the last group as it was before."""
    assert old.backup_groups is not None, "resize bug: only sparse_super2 names groups"
    first, second = old.backup_groups
    last = groups - 1
    if groups > old.groups:
        if old.groups == 1:
            first = 1
        if last > 1 and (old.groups <= 2 or second == old.groups - 1):
            second = last
    else:
        if second == old.groups - 1 or second > last:
            second = last if second and last > 1 else 0
        if first > last:
            first = 0
    return first, 0 if second == first else second
