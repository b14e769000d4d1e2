"""Where an ext2, ext3 or ext4 file system keeps its groups, and which numbers a superblock may claim.

Knows: the arithmetic of groups, descriptor blocks and backups, and the bounds that make it safe to follow.
Refuses to know: how blocks are read, and what lies in the groups.

Source: Linux 6.1, Documentation/filesystems/ext4 (blockgroup, group_descr, super, bigalloc).
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final, NoReturn

from blockwright.errors import Corrupt, Unsupported
from blockwright.fs.ext4.layout import (
    GOOD_OLD_INODE_SIZE,
    SUPERBLOCK_OFFSET,
    Compat,
    Incompat,
    RoCompat,
    Superblock,
)

MAX_LOG_BLOCK_SIZE: Final = 6
"""s_log_block_size of 64 KiB, the largest block."""
MAX_LOG_CLUSTER_SIZE: Final = 19
"""s_log_cluster_size of 512 MiB, the largest cluster."""
MAX_DESC_SIZE: Final = 1024
MAX_INODES_PER_GROUP: Final = 1 << 16
"""Bits that count in an inode bitmap, whatever the block size."""
NO_META_BG: Final = 1 << 64
"""``first_meta_bg`` without the feature: behind every block of descriptors."""

READABLE_INCOMPAT: Final = int(
    Incompat.filetype
    | Incompat.needs_recovery
    | Incompat.meta_bg
    | Incompat.extent
    | Incompat.bit64
    | Incompat.mmp
    | Incompat.flex_bg
    | Incompat.ea_inode
    | Incompat.metadata_csum_seed
    | Incompat.large_dir
    | Incompat.inline_data
    | Incompat.encrypt
    | Incompat.casefold
)
_BACKUP_BGS: Final = Struct("<II")


@dataclass(frozen=True, slots=True)
class Geometry:
    """The numbers that every address is computed from. Sizes in bytes, positions in blocks."""

    block_size: int
    cluster_blocks: int
    blocks_count: int
    first_data_block: int
    blocks_per_group: int
    inodes_per_group: int
    inodes_count: int
    inode_size: int
    desc_size: int
    groups: int
    first_meta_bg: int
    reserved_gdt_blocks: int
    sparse_super: bool
    backup_groups: tuple[int, int] | None

    @property
    def descriptors_per_block(self) -> int:
        """Group descriptors in a block."""
        return self.block_size // self.desc_size

    @property
    def descriptor_blocks(self) -> int:
        """Blocks that all group descriptors take."""
        return -(-self.groups // self.descriptors_per_block)

    @property
    def inode_table_blocks(self) -> int:
        """Blocks of each group's inode table."""
        return -(-self.inodes_per_group * self.inode_size // self.block_size)

    @property
    def super_block(self) -> int:
        """The block that the primary superblock lies in: 1 with blocks of 1 KiB, else 0."""
        return SUPERBLOCK_OFFSET // self.block_size

    def group_start(self, group: int) -> int:
        """Return the first block of a group."""
        return self.first_data_block + group * self.blocks_per_group

    def group_end(self, group: int) -> int:
        """Return the first block behind a group."""
        return min(self.blocks_count, self.group_start(group + 1))

    def group_of(self, block: int) -> int:
        """Return the group that a block belongs to."""
        return (block - self.first_data_block) // self.blocks_per_group

    def has_super(self, group: int) -> bool:
        """Whether the group opens with a superblock or a backup of it."""
        if group == 0:
            return True
        if self.backup_groups is not None:
            return group in self.backup_groups
        if group == 1 or not self.sparse_super:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))

    def descriptor_block(self, index: int, super_block: int | None = None) -> int:
        """Return where descriptor block ``index`` lies, or its copy behind the backup in ``super_block``."""
        primary = super_block is None or super_block == self.super_block
        if index < self.first_meta_bg:
            base = self.super_block if super_block is None else super_block
            return base + 1 + index
        group = index * self.descriptors_per_block
        if not primary and group + 1 < self.groups:
            group += 1
        start = self.super_block if group == 0 else self.group_start(group)
        return start + self.has_super(group)

    def overhead(self, group: int) -> list[tuple[int, int]]:
        """Return (block, count) of a group's superblock, its descriptors and the room for more of them."""
        start = self.group_start(group)
        found: list[tuple[int, int]] = []
        if start == 0 and self.block_size == SUPERBLOCK_OFFSET:
            found.append((0, 1))
            start = 1
        has_super = self.has_super(group)
        if has_super:
            found.append((start, 1))
        per_block = self.descriptors_per_block
        index, place = divmod(group, per_block)
        if index < self.first_meta_bg:
            meta = self.first_meta_bg < NO_META_BG
            count = self.first_meta_bg if meta else self.descriptor_blocks + self.reserved_gdt_blocks
            if has_super and count:
                found.append((start + 1, count))
        elif place in (0, 1, per_block - 1):
            found.append((start + has_super, 1))
        return found

    def own_blocks(self, group: int, block_bitmap: int, inode_bitmap: int, inode_table: int) -> list[tuple[int, int]]:
        """Return (block, count) of what a group uses for itself within its own bounds, given where its tables lie.

        That is what an uninitialised block bitmap stands for.
        """
        low, high = self.group_start(group), self.group_end(group)
        parts = [*self.overhead(group), (block_bitmap, 1), (inode_bitmap, 1), (inode_table, self.inode_table_blocks)]
        clipped = [(max(low, start), min(high, start + count)) for start, count in parts]
        return [(start, end - start) for start, end in clipped if start < end]

    def inode_place(self, inode: int) -> tuple[int, int]:
        """Return an inode's group and its index there."""
        return divmod(inode - 1, self.inodes_per_group)


def _is_power(value: int, base: int) -> bool:
    while value > 1 and value % base == 0:
        value //= base
    return value == 1


def geometry(
    superblock: Superblock, size: int, *, source: str | None = None, offset: int = SUPERBLOCK_OFFSET
) -> Geometry:
    """Return the geometry of a superblock that was read at ``offset`` of a device of ``size`` bytes.

    Raises Corrupt where a number could lead outside the device or divide by nothing, and Unsupported for
    features that change what the numbers mean and are not known here.
    """
    _refuse_features(superblock, source, offset)
    refuse = _Refusal(source, offset)
    block_size, cluster_blocks = _block_sizes(superblock, refuse)
    inode_size, desc_size = _record_sizes(superblock, block_size, refuse)
    per_group = superblock.s_blocks_per_group
    if not 8 <= per_group <= 8 * block_size * cluster_blocks or per_group % 8:
        refuse("blocks_per_group", f"a multiple of 8 up to {8 * block_size * cluster_blocks}", per_group, 0x20)
    inodes = superblock.s_inodes_per_group
    most = min(8 * block_size, MAX_INODES_PER_GROUP)
    if not 1 <= inodes <= most:
        refuse("inodes_per_group", f"1 to {most}", inodes, 0x28)
    blocks, first = superblock.blocks_count, superblock.s_first_data_block
    if first > 1 or first >= blocks:
        refuse("first_data_block", f"at most 1 and below {blocks} blocks", first, 0x14)
    if blocks * block_size > size:
        refuse("blocks_count", f"at most {size // block_size} in {size} bytes", blocks, 0x4)
    groups = -(-(blocks - first) // per_group)
    if groups * inodes != superblock.s_inodes_count:
        refuse("inodes_count", f"{groups} groups of {inodes}", superblock.s_inodes_count, 0x0)
    descriptor_blocks = -(-groups // (block_size // desc_size))
    first_meta_bg = _first_meta_bg(superblock)
    if first_meta_bg is not None and first_meta_bg > descriptor_blocks:
        refuse("first_meta_bg", f"at most {descriptor_blocks}", first_meta_bg, 0x104)
    return Geometry(
        block_size=block_size,
        cluster_blocks=cluster_blocks,
        blocks_count=blocks,
        first_data_block=first,
        blocks_per_group=per_group,
        inodes_per_group=inodes,
        inodes_count=superblock.s_inodes_count,
        inode_size=inode_size,
        desc_size=desc_size,
        groups=groups,
        first_meta_bg=NO_META_BG if first_meta_bg is None else first_meta_bg,
        reserved_gdt_blocks=superblock.s_reserved_gdt_blocks,
        sparse_super=bool(superblock.s_feature_ro_compat & RoCompat.sparse_super),
        backup_groups=_backup_groups(superblock),
    )


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Raises Corrupt for a field of the superblock that was read at ``offset`` of ``source``."""

    source: str | None
    offset: int

    def __call__(self, field: str, expected: str, found: int, at: int) -> NoReturn:
        raise Corrupt(
            f"superblock: {field}: expected {expected}, found {found}",
            source=self.source,
            offset=self.offset + at,
            spec="ext4 super",
        )


def _block_sizes(superblock: Superblock, refuse: _Refusal) -> tuple[int, int]:
    """Return the bytes in a block and the blocks in a cluster."""
    log_block, log_cluster = superblock.s_log_block_size, superblock.s_log_cluster_size
    if log_block > MAX_LOG_BLOCK_SIZE:
        refuse("log_block_size", f"at most {MAX_LOG_BLOCK_SIZE}", log_block, 0x18)
    bigalloc = bool(superblock.s_feature_ro_compat & RoCompat.bigalloc)
    if bigalloc and not log_block <= log_cluster <= MAX_LOG_CLUSTER_SIZE:
        refuse("log_cluster_size", f"{log_block} to {MAX_LOG_CLUSTER_SIZE}", log_cluster, 0x1C)
    if not bigalloc and log_cluster != log_block:
        refuse("log_cluster_size without bigalloc", f"{log_block}", log_cluster, 0x1C)
    return superblock.block_size, 1 << log_cluster - log_block


def _record_sizes(superblock: Superblock, block_size: int, refuse: _Refusal) -> tuple[int, int]:
    """Return the bytes in an inode and in a group descriptor."""
    inode_size = superblock.inode_size
    if not GOOD_OLD_INODE_SIZE <= inode_size <= block_size or inode_size & (inode_size - 1):
        refuse("inode_size", f"a power of two from 128 to {block_size}", inode_size, 0x58)
    desc_size = superblock.desc_size
    least = 64 if superblock.s_feature_incompat & Incompat.bit64 and superblock.s_desc_size else 32
    if not least <= desc_size <= min(MAX_DESC_SIZE, block_size) or desc_size & (desc_size - 1):
        refuse("desc_size", f"a power of two from {least} to {MAX_DESC_SIZE}", desc_size, 0xFE)
    return inode_size, desc_size


def _first_meta_bg(superblock: Superblock) -> int | None:
    return superblock.s_first_meta_bg if superblock.s_feature_incompat & Incompat.meta_bg else None


def _backup_groups(superblock: Superblock) -> tuple[int, int] | None:
    if not superblock.s_feature_compat & Compat.sparse_super2:
        return None
    first, second = _BACKUP_BGS.unpack(superblock.s_backup_bgs)
    return first, second


def _refuse_features(superblock: Superblock, source: str | None, offset: int) -> None:
    if superblock.s_rev_level > 1:
        raise Unsupported(
            f"superblock: revision: expected 0 or 1, found {superblock.s_rev_level}",
            source=source,
            offset=offset + 0x4C,
        )
    unknown = superblock.s_feature_incompat & ~READABLE_INCOMPAT
    if unknown & Incompat.journal_dev:
        raise Unsupported(
            "superblock: is an external journal, not a file system", source=source, offset=offset + 0x60
        )
    if unknown:
        named = [flag.name for flag in Incompat if unknown & flag and flag.name]
        rest = unknown & ~sum(int(flag) for flag in Incompat)
        names = ", ".join([*named, *([f"{rest:#x}"] if rest else [])])
        raise Unsupported(
            f"superblock: incompatible features that are not known: {names}", source=source, offset=offset + 0x60
        )
