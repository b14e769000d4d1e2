"""The numbers that a volume has at another size.

Where the FATs have room for the new number of clusters, everything stays in its place. Where they have not, larger
ones go where the data area begins, which then begins behind them, a whole number of clusters later: what was before
becomes reserved sectors. So nothing that counts is written over before the boot sector says otherwise.

Knows: which numbers follow from a size, and which sizes a type of FAT has. Refuses to know: what is in use.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from blockwright.errors import Unsupported, UsageError
from blockwright.fs.fat import layout
from blockwright.fs.fat.geometry import BOUNDS, MAX_SECTORS, Geometry
from blockwright.units import ceil_div

MAX_RESERVED: Final = 0xFFFF
"""Reserved sectors that a boot sector can tell of."""


class Target(NamedTuple):
    """The geometry to be, and by how many clusters its data area begins later than now."""

    geometry: Geometry
    shift: int


def fat_room(geometry: Geometry) -> int:
    """Return for how many clusters the FATs have room."""
    return geometry.fat_sectors * geometry.sector_size * 8 // geometry.bits - layout.FIRST_CLUSTER


def bounds(geometry: Geometry) -> tuple[int, int]:
    """Return the least and the most clusters with which a volume stays of its type, for every reader.

    As few or as many as it has are always right, and a FAT32 that has too few already may have fewer.
    """
    low, high = BOUNDS[geometry.bits]
    if geometry.bits == 32 and geometry.clusters < layout.MIN_FAT32:
        low = 1
    return min(low, geometry.clusters), max(high, geometry.clusters)


def target_of(base: Geometry, size: int) -> Target:
    """Return what a volume of these numbers is at a size in bytes.

    An end for which larger FATs would take more than it gives is left out. Raises UsageError for a size that would
    make it another type of FAT; Unsupported where more sectors would be reserved than a boot sector can tell of.
    """
    total = size // base.sector_size
    before = base.data_start // base.sector_size
    spc = base.sectors_per_cluster
    target = Target(_with_total(base, total), 0)
    room = fat_room(base)
    if target.geometry.clusters > room:
        moved = _moved(base, total)
        within = Target(_with_total(base, before + room * spc), 0)
        target = Target(moved, (moved.data_start - base.data_start) // base.cluster_size)
        if moved.clusters <= room:
            target = within
    _check(base, target.geometry, size)
    if target.geometry.reserved_sectors > MAX_RESERVED:
        raise Unsupported(
            f"fat: expected at most {within.geometry.size} bytes, found {size}: larger FATs would take "
            f"{target.geometry.reserved_sectors} reserved sectors, and a boot sector can say {MAX_RESERVED}: make a "
            "new file system with larger clusters to have more"
        )
    return target


def _check(base: Geometry, found: Geometry, size: int) -> None:
    """Raise UsageError for a number of clusters that would be another type of FAT."""
    low, high = bounds(base)
    if found.clusters > high:
        raise UsageError(
            f"fat: expected at most {_most(base, high)} bytes, found {size}: FAT{base.bits} has {high} clusters "
            f"at the most, and these are of {base.cluster_size} bytes: make a new file system to have more"
        )
    if found.clusters < low:
        raise UsageError(
            f"fat: expected at least {least_size(base, low)} bytes, found {size}: FAT{base.bits} has {low} "
            f"clusters at the least, and these are of {base.cluster_size} bytes: make a new file system to have less"
        )
    if found.total_sectors > MAX_SECTORS:
        raise UsageError(
            f"fat: expected at most {MAX_SECTORS * base.sector_size} bytes, which are {MAX_SECTORS} sectors, "
            f"found {size}"
        )


def least_size(base: Geometry, clusters: int) -> int:
    """Return the bytes of a volume with so many clusters, its data area where it is."""
    return base.data_start + clusters * base.cluster_size


def _most(base: Geometry, clusters: int) -> int:
    """Return the most bytes with which a volume has no more than so many clusters."""
    frame = base
    if clusters > fat_room(base):
        frame = _frame(base, _sectors_for(base, clusters))
    return frame.data_start + (clusters + 1) * base.cluster_size - base.sector_size


def _sectors_for(base: Geometry, clusters: int) -> int:
    return ceil_div((clusters + layout.FIRST_CLUSTER) * base.bits, 8 * base.sector_size)


def _with_total(base: Geometry, total: int) -> Geometry:
    clusters = max(0, total - base.data_start // base.sector_size) // base.sectors_per_cluster
    return replace(base, total_sectors=total, clusters=clusters)


def _frame(base: Geometry, fat_sectors: int) -> Geometry:
    """Return the geometry whose FATs, each of so many sectors, begin where the data area does now."""
    begin = base.data_start // base.sector_size
    added = base.fats * fat_sectors + ceil_div(base.root_size, base.sector_size)
    return replace(base, reserved_sectors=begin + -added % base.sectors_per_cluster, fat_sectors=fat_sectors)


def _moved(base: Geometry, total: int) -> Geometry:
    """Return the volume of so many sectors with the smallest FATs that have room for its clusters."""
    low = base.fat_sectors + 1
    high = max(low, _sectors_for(base, _with_total(base, total).clusters))
    while low < high:
        middle = (low + high) // 2
        found = _with_total(_frame(base, middle), total)
        if found.clusters <= fat_room(found):
            high = middle
        else:
            low = middle + 1
    return _with_total(_frame(base, low), total)
