"""A tree becomes an ext4 file system: where every byte lies, before any is written.

Knows: the order of the steps. Refuses to know: input and output.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from blockwright.codec.checksum import crc32c_raw
from blockwright.device.planned import SegmentTable
from blockwright.errors import NoSpace, UsageError
from blockwright.fs.ext4.form import Form
from blockwright.fs.ext4.layout import SUPERBLOCK_OFFSET, Compat, Incompat, ReservedInode
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan_allocate import Allocator
from blockwright.fs.ext4.plan_directory import DirectoryFormat
from blockwright.fs.ext4.plan_geometry import (
    Placement,
    PlannedGeometry,
    Zone,
    merge_zones,
    place_at_flex_heads,
    super_groups,
)
from blockwright.fs.ext4.plan_groups import Groups, GroupState, Usage, build_groups, group_states
from blockwright.fs.ext4.plan_maps import Maps, maps_of
from blockwright.fs.ext4.plan_measure import Measured, measure
from blockwright.fs.ext4.plan_sizing import Demand, Sized, least_capacity, of_size, smallest
from blockwright.fs.ext4.plan_super import (
    SuperValues,
    build_superblock,
    journal_superblock,
    pack_superblock,
    resize_inode_blocks,
    resize_map,
)
from blockwright.fs.ext4.plan_tree import Inventory, take_inventory
from blockwright.fs.ext4.plan_write import Writer
from blockwright.tree.node import Directory

_PRIVATE_FILE = 0o100600
_LEVELS = 2
"""Of index blocks in a directory, without large_dir."""
_EXT3_FEATURES = {"has_journal", "ext_attr", "resize_inode", "dir_index", "filetype", "sparse_super", "large_file"}
_NS = 1_000_000_000


class Summary(NamedTuple):
    """What dumpe2fs tells of the finished file system. Counts in blocks and inodes, ``time_s`` in seconds."""

    label: str
    uuid: str
    features: tuple[str, ...]
    block_size: int
    blocks: int
    reserved_blocks: int
    overhead_blocks: int
    free_blocks: int
    inodes: int
    free_inodes: int
    first_block: int
    blocks_per_group: int
    inodes_per_group: int
    inode_table_blocks: int
    descriptor_blocks: int
    reserved_descriptor_blocks: int
    journal_blocks: int
    hash_seed: str
    time_s: int
    checksum: int


class Ext4Plan(NamedTuple):
    """A file system of ``size`` bytes that is not written yet.

    ``primary`` is the superblock at byte 1024; all other bytes are in ``body``.
    """

    size: int
    summary: Summary
    geometry: PlannedGeometry
    placement: Placement
    usage: Usage
    body: SegmentTable
    primary: bytes

    @property
    def kind(self) -> str:
        """``ext2``, ``ext3`` or ``ext4``, by its features."""
        if not self.geometry.form.extents and set(self.summary.features) <= _EXT3_FEATURES:
            return "ext3" if self.summary.journal_blocks else "ext2"
        return "ext4"

    def segments(self, *, superblock: bool = True) -> SegmentTable:
        """Return where every byte comes from. Without ``superblock``, all but the primary one.

        Whoever wants a medium that is no file system until everything else is on it writes the segments without
        it, flushes, and then writes ``primary`` at byte 1024.
        """
        table = SegmentTable()
        if superblock:
            table.add_bytes(SUPERBLOCK_OFFSET, self.primary)
        table.include(self.body, 0)
        table.freeze()
        return table

    def groups(self) -> Iterator[GroupState]:
        """Yield what dumpe2fs tells of each group, in order."""
        return group_states(self.geometry, self.placement, self.usage)


def plan(root: Directory, options: Ext4Options) -> Ext4Plan:
    """Return the plan of a file system that holds ``root``.

    The same tree and options always give the same plan. Raises UsageError, naming the path, for what ext4 cannot
    store, and NoSpace, naming the needed and the given, when the tree does not fit ``options.size``.
    """
    draft = Draft.of(root, options)
    if draft.measured.occupied:
        raise UsageError("ext4: a body that lies in an output already can be planned by what placed it there only")
    if options.size is None:
        return draft.placed_at_heads(smallest(draft.demand, options))
    for sized in of_size(draft.demand, options, options.size):
        with suppress(NoSpace):  # when a file that metadata cuts needs a block more
            return draft.placed_at_heads(sized)
    automatic = replace(options, size=None)
    least = draft._replace(options=automatic).placed_at_heads(smallest(draft.demand, automatic))
    raise NoSpace(
        f"ext4: the content does not fit the size: needs {least.size} bytes with {draft.demand.inodes} inodes, "
        f"given {options.size} bytes"
    )


class Draft(NamedTuple):
    """A tree that was counted, and what it asks of the file system."""

    options: Ext4Options
    form: Form
    seed: int
    maps: Maps
    inventory: Inventory
    measured: Measured
    time_ns: int

    @classmethod
    def of(cls, root: Directory, options: Ext4Options) -> Draft:
        """Number and count a tree."""
        seed = crc32c_raw(0xFFFFFFFF, options.effective_uuid.bytes)
        lost_found = Directory(0o700, mtime_ns=root.mtime_ns) if options.lost_found else None
        form = options.form
        maps = maps_of(form, seed)
        inventory = take_inventory(root, _directory_format(options), seed, lost_found)
        if any(image.levels > _LEVELS for image in inventory.directories.values()):
            features = options.features
            options = replace(options, features=replace(features, incompat=features.incompat | Incompat.large_dir))
        measured = measure(inventory, form, maps)
        time_ns = measured.newest_ns if options.time_ns is None else options.time_ns
        if lost_found is not None:
            lost_found.mtime_ns = time_ns
        return cls(options, form, seed, maps, inventory, measured, time_ns)

    @property
    def resizable(self) -> bool:
        """Whether the resize inode is written."""
        return bool(self.options.features.compat & Compat.resize_inode)

    @property
    def demand(self) -> Demand:
        """What the tree and the resize inode need."""
        measured = self.measured
        return Demand(len(self.inventory.nodes) - 1, measured.blocks + self.resizable, measured.sensitive)

    def placed_at_heads(self, sized: Sized) -> Ext4Plan:
        """Return the plan with each flex group's metadata at its head."""
        placement = place_at_flex_heads(sized.geometry)
        allocator = Allocator(placement.zones, sized.geometry.first_block, sized.geometry.blocks)
        return self.finish(sized, placement, allocator)

    def finish(self, sized: Sized, placement: Placement, allocator: Allocator) -> Ext4Plan:
        """Return the plan, all blocks that bodies do not hold already coming from ``allocator``."""
        options, geometry = self.options, sized.geometry
        writer = Writer(self.inventory, self.measured, allocator, self.form, self.maps, self.seed)
        first = allocator.free()
        journal_map = bytes(60)
        if self.resizable:
            self._write_resize_inode(writer, geometry, allocator.take_one())
        if sized.journal_blocks:
            journal_map = self._write_journal(writer, sized.journal_blocks)
        writer.write()
        if options.size is None:
            geometry = self._trim(sized, allocator)
        zones = merge_zones(sorted([*placement.zones, *self.measured.placed, *_consumed(first, allocator.free())]))
        usage = Usage(zones, len(self.inventory.nodes) - 1, self._directories(geometry))
        groups = build_groups(geometry, placement, usage, options.effective_uuid.bytes)
        self._add_metadata(writer, geometry, placement, groups)
        return self._plan(writer, sized._replace(geometry=geometry), placement, usage, groups, journal_map)

    def _trim(self, sized: Sized, allocator: Allocator) -> PlannedGeometry:
        """Return the geometry without what was kept for cuts that did not happen, within the last group."""
        geometry = sized.geometry
        fixed = geometry.overhead + sized.journal_blocks
        used = geometry.blocks - fixed - allocator.remaining()
        least = fixed + least_capacity(used, self.options)
        free = allocator.free()
        bound = free[-1][0] if free and free[-1][1] == geometry.blocks else geometry.blocks
        blocks = max(least, bound, geometry.group_start(geometry.groups - 1) + 1)
        return geometry._replace(blocks=min(blocks, geometry.blocks))

    def _write_resize_inode(self, writer: Writer, geometry: PlannedGeometry, place: int) -> None:
        size = self.options.block_size
        found = resize_map(geometry)
        writer.table.add_bytes(place * size, found.double_indirect)
        for block, data in found.indirect:
            writer.table.add_bytes(block * size, data)
        writer.inodes.put(
            ReservedInode.resize,
            _PRIVATE_FILE,
            (0, 0),
            1,
            found.size,
            self.time_ns,
            0,
            (resize_inode_blocks(place), found.allocated),
        )

    def _write_journal(self, writer: Writer, blocks: int) -> bytes:
        size = self.options.block_size
        start = journal_superblock(size, blocks, self.options.effective_uuid)
        data = writer.store(ReservedInode.journal, [(0, blocks)], start, len(start))
        flags, time_ns = self.maps.flag, self.time_ns
        writer.inodes.put(ReservedInode.journal, _PRIVATE_FILE, (0, 0), 1, blocks * size, time_ns, flags, data)
        return data[0]

    def _directories(self, geometry: PlannedGeometry) -> array[int]:
        counts = array("I", bytes(4 * geometry.groups))
        for number in self.inventory.directories:
            counts[(number - 1) // geometry.inodes_per_group] += 1
        return counts

    def _add_metadata(self, writer: Writer, geometry: PlannedGeometry, placement: Placement, groups: Groups) -> None:
        """Add inode tables, bitmaps and descriptors."""
        size, table = geometry.block_size, writer.table
        image = writer.inodes
        per_group = geometry.inodes_per_group * self.form.inode_size
        for group, offset in enumerate(range(0, len(image), per_group)):
            place = placement.inode_tables[group] * size
            table.add(place, min(per_group, len(image) - offset), image, offset)
        for block, data in groups.bitmaps:
            table.add_bytes(block * size, data)
        for group in super_groups(geometry.groups):
            table.add_bytes((geometry.group_start(group) + 1) * size, groups.descriptors)

    def _plan(
        self,
        writer: Writer,
        sized: Sized,
        placement: Placement,
        usage: Usage,
        groups: Groups,
        journal_map: bytes,
    ) -> Ext4Plan:
        """Write the superblocks, which say what everything else came to."""
        options, geometry, features = self.options, sized.geometry, self.options.features
        if not sized.journal_blocks:
            features = replace(features, compat=features.compat & ~Compat.has_journal)
        reserved = int(geometry.blocks * options.effective_reserved_percent / 100)
        copies = super_groups(geometry.groups)
        written = sum(writer.table.lengths) + len(copies) * SUPERBLOCK_OFFSET
        values = SuperValues(
            (features.compat, features.incompat, features.ro_compat),
            groups.free_blocks,
            groups.free_inodes,
            reserved,
            sized.journal_blocks,
            journal_map,
            max(0, self.time_ns // _NS),
            written,
        )
        superblock = build_superblock(geometry, options, values)
        for group in copies[1:]:
            writer.table.add_bytes(
                geometry.group_start(group) * geometry.block_size, pack_superblock(superblock, group)
            )
        primary = pack_superblock(superblock, 0)
        summary = Summary(
            label=options.label,
            uuid=str(options.effective_uuid),
            features=features.names,
            block_size=geometry.block_size,
            blocks=geometry.blocks,
            reserved_blocks=values.reserved_blocks,
            overhead_blocks=superblock.s_overhead_blocks,
            free_blocks=groups.free_blocks,
            inodes=geometry.inodes,
            free_inodes=groups.free_inodes,
            first_block=geometry.first_block,
            blocks_per_group=geometry.blocks_per_group,
            inodes_per_group=geometry.inodes_per_group,
            inode_table_blocks=geometry.inode_table_blocks,
            descriptor_blocks=geometry.descriptor_blocks,
            reserved_descriptor_blocks=geometry.reserved_descriptor_blocks,
            journal_blocks=sized.journal_blocks,
            hash_seed=str(options.effective_hash_seed),
            time_s=values.time_s,
            checksum=int.from_bytes(primary[-4:], "little"),
        )
        writer.table.freeze()
        size = options.size if options.size is not None else geometry.blocks * geometry.block_size
        return Ext4Plan(size, summary, geometry, placement, usage, writer.table, primary)


def _directory_format(options: Ext4Options) -> DirectoryFormat:
    features = options.features
    levels = 0
    if features.compat & Compat.dir_index:
        large = options.large_dir or features.incompat & Incompat.large_dir
        levels = _LEVELS + 1 if large else _LEVELS
    return DirectoryFormat(options.block_size, options.effective_hash_seed.bytes, options.form.metadata_csum, levels)


def _consumed(before: list[Zone], after: list[Zone]) -> list[Zone]:
    """Return what was taken of ``before``, an allocator's free zones, until only ``after`` were left."""
    if not after:
        return before
    first = after[0]
    found = []
    for start, end in before:
        if end <= first[0]:
            found.append((start, end))
        elif start < first[0]:
            found.append((start, first[0]))
    return found
