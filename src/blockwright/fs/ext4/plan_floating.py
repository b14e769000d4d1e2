"""Where metadata goes when the bodies came first: behind them, wherever their stream ended.

While bodies arrive, neither the size nor the number of inodes is known. Only superblocks and descriptors have fixed
places, so each copy gets a zone of ``DESCRIPTOR_ZONE`` blocks that no body touches; what descriptors and their
reserve leave of a zone in the end takes directories. flex_bg lets bitmaps and inode tables lie anywhere.

Knows: zones and arithmetic. Refuses to know: bodies, and how they are written.
"""

from __future__ import annotations

from array import array
from typing import Final, NamedTuple

from blockwright.errors import NoSpace
from blockwright.fs.ext4.layout import Compat
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan_allocate import Allocator
from blockwright.fs.ext4.plan_geometry import (
    DESCRIPTOR_SIZE,
    Cursor,
    Placement,
    PlannedGeometry,
    Zone,
    merge_zones,
    super_groups,
)
from blockwright.fs.ext4.plan_sizing import (
    SLACK_PER_CUT,
    Demand,
    Sized,
    auto_geometry,
    journals,
    least_capacity,
    mapped,
)

DESCRIPTOR_ZONE: Final = {1024: 512, 2048: 512, 4096: 256}
"""Blocks for descriptors and their reserve behind each superblock, by block size.

That is enough for 64 GiB, 256 GiB and 2 TiB.
"""


class Floating(NamedTuple):
    """A size that was found, with the placement of its metadata and the blocks that are still free."""

    sized: Sized
    placement: Placement
    allocator: Allocator


def most_groups(block_size: int) -> int:
    """Return how many groups' descriptors fit the zones."""
    return DESCRIPTOR_ZONE[block_size] * block_size // DESCRIPTOR_SIZE


def body_zones(block_size: int) -> list[Zone]:
    """Return the zones that bodies must leave free, in any file system that ``most_groups`` allows."""
    first = 1 if block_size == 1024 else 0
    starts = [first + group * 8 * block_size for group in super_groups(most_groups(block_size))]
    zones = [(start, start + 1 + DESCRIPTOR_ZONE[block_size]) for start in starts]
    return [(0, zones[0][1]), *zones[1:]]


def size_behind_bodies(demand: Demand, options: Ext4Options, cursor: int, bodies: int) -> Floating:
    """Return the smallest file system whose bodies end at block ``cursor`` and hold ``bodies`` blocks in use.

    ``demand`` is what is to be placed besides them. Raises NoSpace past what the descriptor zones describe.
    """
    for journal, bound in journals(options):
        found = _least(demand, options, cursor, bodies, journal)
        if found.sized.geometry.blocks < bound:
            return found
    raise AssertionError("unreachable: the last bound is above every size")


def _least(demand: Demand, options: Ext4Options, cursor: int, bodies: int, journal: int) -> Floating:
    """Come from below: each step adds what is still missing."""
    blocks = cursor + 8
    while True:
        geometry = _geometry(demand._replace(blocks=demand.blocks + bodies), options, blocks)
        placement, end = _place(geometry, cursor)
        taken = [*placement.zones, *_bodies(geometry, cursor)]
        allocator = Allocator(merge_zones(sorted(taken)), geometry.first_block, geometry.blocks)
        missing = max(
            end - geometry.blocks,
            demand.blocks + mapped(journal, options) + SLACK_PER_CUT * allocator.gaps - allocator.remaining(),
            geometry.overhead
            + mapped(journal, options)
            + least_capacity(bodies + demand.blocks, options)
            - geometry.blocks,
        )
        last = geometry.base_zones(geometry.groups - 1, geometry.groups)
        if last:
            missing = max(missing, last[0][1] + 1 - geometry.blocks)
        if missing <= 0:
            return Floating(Sized(geometry, journal), placement, allocator)
        blocks += missing


def _geometry(demand: Demand, options: Ext4Options, blocks: int) -> PlannedGeometry:
    """Return a geometry whose descriptors with their reserve do not outgrow the zones."""
    size = options.block_size
    geometry = auto_geometry(demand, options, blocks)
    room = DESCRIPTOR_ZONE[size] - geometry.descriptor_blocks
    if room < 0:
        raise NoSpace(
            f"ext4: the content does not fit a stream without a given size: expected at most "
            f"{most_groups(size) * 8 * size * size} bytes, found {blocks * size}"
        )
    resizable = options.features.compat & Compat.resize_inode
    reserved = min(room, geometry.reserved_descriptor_blocks) if resizable else 0
    return geometry._replace(reserved_descriptor_blocks=reserved)


def _place(geometry: PlannedGeometry, cursor: int) -> tuple[Placement, int]:
    """Return the placement with all bitmaps and inode tables from ``cursor`` on, and where they end."""
    zones = geometry.base_zones(0, geometry.groups)
    groups, table = geometry.groups, geometry.inode_table_blocks
    walk = Cursor(cursor, [zone for zone in zones if zone[1] > cursor])
    taken: list[Zone] = []

    def take(length: int) -> array[int]:
        starts = array("Q", [walk.take(length) for _ in range(groups)])
        taken.extend((start, start + length) for start in starts)
        return starts

    placement = Placement(take(1), take(1), take(table), [])
    placement.zones.extend(merge_zones(sorted([*zones, *taken])))
    return placement, walk.position


def _bodies(geometry: PlannedGeometry, cursor: int) -> list[Zone]:
    """Return everything before ``cursor`` that bodies may have been written to.

    What is left of a descriptor zone was never written to, so that blocks there read as zeros, as those of
    metadata must that is kept without them.
    """
    width = geometry.base_blocks
    reach = 1 + DESCRIPTOR_ZONE[geometry.block_size]
    found, position = [], geometry.first_block
    for group in super_groups(geometry.groups):
        start = geometry.group_start(group)
        if start >= cursor:
            break
        if position < start:
            found.append((position, start))
        position = max(position, start + reach)
        assert width <= reach, "descriptors within their zone"
    if position < cursor:
        found.append((position, cursor))
    return found
