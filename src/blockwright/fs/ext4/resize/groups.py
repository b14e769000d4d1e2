"""Groups that are added to a file system: where their bitmaps and inode tables lie, and what they hold at first.

With flex_bg those of a flex group lie together at the head of its first new group, else each lie in its own group.

Knows: new groups, of which nothing is in use but their own metadata. Refuses to know: the groups that are there.

Source: Linux 6.1, Documentation/filesystems/ext4 (blockgroup, group_descr, bitmaps).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from blockwright.errors import NoSpace
from blockwright.fs.ext4.check.claims import set_bits
from blockwright.fs.ext4.geometry import Geometry
from blockwright.fs.ext4.plan_geometry import Cursor

MAX_LOG_BATCH: Final = 6
"""Groups, as a power of two, whose metadata is put together, whatever larger flex groups the file system has."""
Zone = tuple[int, int]


class NewGroup(NamedTuple):
    """Where a group's metadata lies, and the zones [start, end) within it that are in use; ``alone`` where all of
    them are its own, as an uninitialised bitmap means.
    """

    number: int
    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    used: tuple[Zone, ...]
    alone: bool

    @property
    def used_blocks(self) -> int:
        """How many blocks of the group are in use."""
        return sum(end - start for start, end in self.used)


def new_groups(geo: Geometry, first: int, log_flex: int | None) -> Iterator[list[NewGroup]]:
    """Yield the groups from ``first`` on, those together whose metadata lies together. ``log_flex`` None: no flex_bg.

    Raises NoSpace where a group has no room for its own metadata.
    """
    batch = 1 << min(log_flex or 0, MAX_LOG_BATCH)
    while first < geo.groups:
        last = min(geo.groups, (first // batch + 1) * batch)
        yield _batch(geo, first, last)
        first = last


def _batch(geo: Geometry, first: int, last: int) -> list[NewGroup]:
    heads = [(start, start + count) for group in range(first, last) for start, count in geo.overhead(group)]
    count = last - first
    cursor = Cursor(geo.group_start(first), heads)
    bitmaps, inodes = cursor.take(count), cursor.take(count)
    places = [(bitmaps + index, inodes + index, cursor.take(geo.inode_table_blocks)) for index in range(count)]
    if cursor.position > geo.group_end(last - 1):
        places = [_in_group(geo, group) for group in range(first, last)]
    zones = list(heads)
    for block_bitmap, inode_bitmap, table in places:
        zones += [(block_bitmap, block_bitmap + 1), (inode_bitmap, inode_bitmap + 1)]
        zones.append((table, table + geo.inode_table_blocks))
    zones = _joined(zones)
    return [_group(geo, first + index, place, zones) for index, place in enumerate(places)]


def _in_group(geo: Geometry, group: int) -> tuple[int, int, int]:
    """Return where a group's bitmaps and table lie within itself."""
    cursor = Cursor(geo.group_start(group), [(start, start + count) for start, count in geo.overhead(group)])
    place = cursor.take(1), cursor.take(1), cursor.take(geo.inode_table_blocks)
    if cursor.position > geo.group_end(group):
        size = geo.group_end(group) - geo.group_start(group)
        raise NoSpace(
            f"resize: group {group}: expected room for its metadata in {size} blocks, "
            f"found {cursor.position - geo.group_end(group)} blocks too few"
        )
    return place


def _joined(zones: list[Zone]) -> list[Zone]:
    found: list[Zone] = []
    for start, end in sorted(zones):
        if found and start == found[-1][1]:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _group(geo: Geometry, number: int, place: tuple[int, int, int], zones: list[Zone]) -> NewGroup:
    low, high = geo.group_start(number), geo.group_end(number)
    used = tuple((max(low, start), min(high, end)) for start, end in zones if start < high and end > low)
    own = sum(count for _, count in geo.own_blocks(number, *place))
    return NewGroup(number, *place, used, own == sum(end - start for start, end in used))


def block_bitmap(geo: Geometry, group: int, used: tuple[Zone, ...]) -> bytes:
    """Return the bitmap block of a group of which only ``used`` is in use; bits behind its end are set."""
    start = geo.group_start(group)
    bitmap = bytearray(geo.block_size)
    for low, high in used:
        set_bits(bitmap, low - start, high - low)
    pad(bitmap, geo.group_end(group) - start)
    return bytes(bitmap)


def inode_bitmap(geo: Geometry) -> bytes:
    """Return the bitmap block of a group without inodes in use; bits behind its last are set."""
    bitmap = bytearray(geo.block_size)
    pad(bitmap, geo.inodes_per_group)
    return bytes(bitmap)


def pad(bitmap: bytearray, bits: int) -> None:
    """Set all bits from ``bits`` on."""
    if bits < 8 * len(bitmap):
        set_bits(bitmap, bits, 8 * len(bitmap) - bits)
