"""The rules that a superblock keeps beyond those without which nothing can be read.

Knows: bounds of fields, and which features go together. Refuses to know: what lies elsewhere on the disk.

Source: Linux 6.1, Documentation/filesystems/ext4 (super).
"""

from __future__ import annotations

from typing import Final

from blockwright.fs.ext4.check.state import State
from blockwright.fs.ext4.geometry import MAX_DESC_SIZE, MAX_INODES_PER_GROUP
from blockwright.fs.ext4.layout import (
    GOOD_OLD_INODE_SIZE,
    SUPERBLOCK_OFFSET,
    Compat,
    GroupDescriptor,
    Incompat,
    ReservedInode,
    RoCompat,
    Superblock,
)
from blockwright.fs.ext4.lookup import ENCODING_UTF8

KNOWN_COMPAT: Final = int(
    Compat.dir_prealloc
    | Compat.imagic_inodes
    | Compat.has_journal
    | Compat.ext_attr
    | Compat.resize_inode
    | Compat.dir_index
    | Compat.sparse_super2
    | Compat.fast_commit
    | Compat.stable_inodes
    | Compat.orphan_file
)
KNOWN_RO_COMPAT: Final = int(
    RoCompat.sparse_super
    | RoCompat.large_file
    | RoCompat.huge_file
    | RoCompat.uninit_bg
    | RoCompat.dir_nlink
    | RoCompat.extra_isize
    | RoCompat.quota
    | RoCompat.bigalloc
    | RoCompat.metadata_csum
    | RoCompat.read_only
    | RoCompat.project
    | RoCompat.shared_blocks
    | RoCompat.verity
    | RoCompat.orphan_present
)
MAX_LOG_FLEX: Final = 31
"""The greatest s_log_groups_per_flex."""
_NOT_QUOTA: Final = frozenset(
    {
        ReservedInode.bad_blocks,
        ReservedInode.root,
        ReservedInode.boot_loader,
        ReservedInode.undelete,
        ReservedInode.resize,
        ReservedInode.journal,
        ReservedInode.exclude,
        ReservedInode.replica,
    }
)
LEAST_EXTRA_ISIZE: Final = 4


def check_superblock(state: State) -> None:
    """Report what is wrong with the superblock itself.

    Its times may lie in the future, as those of a disk made from files that do: nothing is lost by it. e2fsck asks
    whether to set them, and calls the file system clean all the same.
    """
    _features(state)
    _bounds(state)
    _quota_inodes(state)


def _at(state: State, rule: str, message: str, offset: int) -> None:
    state.report("superblock." + rule, message, SUPERBLOCK_OFFSET + offset)


def _features(state: State) -> None:
    superblock = state.volume.superblock
    unknown = superblock.s_feature_compat & ~KNOWN_COMPAT
    if unknown:
        _at(state, "features", f"compatible features: expected known ones, found {unknown:#x}", 0x5C)
    unknown = superblock.s_feature_ro_compat & ~KNOWN_RO_COMPAT
    if unknown:
        _at(state, "features", f"read-only compatible features: expected known ones, found {unknown:#x}", 0x64)
    if state.ro_compat(RoCompat.metadata_csum) and state.ro_compat(RoCompat.uninit_bg):
        _at(state, "features", "expected metadata_csum or uninit_bg, found both", 0x64)
    if state.incompat(Incompat.metadata_csum_seed) and not state.ro_compat(RoCompat.metadata_csum):
        _at(state, "features", "metadata_csum_seed: expected metadata_csum with it, found it alone", 0x60)
    if state.incompat(Incompat.bit64) and not state.incompat(Incompat.extent):
        _at(state, "features", "64bit: expected extent with it, found it alone", 0x60)
    if state.compat(Compat.resize_inode) and state.incompat(Incompat.meta_bg):
        _at(state, "features", "expected resize_inode or meta_bg, found both", 0x5C)
    if not state.compat(Compat.resize_inode) and superblock.s_reserved_gdt_blocks:
        found = superblock.s_reserved_gdt_blocks
        _at(state, "reserved-gdt-blocks", f"without resize_inode: expected 0, found {found}", 0xCE)


def _bounds(state: State) -> None:
    superblock, geo = state.volume.superblock, state.volume.geometry
    block_size = geo.block_size
    clusters = superblock.s_clusters_per_group
    per_block = block_size // geo.inode_size
    most_inodes = min(MAX_INODES_PER_GROUP - per_block, per_block * (geo.blocks_per_group - 4))
    expected_first = 1 if superblock.s_log_block_size == 0 and geo.cluster_blocks == 1 else 0
    bounds = [
        ("clusters-per-group", clusters, 8, 8 * block_size, 0x24),
        (
            "blocks-per-group",
            geo.blocks_per_group,
            clusters * geo.cluster_blocks,
            clusters * geo.cluster_blocks,
            0x20,
        ),
        ("inodes-per-group", geo.inodes_per_group, per_block, most_inodes, 0x28),
        ("reserved-blocks", superblock.reserved_blocks_count, 0, geo.blocks_count // 2, 0x8),
        ("reserved-gdt-blocks", superblock.s_reserved_gdt_blocks, 0, block_size // 4, 0xCE),
        ("first-data-block", geo.first_data_block, expected_first, expected_first, 0x14),
        ("free-blocks", superblock.free_blocks_count, 0, geo.blocks_count, 0xC),
        ("free-inodes", superblock.s_free_inodes_count, 0, geo.inodes_count, 0x10),
    ]
    if superblock.s_rev_level:
        least = int(ReservedInode.first_ordinary)
        bounds.append(("first-inode", superblock.s_first_ino, least, geo.inodes_count, 0x54))
    for rule, found, low, high, offset in bounds:
        if not low <= found <= high:
            expected = f"{low}" if low == high else f"{low} to {high}"
            _at(state, rule, f"expected {expected}, found {found}", offset)
    if superblock.s_log_groups_per_flex > MAX_LOG_FLEX:
        _at(state, "flex", f"expected at most {MAX_LOG_FLEX}, found {superblock.s_log_groups_per_flex}", 0x174)
    if state.incompat(Incompat.casefold) and superblock.s_encoding != ENCODING_UTF8:
        _at(state, "encoding", f"expected {ENCODING_UTF8} (utf8), found {superblock.s_encoding}", 0x27C)
    found = superblock.s_desc_size
    least = GroupDescriptor.SIZE if state.incompat(Incompat.bit64) else 0
    if not least <= found <= MAX_DESC_SIZE or found & (found - 1):  # without 64bit nothing follows from it
        _at(state, "desc-size", f"expected a power of two from {least} to {MAX_DESC_SIZE}, found {found}", 0xFE)
    if geo.inodes_per_group % 8:
        _at(state, "inodes-per-group", f"expected a multiple of 8, found {geo.inodes_per_group}", 0x28)
    if geo.inode_size > GOOD_OLD_INODE_SIZE:
        _extra_isize(state, superblock.s_min_extra_isize, "min-extra-isize", 0x15C)
        _extra_isize(state, superblock.s_want_extra_isize, "want-extra-isize", 0x15E)


def _extra_isize(state: State, found: int, rule: str, offset: int) -> None:
    most = state.volume.geometry.inode_size - GOOD_OLD_INODE_SIZE
    if found and (not LEAST_EXTRA_ISIZE <= found <= most or found & 3):
        _at(state, rule, f"expected 0 or a multiple of 4 from {LEAST_EXTRA_ISIZE} to {most}, found {found}", offset)


def _quota_inodes(state: State) -> None:
    superblock = state.volume.superblock
    for found, offset in (
        (superblock.s_usr_quota_inum, 0x240),
        (superblock.s_grp_quota_inum, 0x244),
        (superblock.s_prj_quota_inum, 0x26C),
    ):
        if found and (found in _NOT_QUOTA or found > superblock.s_inodes_count):
            _at(state, "quota-inode", f"expected an ordinary inode or one kept for quotas, found {found}", offset)


def has_journal_fields(superblock: Superblock) -> bool:
    """Whether the superblock names a journal, whatever its features say."""
    return bool(superblock.s_journal_inum or any(superblock.s_journal_uuid))
