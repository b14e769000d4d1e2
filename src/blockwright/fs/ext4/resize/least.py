"""The smallest size that a file system can have while nothing in it moves, and while no inode does.

Knows: what is in use, and which of it goes with its group. Refuses to know: what uses it, but for what cannot move.

Source: Linux 6.1, Documentation/filesystems/ext4 (blockgroup, group_descr, bitmaps).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from blockwright.fs.ext4.geometry import Geometry
from blockwright.fs.ext4.inode import S_IFREG
from blockwright.fs.ext4.layout import Compat, GroupDescriptor, GroupFlag, ReservedInode
from blockwright.fs.ext4.mapping import map_blocks
from blockwright.fs.ext4.resize.bitmaps import has_group_checksums, read_block_bitmap
from blockwright.fs.ext4.resize.target import LEAST_USEFUL, MAX_GROUPS, metadata_blocks
from blockwright.fs.ext4.volume import Volume


def least_blocks(volume: Volume) -> int:
    """Return the fewest blocks that hold all that is in use. Raises Corrupt, Unsupported."""
    geo = volume.geometry
    if geo.groups > MAX_GROUPS:
        raise volume.unsupported(f"resize: expected at most {MAX_GROUPS} block groups, found {geo.groups}")
    ends = _metadata_ends(volume)
    gone: dict[int, int] = {}
    """By group, the bits of what goes with the groups behind the one that is looked at."""
    group = geo.groups - 1
    while group > 0 and ends[group - 1] <= geo.group_start(group):
        descriptor = volume.descriptor(group)
        if _uses_inodes(volume, group, descriptor):
            break
        with_own = dict(gone)
        _add_metadata(with_own, geo, group, descriptor)
        own = with_own.get(group, 0)
        if _used(volume, group, descriptor) & ~own:
            break
        gone = {index: bits for index, bits in with_own.items() if index < group}
        group -= 1
    used = _used(volume, group, volume.descriptor(group)) & ~gone.get(group, 0)
    start = geo.group_start(group)
    needed = max(used.bit_length(), metadata_blocks(geo, group) + LEAST_USEFUL)
    return min(geo.blocks_count, start + min(needed, geo.blocks_per_group))


def _metadata_ends(volume: Volume) -> array[int]:
    """Return for each group the first block behind the metadata of all groups up to it."""
    geo, found, end = volume.geometry, array("Q"), 0
    for group in range(geo.groups):
        descriptor = volume.descriptor(group)
        table = descriptor.inode_table + geo.inode_table_blocks
        end = max(end, descriptor.block_bitmap + 1, descriptor.inode_bitmap + 1, table)
        found.append(end)
    return found


def _add_metadata(gone: dict[int, int], geo: Geometry, group: int, descriptor: GroupDescriptor) -> None:
    """Add what a group uses for itself, wherever it lies."""
    parts = [
        *geo.overhead(group),
        (descriptor.block_bitmap, 1),
        (descriptor.inode_bitmap, 1),
        (descriptor.inode_table, geo.inode_table_blocks),
    ]
    for first, count in parts:
        start, end = first, first + count
        while start < end:
            index = geo.group_of(start)
            low = geo.group_start(index)
            high = min(end, low + geo.blocks_per_group)
            gone[index] = gone.get(index, 0) | ((1 << high - start) - 1) << start - low
            start = high


def _used(volume: Volume, group: int, descriptor: GroupDescriptor) -> int:
    """Return a group's block bitmap as a number, without bits behind the group's end."""
    geo = volume.geometry
    bits = int.from_bytes(read_block_bitmap(volume, group, descriptor), "little")
    return bits & (1 << geo.group_end(group) - geo.group_start(group)) - 1


def least_blocks_moved(volume: Volume) -> int:
    """Return the fewest blocks that hold all that is in use once blocks have moved, which inodes do not.

    Some are left over for maps that become larger. Raises Corrupt.
    """
    geo = volume.geometry
    ends = _metadata_ends(volume)
    used = sum(
        geo.group_end(group) - geo.group_start(group) - volume.descriptor(group).free_blocks_count
        for group in range(geo.groups)
    )
    going = _going(volume)
    gone = sum(going)
    fixed = _immovable_end(volume)
    last_used = max((number for number in used_inodes(volume)), default=1)
    for group in range(geo.groups):
        gone -= going[group]
        if group < geo.inode_place(last_used)[0]:
            continue
        kept = used - gone
        start = geo.group_start(group)
        needed = start + metadata_blocks(geo, group) + LEAST_USEFUL
        found = max(geo.first_data_block + kept + kept // _SPARE + LEAST_USEFUL, ends[group], fixed, needed)
        if found <= geo.group_end(group):
            return found
    return geo.blocks_count


def _going(volume: Volume) -> array[int]:
    """Return for each group how many blocks of groups' metadata go, once that group goes, that did not before.

    What lies among groups that stay counts as in use until its own group is gone.
    """
    geo, found = volume.geometry, array("Q", bytes(8 * volume.geometry.groups))
    for group in range(geo.groups):
        descriptor = volume.descriptor(group)
        found[group] += sum(count for _, count in geo.overhead(group))
        for block, count in (
            (descriptor.block_bitmap, 1),
            (descriptor.inode_bitmap, 1),
            (descriptor.inode_table, geo.inode_table_blocks),
        ):
            volume.check_run(block, count, f"metadata of group {group}")
            found[min(group, geo.group_of(block))] += count
    return found


_SPARE: Final = 256
"""Of so many blocks in use one more is left free, for maps of files in more pieces than before."""


def _immovable_end(volume: Volume) -> int:
    """Return the first block behind what belongs to inodes and cannot move."""
    numbers = [int(ReservedInode.bad_blocks)]
    if volume.superblock.s_feature_compat & Compat.orphan_file:
        numbers.append(volume.superblock.s_orphan_file_inum)
    end = 0
    for number in numbers:
        inode = volume.inode(number)
        if inode.kind == S_IFREG or number == ReservedInode.bad_blocks:
            runs, tree = map_blocks(volume, inode)
            end = max([end, *(run.physical + run.blocks for run in runs), *(block + 1 for block in tree)])
    return end


def used_inodes(volume: Volume) -> Iterator[int]:
    """Yield the numbers of all inodes in use, ascending."""
    geo = volume.geometry
    for group in range(geo.groups):
        descriptor = volume.descriptor(group)
        if descriptor.bg_flags & GroupFlag.inode_uninit and has_group_checksums(volume):
            continue
        data = volume.blocks(descriptor.inode_bitmap, 1, f"inode bitmap of group {group}")
        bits = int.from_bytes(data, "little") & (1 << geo.inodes_per_group) - 1
        for byte in range(0, geo.inodes_per_group, 64):
            part = bits >> byte & (1 << 64) - 1
            while part:
                low = part & -part
                part ^= low
                yield group * geo.inodes_per_group + byte + low.bit_length()


def _uses_inodes(volume: Volume, group: int, descriptor: GroupDescriptor) -> bool:
    geo = volume.geometry
    if descriptor.bg_flags & GroupFlag.inode_uninit and has_group_checksums(volume):
        return False
    data = volume.blocks(descriptor.inode_bitmap, 1, f"inode bitmap of group {group}")
    return bool(int.from_bytes(data, "little") & (1 << geo.inodes_per_group) - 1)
