"""Group descriptors and bitmaps of a file system that is to be written.

A group that holds nothing but its own metadata keeps no block bitmap, one whose inodes are all unused no inode
bitmap and no table: the flags say so, and the blocks stay holes. Flags count only where descriptors are summed;
without sums all bitmaps are written. Equal bitmaps are one object.

Knows: which blocks and inodes are in use. Refuses to know: by what.

Source: Linux 6.1, Documentation/filesystems/ext4 (group_descr, bitmaps, blockgroup "Lazy Block Group
Initialization").
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc16, crc32c_raw
from blockwright.fs.ext4.form import Form
from blockwright.fs.ext4.layout import GroupFlag
from blockwright.fs.ext4.plan_geometry import Placement, PlannedGeometry, Zone, group_of_zone, super_groups

_DESCRIPTOR: Final = Struct("<III HHHH I HH H H III HHHH I HH 4x".replace(" ", ""))
"""Block bitmap, inode bitmap, inode table; free blocks, free inodes, directories, flags; (exclude bitmap); both
bitmaps' checksums, unused inodes, checksum; then the high halves of the same."""
_CHECKSUM_OFFSET: Final = 0x1E


class GroupState(NamedTuple):
    """What one group's descriptor says. Positions and counts in blocks and inodes."""

    number: int
    first_block: int
    end_block: int
    superblock: int | None
    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    free_blocks: int
    free_inodes: int
    directories: int
    unused_inodes: int
    flags: int


class Usage(NamedTuple):
    """What is in use: merged ascending zones of blocks; inodes 1 to ``last_inode``; directories by group."""

    zones: list[Zone]
    last_inode: int
    directories: array[int]


class Groups(NamedTuple):
    """All descriptors as bytes, the bitmaps that must be written as (block, bytes), and the totals."""

    descriptors: bytes
    bitmaps: list[tuple[int, bytes]]
    free_blocks: int
    free_inodes: int


class _Bitmaps:
    """Makes bitmaps, and their checksums; equal ones once."""

    def __init__(self, geometry: PlannedGeometry, seed: int) -> None:
        self._geometry = geometry
        self._seed = seed
        self._blocks: dict[int, tuple[bytes, int]] = {}
        self._inodes: dict[int, tuple[bytes, int]] = {}

    def blocks(self, start: int, end: int, zones: list[Zone]) -> tuple[bytes, int]:
        """Return the bitmap of the group [start, end); bits behind its end are set."""
        size = self._geometry.blocks_per_group
        bits = (1 << size) - (1 << end - start)
        for low, high in zones:
            bits |= (1 << high - start) - (1 << low - start)
        found = self._blocks.get(bits)
        if found is None:
            data = bits.to_bytes(size // 8, "little")
            found = self._blocks[bits] = data, self._sum(data)
        return found

    def inodes(self, used: int) -> tuple[bytes, int]:
        """Return the bitmap of a group whose first ``used`` inodes are in use; bits behind its last are set."""
        found = self._inodes.get(used)
        if found is None:
            size, count = self._geometry.blocks_per_group, self._geometry.inodes_per_group
            bits = (1 << size) - (1 << count) + (1 << used) - 1
            data = bits.to_bytes(size // 8, "little")
            found = self._inodes[used] = data, self._sum(data[: count // 8])
        return found

    def _sum(self, data: bytes) -> int:
        return crc32c_raw(self._seed, data) if self._geometry.form.metadata_csum else 0


def group_states(geometry: PlannedGeometry, placement: Placement, usage: Usage) -> Iterator[GroupState]:
    """Yield what each group's descriptor says, in order."""
    per_group, last_group = geometry.inodes_per_group, geometry.groups - 1
    supers = set(super_groups(geometry.groups))
    spread = _spread(geometry, usage.zones)
    lazy = geometry.form.metadata_csum or geometry.form.group_csum
    for group in range(geometry.groups):
        start, end = geometry.group_start(group), geometry.group_end(group)
        used_blocks = spread[group]
        used_inodes = min(max(usage.last_inode - group * per_group, 0), per_group)
        places = placement.block_bitmaps[group], placement.inode_bitmaps[group], placement.inode_tables[group]
        own = geometry.base_blocks if group in supers else 0
        own += _own_blocks(geometry, start, end, *places)
        flags = GroupFlag.inode_zeroed.value if lazy else 0
        if lazy and not used_inodes:
            flags |= GroupFlag.inode_uninit.value
        if lazy and used_blocks == own and 0 < group < last_group:
            flags |= GroupFlag.block_uninit.value
        yield GroupState(
            group,
            start,
            end,
            start if group in supers else None,
            *places,
            end - start - used_blocks,
            per_group - used_inodes,
            usage.directories[group],
            per_group - used_inodes if lazy else 0,
            flags,
        )


def _spread(geometry: PlannedGeometry, zones: list[Zone]) -> array[int]:
    """Return how many blocks of each group the zones fill."""
    counts = array("Q", bytes(8 * geometry.groups))
    first, size = geometry.first_block, geometry.blocks_per_group
    for low, high in zones:
        start = max(low, first)
        while start < high:
            group = (start - first) // size
            end = min(high, first + (group + 1) * size)
            counts[group] += end - start
            start = end
    return counts


def _own_blocks(geometry: PlannedGeometry, start: int, end: int, blocks: int, inodes: int, table: int) -> int:
    """Return how many blocks of the group's own bitmaps and table lie in [start, end)."""
    table_end = table + geometry.inode_table_blocks
    return (start <= blocks < end) + (start <= inodes < end) + max(0, min(end, table_end) - max(start, table))


def build_groups(geometry: PlannedGeometry, placement: Placement, usage: Usage, uuid: bytes) -> Groups:
    """Return the descriptors and bitmaps of all groups. Every checksum starts with the ``uuid``."""
    seed = crc32c_raw(0xFFFFFFFF, uuid)
    summed = _summing(geometry.form, uuid, seed)
    maker = _Bitmaps(geometry, seed)
    descriptors, bitmaps = bytearray(), []
    free_blocks = free_inodes = 0
    for state in group_states(geometry, placement, usage):
        block_sum = inode_sum = 0
        if not state.flags & GroupFlag.block_uninit:
            zones = group_of_zone(geometry, usage.zones, state.number)
            data, block_sum = maker.blocks(state.first_block, state.end_block, zones)
            bitmaps.append((state.block_bitmap, data))
        if not state.flags & GroupFlag.inode_uninit:
            data, inode_sum = maker.inodes(geometry.inodes_per_group - state.free_inodes)
            bitmaps.append((state.inode_bitmap, data))
        data = _descriptor(state, block_sum, inode_sum)[: geometry.form.descriptor_size]
        descriptors += data if summed is None else _with_checksum(data, summed(state.number, data))
        free_blocks += state.free_blocks
        free_inodes += state.free_inodes
    return Groups(bytes(descriptors), bitmaps, free_blocks, free_inodes)


def _summing(form: Form, uuid: bytes, seed: int) -> Callable[[int, bytes], int] | None:
    """Return what sums a group's descriptor whose checksum is 0, None where nothing does."""
    if form.metadata_csum:
        return lambda group, data: crc32c_raw(seed, group.to_bytes(4, "little") + data) & 0xFFFF
    if form.group_csum:
        start = crc16(0xFFFF, uuid)
        end = _CHECKSUM_OFFSET
        return lambda group, data: crc16(start, group.to_bytes(4, "little") + data[:end] + data[end + 2 :])
    return None


def _with_checksum(data: bytes, checksum: int) -> bytes:
    return data[:_CHECKSUM_OFFSET] + checksum.to_bytes(2, "little") + data[_CHECKSUM_OFFSET + 2 :]


def _descriptor(state: GroupState, block_sum: int, inode_sum: int) -> bytes:
    blocks, inodes, table = state.block_bitmap, state.inode_bitmap, state.inode_table
    return _DESCRIPTOR.pack(
        blocks & 0xFFFFFFFF,
        inodes & 0xFFFFFFFF,
        table & 0xFFFFFFFF,
        state.free_blocks & 0xFFFF,
        state.free_inodes & 0xFFFF,
        state.directories & 0xFFFF,
        state.flags,
        0,
        block_sum & 0xFFFF,
        inode_sum & 0xFFFF,
        state.unused_inodes & 0xFFFF,
        0,
        blocks >> 32,
        inodes >> 32,
        table >> 32,
        state.free_blocks >> 16,
        state.free_inodes >> 16,
        state.directories >> 16,
        state.unused_inodes >> 16,
        0,
        block_sum >> 16,
        inode_sum >> 16,
    )
