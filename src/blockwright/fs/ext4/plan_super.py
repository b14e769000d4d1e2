"""The superblock, its backups, the journal's superblock and the resize inode of a file system that is to be written.

Knows: which field says what. Refuses to know: how the numbers in them were found.

Source: Linux 6.1, Documentation/filesystems/ext4 (super, journal, special_inodes); the resize inode's map of
reserved descriptor blocks is described in resize2fs(8) and lib/ext2fs of e2fsprogs.
"""

from __future__ import annotations

from array import array
from typing import Final, NamedTuple
from uuid import UUID

from blockwright.fs.ext4.form import EXTRA_INODE_SIZE, INODE_SIZE
from blockwright.fs.ext4.layout import (
    MAGIC,
    SUPERBLOCK_SIZE,
    HashVersion,
    JournalSuperblock,
    ReservedInode,
    RoCompat,
    State,
    Superblock,
    SuperFlag,
    superblock_checksum,
)
from blockwright.fs.ext4.options import Ext4Options, label_bytes
from blockwright.fs.ext4.plan_geometry import (
    DESCRIPTOR_SIZE,
    PlannedGeometry,
    super_groups,
)

_DEFAULT_MOUNT_OPTIONS: Final = 0x4 | 0x8
"""User extended attributes and access control lists."""
_NEVER: Final = 0xFFFF
"""s_max_mnt_count: no check after a number of mounts."""
_ERRORS_CONTINUE: Final = 1
_JOURNAL_BACKUP: Final = 1
_CRC32C: Final = 1
_DYNAMIC: Final = 1
DIND: Final = 13
"""The double-indirect pointer among the fifteen of i_block."""


class SuperValues(NamedTuple):
    """What the superblock says beside geometry and options. ``journal_map`` is inode 8's i_block."""

    features: tuple[int, int, int]
    free_blocks: int
    free_inodes: int
    reserved_blocks: int
    journal_blocks: int
    journal_map: bytes
    time_s: int
    written: int


def build_superblock(geometry: PlannedGeometry, options: Ext4Options, values: SuperValues) -> Superblock:
    """Return the primary superblock, its checksum not yet set."""
    compat, incompat, ro_compat = values.features
    form = geometry.form
    extra = EXTRA_INODE_SIZE if form.inode_size == INODE_SIZE else 0
    low, high = values.time_s & 0xFFFFFFFF, values.time_s >> 32 & 0xFF
    log_block_size = geometry.block_size.bit_length() - 11
    journal_size = values.journal_blocks * geometry.block_size
    journal = values.journal_map + (journal_size >> 32).to_bytes(4, "little")
    journal += (journal_size & 0xFFFFFFFF).to_bytes(4, "little")
    return Superblock(
        s_inodes_count=geometry.inodes,
        s_blocks_count_lo=geometry.blocks & 0xFFFFFFFF,
        s_blocks_count_hi=geometry.blocks >> 32,
        s_r_blocks_count_lo=values.reserved_blocks & 0xFFFFFFFF,
        s_r_blocks_count_hi=values.reserved_blocks >> 32,
        s_free_blocks_count_lo=values.free_blocks & 0xFFFFFFFF,
        s_free_blocks_count_hi=values.free_blocks >> 32,
        s_free_inodes_count=values.free_inodes,
        s_first_data_block=geometry.first_block,
        s_log_block_size=log_block_size,
        s_log_cluster_size=log_block_size,
        s_blocks_per_group=geometry.blocks_per_group,
        s_clusters_per_group=geometry.blocks_per_group,
        s_inodes_per_group=geometry.inodes_per_group,
        s_wtime=low,
        s_wtime_hi=high,
        s_mkfs_time=low,
        s_mkfs_time_hi=high,
        s_lastcheck=low,
        s_lastcheck_hi=high,
        s_max_mnt_count=_NEVER,
        s_magic=MAGIC,
        s_state=State.valid,
        s_errors=_ERRORS_CONTINUE,
        s_rev_level=_DYNAMIC,
        s_first_ino=ReservedInode.first_ordinary,
        s_inode_size=form.inode_size,
        s_feature_compat=compat,
        s_feature_incompat=incompat,
        s_feature_ro_compat=ro_compat,
        s_uuid=options.effective_uuid.bytes,
        s_volume_name=label_bytes(options.label),
        s_reserved_gdt_blocks=geometry.reserved_descriptor_blocks,
        s_journal_inum=ReservedInode.journal if values.journal_blocks else 0,
        s_jnl_backup_type=_JOURNAL_BACKUP if values.journal_blocks else 0,
        s_jnl_blocks=journal if values.journal_blocks else bytes(68),
        s_hash_seed=options.effective_hash_seed.bytes,
        s_def_hash_version=HashVersion.half_md4,
        s_flags=SuperFlag.signed_hash,
        s_desc_size=form.descriptor_size if form.descriptor_size == DESCRIPTOR_SIZE else 0,
        s_default_mount_opts=_DEFAULT_MOUNT_OPTIONS,
        s_min_extra_isize=extra,
        s_want_extra_isize=extra,
        s_log_groups_per_flex=form.groups_per_flex.bit_length() - 1,
        s_checksum_type=_CRC32C if form.metadata_csum else 0,
        s_kbytes_written=-(-values.written // 1024),
        s_overhead_blocks=geometry.overhead + values.journal_blocks,
    )


def pack_superblock(superblock: Superblock, group: int) -> bytes:
    """Return the superblock's bytes as ``group`` holds them, with the checksum where there are any."""
    data = superblock.replace(s_block_group_nr=group & 0xFFFF, s_checksum=0).pack()
    if not superblock.s_feature_ro_compat & RoCompat.metadata_csum:
        return data
    return data[: SUPERBLOCK_SIZE - 4] + superblock_checksum(data).to_bytes(4, "little")


def journal_superblock(block_size: int, blocks: int, uuid: UUID) -> bytes:
    """Return the first block of an empty journal, but for the zeros that end it."""
    return JournalSuperblock(
        s_blocksize=block_size, s_maxlen=blocks, s_first=1, s_sequence=1, s_uuid=uuid.bytes, s_nr_users=1
    ).pack()


class ResizeMap(NamedTuple):
    """The resize inode: its size, and what it allocates, in bytes; its double-indirect block; and by their numbers
    the reserved descriptor blocks of group 0 with what is in them.
    """

    size: int
    allocated: int
    double_indirect: bytes
    indirect: list[tuple[int, bytes]]


def resize_map(geometry: PlannedGeometry) -> ResizeMap:
    """Return the map of reserved descriptor blocks.

    Each reserved block of group 0 serves as the indirect block that lists its copies in the other groups with a
    superblock; the double-indirect block lists those, at the places of the descriptor blocks they stand for.
    """
    size = geometry.block_size
    per_block = size // 4
    groups = super_groups(geometry.groups)[1:]
    top = array("I", bytes(size))
    indirect = []
    first = geometry.first_block + 1 + geometry.descriptor_blocks
    for index in range(geometry.reserved_descriptor_blocks):
        block = first + index
        top[(geometry.descriptor_blocks + index) % per_block] = block
        copies = [block + group * geometry.blocks_per_group for group in groups]
        indirect.append((block, b"".join(copy.to_bytes(4, "little") for copy in copies)))
    total = 1 + geometry.reserved_descriptor_blocks * (1 + len(groups))
    return ResizeMap(
        (per_block * per_block + per_block + 12) * size,
        total * size,
        b"".join(pointer.to_bytes(4, "little") for pointer in top),
        [(block, data) for block, data in indirect if data],
    )


def resize_inode_blocks(double_indirect: int) -> bytes:
    """Return i_block of the resize inode."""
    return bytes(4 * DIND) + double_indirect.to_bytes(4, "little") + bytes(60 - 4 * DIND - 4)
