"""In which way a range of a qcow2 disk can be written.

Knows: what an entry allows. Refuses to know: how anything is written.
"""

from __future__ import annotations

from array import array
from enum import Enum
from typing import NamedTuple

from blockwright.format.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, ZERO
from blockwright.format.qcow2.update import WritableMap


class Way(Enum):
    """How a run of the disk can be written."""

    PLACE = 1
    """Where it lies."""
    FILL = 2
    """Where its cluster lies, in subclusters that hold nothing yet."""
    NEW = 3
    """Into new clusters."""


class Run(NamedTuple):
    """[position, end) of the disk is written in one way; ``host`` is where the first byte goes."""

    way: Way
    end: int
    host: int = 0


def find_run(clusters: WritableMap, position: int, end: int) -> Run:
    """Return how the disk can be written from ``position`` on, and how far that goes; not past one L2 table."""
    geometry = clusters.geometry
    index, within = divmod(position, geometry.l2_span)
    end = min(end, position - within + geometry.l2_span)
    if not clusters.l1[index] & COPIED:
        return Run(Way.NEW, end)
    table = clusters.table(index)
    if table is None:
        return Run(Way.NEW, end)
    if geometry.extended:
        return _extended_run(clusters, table, position, end)
    bits = geometry.cluster_bits
    slot, last = within >> bits, (end - 1 - position + within) >> bits
    entry = table[slot]
    skip = position & (geometry.cluster - 1)
    if not _is_place(clusters, entry):
        stop = slot + 1
        while stop <= last and not _is_place(clusters, table[stop]):
            stop += 1
        return Run(Way.NEW, min(end, position - skip + ((stop - slot) << bits)))
    if entry & OFFSET_MASK & (geometry.cluster - 1):
        clusters.refuse(index, slot, entry)
    stop, following = slot + 1, entry
    while stop <= last:
        following += geometry.cluster
        if table[stop] != following:
            break
        stop += 1
    return Run(Way.PLACE, min(end, position - skip + ((stop - slot) << bits)), (entry & OFFSET_MASK) + skip)


def _is_place(clusters: WritableMap, entry: int) -> bool:
    """Whether the cluster is this state's alone and holds data."""
    return (
        bool(entry & COPIED)
        and not entry & (COMPRESSED | ZERO)
        and (bool(entry & OFFSET_MASK) or not clusters.own_data)
    )


def _extended_run(clusters: WritableMap, table: array[int], position: int, end: int) -> Run:
    """Return as ``find_run``, for one cluster with subclusters."""
    geometry = clusters.geometry
    slot = (position // geometry.cluster) % geometry.l2_entries
    entry, bitmap = table[2 * slot : 2 * slot + 2]
    skip = position % geometry.cluster
    end = min(end, position - skip + geometry.cluster)
    if not _is_place(clusters, entry):
        return Run(Way.NEW, end)
    host = (entry & OFFSET_MASK) + skip
    wanted = subcluster_bits(skip, skip + end - position, geometry.unit)
    return Run(Way.PLACE if bitmap & wanted == wanted else Way.FILL, end, host)


def subcluster_bits(low: int, high: int, unit: int) -> int:
    """Return a bit for each subcluster that [low, high) of a cluster touches."""
    first, last = low // unit, -(-high // unit)
    return ((1 << last) - 1) & ~((1 << first) - 1) if last > first else 0
