"""How large a file system must be: blocks, inodes and journal that just fit what is asked for.

Solved with arithmetic before anything is placed: the least number of blocks whose overhead leaves as many as the
tree needs, and the fraction that shall stay free.

Knows: counts. Refuses to know: files, and where anything lies.

Source: mke2fs(8) for the journal's size by the file system's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from blockwright.errors import NoSpace, UsageError
from blockwright.fs.ext4.layout import Compat, Incompat
from blockwright.fs.ext4.options import DEFAULT_BYTES_PER_INODE, Ext4Options
from blockwright.fs.ext4.plan_geometry import (
    PlannedGeometry,
    inodes_per_group,
    last_flex_fits,
    max_inodes_per_group,
    reserved_descriptor_blocks,
)
from blockwright.fs.ext4.plan_maps import maps_of
from blockwright.units import align_down, ceil_div

MIN_BLOCKS_FOR_JOURNAL: Final = 2048
_JOURNAL_TABLE: Final = (
    (32768, 1024),
    (256 << 10, 4096),
    (512 << 10, 8192),
    (4096 << 10, 16384),
    (8192 << 10, 32768),
    (16384 << 10, 65536),
    (32768 << 10, 131072),
    (1 << 64, 262144),
)
"""Blocks of the journal by blocks of the file system, below each bound."""

SLACK_PER_CUT: Final = 2
"""Blocks kept for each zone of metadata that may cut a file; what is not needed is trimmed in the end."""
MAX_INODES: Final = 0xFFFFFFFF
MAX_BLOCKS: Final = 0xFFFFFFFF
"""Of a file system whose block numbers have 32 bits."""
SHORTEST_LAST_GROUP: Final = 50
"""Blocks that a last group must have for files, or it is left out of a given size."""


class Demand(NamedTuple):
    """What a tree needs: inodes with the reserved ones; blocks of files and directories, without the journal's.

    ``sensitive``: a file's extent tree may need another block when the file is cut at a group's metadata.
    """

    inodes: int
    blocks: int
    sensitive: bool = False


class Sized(NamedTuple):
    """A geometry, and the blocks of the journal, 0 for none."""

    geometry: PlannedGeometry
    journal_blocks: int


def default_journal_blocks(blocks: int) -> int:
    """Return what mke2fs gives a file system of ``blocks``; 0 where it is too small for a journal."""
    if blocks < MIN_BLOCKS_FOR_JOURNAL:
        return 0
    return next(journal for bound, journal in _JOURNAL_TABLE if blocks < bound)


def journal_of(blocks: int, options: Ext4Options) -> int:
    """Return the blocks of the journal that a file system of ``blocks`` gets, as the options ask."""
    if not options.wants_journal:
        return 0
    return default_journal_blocks(blocks) if options.journal is None else options.journal // options.block_size


def mapped(journal: int, options: Ext4Options) -> int:
    """Return a journal's blocks with those that its map takes."""
    return journal + maps_of(options.form, 0).count([(0, journal)])


def smallest(demand: Demand, options: Ext4Options) -> Sized:
    """Return the smallest file system that holds the demand with the fraction asked for left free."""
    for journal, bound in journals(options):
        geometry = _least(demand, options, journal)
        if geometry.blocks < bound:
            return Sized(geometry, journal)
    raise AssertionError("unreachable: the last bound is above every size")


def of_size(demand: Demand, options: Ext4Options, size: int) -> Iterator[Sized]:
    """Yield the file systems of ``size`` bytes that have room for the demand, the better one first.

    A last group too short to be of use is left out where it can be, as mke2fs does.
    """
    for geometry in given_geometries(demand, options, size // options.block_size):
        journal = journal_of(geometry.blocks, options)
        have = geometry.blocks - geometry.overhead - mapped(journal, options)
        inodes = demand.inodes + options.extra_inodes
        enough = have >= least_capacity(demand.blocks, options) and geometry.inodes >= inodes
        if enough and last_flex_fits(geometry):
            yield Sized(geometry, journal)


def given_geometries(demand: Demand, options: Ext4Options, blocks: int) -> Iterator[PlannedGeometry]:
    """Yield the geometries of a file system of about ``blocks``, with the inodes that its size asks for.

    There are fewer inodes where the groups cannot have as many.
    """
    ratio = options.bytes_per_inode or DEFAULT_BYTES_PER_INODE
    least = options.inodes if options.inodes is not None else blocks * options.block_size // ratio
    inodes = min(max(least, demand.inodes + options.extra_inodes), MAX_INODES)
    geometry = _geometry(options, blocks, inodes)
    last = geometry.groups - 1
    base = geometry.base_blocks if geometry.base_zones(last, last + 1) else 0
    length = geometry.group_end(last) - geometry.group_start(last)
    if last and length < base + 2 + geometry.inode_table_blocks + SHORTEST_LAST_GROUP:
        yield _geometry(options, geometry.group_start(last), inodes)
    yield geometry


def journals(options: Ext4Options) -> Iterator[tuple[int, int]]:
    """Yield the journals to try, smallest first, each with the number of blocks it is too small for."""
    if not options.wants_journal:
        yield 0, 1 << 64
    elif options.journal:
        yield options.journal // options.block_size, 1 << 64
    else:
        yield 0, MIN_BLOCKS_FOR_JOURNAL
        for bound, journal in _JOURNAL_TABLE:
            yield journal, bound


def least_capacity(blocks: int, options: Ext4Options) -> int:
    """Return how many blocks there must be beside overhead and journal, if ``blocks`` of them are to be in use."""
    return ceil_div(blocks * 1_000_000, 1_000_000 - round(options.free * 1_000_000))


def _least(demand: Demand, options: Ext4Options, journal: int) -> PlannedGeometry:
    """Return the geometry with the fewest blocks, coming from below: each step adds what is still missing."""
    blocks = 8
    while True:
        geometry = auto_geometry(demand, options, blocks)
        blocks = geometry.blocks
        cuts = ceil_div(geometry.groups, options.form.groups_per_flex) + len(geometry.base_zones(0, geometry.groups))
        slack = SLACK_PER_CUT * cuts if demand.sensitive or _heads_spill(geometry) else 0
        need = geometry.overhead + mapped(journal, options) + least_capacity(demand.blocks, options) + slack
        if need > blocks:
            blocks = need
        elif last_flex_fits(geometry):
            return geometry
        else:
            blocks += 1


def auto_geometry(demand: Demand, options: Ext4Options, blocks: int) -> PlannedGeometry:
    """Return the geometry of ``blocks`` with the inodes that are needed; of more blocks where groups are too few."""
    most = max_inodes_per_group(options.block_size)
    while True:
        inodes = demand.inodes + options.extra_inodes
        inodes = inodes + _spare_inodes(demand, options) if options.inodes is None else max(inodes, options.inodes)
        inodes = max(inodes, ceil_div(blocks * options.block_size, options.bytes_per_inode or 1 << 62))
        if inodes > MAX_INODES:
            raise NoSpace(f"ext4: expected at most {MAX_INODES} inodes, found {inodes}")
        geometry = _geometry(options, blocks, inodes)
        if geometry.inodes >= inodes:
            return geometry
        more = (ceil_div(inodes, most) - 1) * 8 * options.block_size + 8
        if more <= blocks:
            found = geometry.inodes
            raise NoSpace(f"ext4: expected at most {found} inodes in {geometry.groups} groups, found {inodes}")
        blocks = more


def _spare_inodes(demand: Demand, options: Ext4Options) -> int:
    """Return the inodes for what is left free on request: space that no file can be made in is of no use."""
    free = least_capacity(demand.blocks, options) - demand.blocks
    return ceil_div(free * options.block_size, options.bytes_per_inode or DEFAULT_BYTES_PER_INODE)


def _heads_spill(geometry: PlannedGeometry) -> bool:
    """Return whether a flex group's metadata may leave gaps so short that a small file is cut several times."""
    metadata = geometry.form.groups_per_flex * (2 + geometry.inode_table_blocks) + geometry.base_blocks
    return geometry.groups > 1 and 2 * metadata > geometry.blocks_per_group


def _geometry(options: Ext4Options, blocks: int, inodes: int) -> PlannedGeometry:
    size, form = options.block_size, options.form
    if blocks > MAX_BLOCKS and not options.features.incompat & Incompat.bit64:
        raise UsageError(f"ext4 size: expected at most {MAX_BLOCKS} blocks without 64bit, found {blocks}")
    groups = ceil_div(max(blocks - (size == 1024), 1), 8 * size)
    resizable = options.features.compat & Compat.resize_inode
    reserved = reserved_descriptor_blocks(size, blocks, form.descriptor_size) if resizable else 0
    per_group = min(inodes_per_group(size, groups, inodes, form.inode_size), max_inodes_per_group(size))
    if groups * per_group > MAX_INODES:  # which rounding up has made of as many as there can be
        per_group = align_down(MAX_INODES // groups, max(8, size // form.inode_size))
    geometry = PlannedGeometry(form, blocks, per_group, reserved)
    if geometry.base_blocks > 4 * size:
        raise UsageError(
            f"ext4 size: expected descriptors of at most half a group, found {geometry.base_blocks} blocks "
            f"for {blocks} blocks of {size} bytes"
        )
    return geometry
