"""The arithmetic of a file system that is to be written: groups, backups, and where each group's metadata lies.

Bitmaps and inode tables of sixteen groups are packed together at the head of their flex group, behind whatever
superblock and descriptors stand there; without flex_bg a flex group is one group. A table is never cut in two.

Knows: block numbers. Refuses to know: files, bytes, and how the number of blocks and inodes was chosen.

Source: Linux 6.1, Documentation/filesystems/ext4/blockgroup.rst; mke2fs(8) for the resize reservation.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

from blockwright.fs.ext4.form import INODE_SIZE, Form
from blockwright.units import align_up, ceil_div

DESCRIPTOR_SIZE: Final = 64
"""Bytes of a group's descriptor where block numbers have 64 bits."""
RESIZE_FACTOR: Final = 1024
"""How many times larger the file system may grow online before its reserved descriptor blocks are used up."""

Zone = tuple[int, int]
"""Blocks [start, end)."""


def _powers(base: int) -> list[int]:
    found, value = [], base
    while value < 1 << 32:
        found.append(value)
        value *= base
    return found


_SPARSE: Final = sorted([0, 1, *_powers(3), *_powers(5), *_powers(7)])


def super_groups(groups: int) -> list[int]:
    """Return the groups that hold a superblock and descriptors, ascending: 0, 1 and the powers of 3, 5 and 7."""
    return _SPARSE[: bisect_left(_SPARSE, groups)]


class PlannedGeometry(NamedTuple):
    """The numbers that every address follows from. Positions and counts in blocks, sizes in bytes."""

    form: Form
    blocks: int
    inodes_per_group: int
    reserved_descriptor_blocks: int

    @property
    def block_size(self) -> int:
        """Bytes of a block."""
        return self.form.block_size

    @property
    def first_block(self) -> int:
        """Where group 0 starts: behind the boot block where blocks are 1 KiB."""
        return 1 if self.block_size == 1024 else 0

    @property
    def blocks_per_group(self) -> int:
        """As many as one bitmap block has bits."""
        return 8 * self.block_size

    @property
    def groups(self) -> int:
        """Groups, of which the last may be short."""
        return ceil_div(self.blocks - self.first_block, self.blocks_per_group)

    @property
    def descriptor_blocks(self) -> int:
        """Blocks that all descriptors take."""
        return ceil_div(self.groups * self.form.descriptor_size, self.block_size)

    @property
    def inode_table_blocks(self) -> int:
        """Blocks of one group's inode table."""
        return self.inodes_per_group * self.form.inode_size // self.block_size

    @property
    def inodes(self) -> int:
        """Inodes in all groups."""
        return self.groups * self.inodes_per_group

    @property
    def base_blocks(self) -> int:
        """Blocks of one superblock with its descriptors and the reserved ones."""
        return 1 + self.descriptor_blocks + self.reserved_descriptor_blocks

    @property
    def overhead(self) -> int:
        """Blocks that no file can have: everything in front of group 0, backups, bitmaps and inode tables."""
        copies = bisect_left(_SPARSE, self.groups)
        return self.first_block + copies * self.base_blocks + self.groups * (2 + self.inode_table_blocks)

    def group_start(self, group: int) -> int:
        """Return the group's first block."""
        return self.first_block + group * self.blocks_per_group

    def group_end(self, group: int) -> int:
        """Return the first block behind the group."""
        return min(self.blocks, self.first_block + (group + 1) * self.blocks_per_group)

    def base_zones(self, first: int, last: int) -> list[Zone]:
        """Return where superblocks with their descriptors lie in the groups [first, last)."""
        groups = _SPARSE[bisect_left(_SPARSE, first) : bisect_left(_SPARSE, last)]
        size = self.base_blocks
        return [(self.group_start(group), self.group_start(group) + size) for group in groups]


def inodes_per_group(block_size: int, groups: int, inodes: int, inode_size: int = INODE_SIZE) -> int:
    """Return the least number that gives ``inodes`` in all: a multiple of 8 that fills whole blocks of the table."""
    return align_up(max(1, ceil_div(inodes, groups)), max(8, block_size // inode_size))


def max_inodes_per_group(block_size: int) -> int:
    """Return as many inodes as one bitmap block has bits."""
    return 8 * block_size


def reserved_descriptor_blocks(block_size: int, blocks: int, descriptor_size: int = DESCRIPTOR_SIZE) -> int:
    """Return how many blocks are kept behind the descriptors, so that online resizing finds room for more.

    Enough for ``RESIZE_FACTOR`` times the size within 2**32 blocks, and no more than an indirect block can name.
    """
    first = 1 if block_size == 1024 else 0
    most = min(blocks * RESIZE_FACTOR, 0xFFFFFFFF)
    per_block = block_size // descriptor_size
    now = ceil_div(ceil_div(blocks - first, 8 * block_size), per_block)
    then = ceil_div(ceil_div(most - first, 8 * block_size), per_block)
    return max(0, min(then - now, block_size // 4))


class Placement(NamedTuple):
    """Where each group's bitmaps and inode table lie, and all the zones no file can use, ascending and merged."""

    block_bitmaps: array[int]
    inode_bitmaps: array[int]
    inode_tables: array[int]
    zones: list[Zone]


class Cursor:
    """Takes contiguous blocks, ascending, around zones that are taken already."""

    __slots__ = ("_next", "_zones", "position")

    def __init__(self, position: int, zones: list[Zone]) -> None:
        self.position = position
        self._zones = zones
        self._next = 0

    def take(self, length: int) -> int:
        """Return the first of ``length`` blocks."""
        while self._next < len(self._zones) and self._zones[self._next][0] < self.position + length:
            self.position = max(self.position, self._zones[self._next][1])
            self._next += 1
        start = self.position
        self.position = start + length
        return start


def flex_metadata(geometry: PlannedGeometry, flex: int) -> tuple[list[int], list[int], list[int], list[Zone]]:
    """Return block bitmaps, inode bitmaps and inode tables of one flex group's groups, and the zones they fill."""
    width = geometry.form.groups_per_flex
    first = flex * width
    last = min(first + width, geometry.groups)
    count, table = last - first, geometry.inode_table_blocks
    cursor = Cursor(geometry.group_start(first), geometry.base_zones(first, last))
    blocks = cursor.take(count)
    inodes = cursor.take(count)
    tables = [cursor.take(table) for _ in range(count)]
    zones = [(blocks, blocks + count), (inodes, inodes + count), *((start, start + table) for start in tables)]
    return list(range(blocks, blocks + count)), list(range(inodes, inodes + count)), tables, zones


def place_at_flex_heads(geometry: PlannedGeometry) -> Placement:
    """Return the placement with every flex group's metadata at its head."""
    placement = Placement(array("Q"), array("Q"), array("Q"), [])
    zones = geometry.base_zones(0, geometry.groups)
    for flex in range(ceil_div(geometry.groups, geometry.form.groups_per_flex)):
        blocks, inodes, tables, taken = flex_metadata(geometry, flex)
        placement.block_bitmaps.extend(blocks)
        placement.inode_bitmaps.extend(inodes)
        placement.inode_tables.extend(tables)
        zones += merge_zones(taken)
    placement.zones.extend(merge_zones(sorted(zones)))
    return placement


def last_flex_fits(geometry: PlannedGeometry) -> bool:
    """Return whether the last group, and with it the last flex group, is long enough for what must lie in it."""
    last = geometry.groups - 1
    if any(end > geometry.blocks for _, end in geometry.base_zones(last, last + 1)):
        return False
    return flex_metadata(geometry, last // geometry.form.groups_per_flex)[3][-1][1] <= geometry.blocks


def merge_zones(zones: list[Zone]) -> list[Zone]:
    """Return ascending zones with those joined that touch. Overlap is a bug of ours."""
    merged: list[Zone] = []
    for start, end in zones:
        if merged and start <= merged[-1][1]:
            assert start == merged[-1][1], f"planner bug: blocks {start} to {merged[-1][1]} taken twice"
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def group_of_zone(geometry: PlannedGeometry, zones: list[Zone], group: int) -> list[Zone]:
    """Return the parts of ascending zones that lie in a group."""
    start, end = geometry.group_start(group), geometry.group_end(group)
    index = max(0, bisect_right(zones, (start, 1 << 64)) - 1)
    found = []
    while index < len(zones) and zones[index][0] < end:
        low, high = max(zones[index][0], start), min(zones[index][1], end)
        if low < high:
            found.append((low, high))
        index += 1
    return found
