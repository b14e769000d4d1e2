"""The bytes of ext2, ext3 and ext4 on disk: records, flags and checksums, and nothing else.

Knows: offsets, widths, magic numbers and how each structure is summed.
Refuses to know: where structures lie on a disk, and what is to be done with them.

Source: Linux 6.1, Documentation/filesystems/ext4 (super, group_descr, inodes, ifork, directory, attributes,
checksums, journal, orphan). Little-endian but for the journal, which is big-endian.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

from blockwright.codec.checksum import crc32c_raw
from blockwright.codec.record import Buffer, Record, raw, u8, u16, u32, u64

SUPERBLOCK_OFFSET: Final = 1024
SUPERBLOCK_SIZE: Final = 1024
MAGIC: Final = 0xEF53
GOOD_OLD_INODE_SIZE: Final = 128


class Compat(IntFlag):
    """s_feature_compat: a system that does not know one may still read and write."""

    dir_prealloc = 0x1
    imagic_inodes = 0x2
    has_journal = 0x4
    ext_attr = 0x8
    resize_inode = 0x10
    dir_index = 0x20
    lazy_bg = 0x40
    exclude_bitmap = 0x100
    sparse_super2 = 0x200
    fast_commit = 0x400
    stable_inodes = 0x800
    orphan_file = 0x1000


class Incompat(IntFlag):
    """s_feature_incompat: a system that does not know one must not touch the file system."""

    compression = 0x1
    filetype = 0x2
    needs_recovery = 0x4
    journal_dev = 0x8
    meta_bg = 0x10
    extent = 0x40
    bit64 = 0x80
    mmp = 0x100
    flex_bg = 0x200
    ea_inode = 0x400
    dirdata = 0x1000
    metadata_csum_seed = 0x2000
    large_dir = 0x4000
    inline_data = 0x8000
    encrypt = 0x10000
    casefold = 0x20000


class RoCompat(IntFlag):
    """s_feature_ro_compat: a system that does not know one may read only."""

    sparse_super = 0x1
    large_file = 0x2
    btree_dir = 0x4
    huge_file = 0x8
    uninit_bg = 0x10
    dir_nlink = 0x20
    extra_isize = 0x40
    quota = 0x100
    bigalloc = 0x200
    metadata_csum = 0x400
    replica = 0x800
    read_only = 0x1000
    project = 0x2000
    shared_blocks = 0x4000
    verity = 0x8000
    orphan_present = 0x10000


def feature_names(compat: int, incompat: int, ro_compat: int) -> tuple[str, ...]:
    """Return the names of the feature flags as e2fsprogs spells them, in the order of their bits."""
    flags = (*Compat(compat), *Incompat(incompat), *RoCompat(ro_compat))
    return tuple({"bit64": "64bit"}.get(str(flag.name), str(flag.name)) for flag in flags)


class State(IntFlag):
    """s_state."""

    valid = 0x1
    error = 0x2
    orphans = 0x4


class GroupFlag(IntFlag):
    """bg_flags."""

    inode_uninit = 0x1
    block_uninit = 0x2
    inode_zeroed = 0x4


class InodeFlag(IntFlag):
    """i_flags."""

    secrm = 0x1
    unrm = 0x2
    compr = 0x4
    sync = 0x8
    immutable = 0x10
    append = 0x20
    nodump = 0x40
    noatime = 0x80
    encrypt = 0x800
    index = 0x1000
    imagic = 0x2000
    journal_data = 0x4000
    notail = 0x8000
    dirsync = 0x10000
    topdir = 0x20000
    huge_file = 0x40000
    extents = 0x80000
    verity = 0x100000
    ea_inode = 0x200000
    eofblocks = 0x400000
    inline_data = 0x10000000
    projinherit = 0x20000000
    casefold = 0x40000000


class ReservedInode(IntEnum):
    """Inodes that are no user's."""

    bad_blocks = 1
    root = 2
    user_quota = 3
    group_quota = 4
    boot_loader = 5
    undelete = 6
    resize = 7
    journal = 8
    exclude = 9
    replica = 10
    first_ordinary = 11


class FileType(IntEnum):
    """The file type byte of a directory entry."""

    unknown = 0
    regular = 1
    directory = 2
    character = 3
    block = 4
    fifo = 5
    socket = 6
    symlink = 7


class SuperFlag(IntFlag):
    """s_flags: how the directory hash treats bytes."""

    signed_hash = 0x1
    unsigned_hash = 0x2
    test = 0x4


class HashVersion(IntEnum):
    """s_def_hash_version and dx_root.hash_version; 3 to 5 are the unsigned forms of 0 to 2."""

    legacy = 0
    half_md4 = 1
    tea = 2
    legacy_unsigned = 3
    half_md4_unsigned = 4
    tea_unsigned = 5
    siphash = 6


class Superblock(Record, size=SUPERBLOCK_SIZE):
    """ext4_super_block, at byte 1024 and at the start of each backup."""

    s_inodes_count: int = u32(0x0)
    s_blocks_count_lo: int = u32(0x4)
    s_r_blocks_count_lo: int = u32(0x8)
    s_free_blocks_count_lo: int = u32(0xC)
    s_free_inodes_count: int = u32(0x10)
    s_first_data_block: int = u32(0x14)
    s_log_block_size: int = u32(0x18)
    s_log_cluster_size: int = u32(0x1C)
    s_blocks_per_group: int = u32(0x20)
    s_clusters_per_group: int = u32(0x24)
    s_inodes_per_group: int = u32(0x28)
    s_mtime: int = u32(0x2C)
    s_wtime: int = u32(0x30)
    s_mnt_count: int = u16(0x34)
    s_max_mnt_count: int = u16(0x36)
    s_magic: int = u16(0x38)
    s_state: int = u16(0x3A)
    s_errors: int = u16(0x3C)
    s_minor_rev_level: int = u16(0x3E)
    s_lastcheck: int = u32(0x40)
    s_checkinterval: int = u32(0x44)
    s_creator_os: int = u32(0x48)
    s_rev_level: int = u32(0x4C)
    s_def_resuid: int = u16(0x50)
    s_def_resgid: int = u16(0x52)
    s_first_ino: int = u32(0x54)
    s_inode_size: int = u16(0x58)
    s_block_group_nr: int = u16(0x5A)
    s_feature_compat: int = u32(0x5C)
    s_feature_incompat: int = u32(0x60)
    s_feature_ro_compat: int = u32(0x64)
    s_uuid: bytes = raw(0x68, 16)
    s_volume_name: bytes = raw(0x78, 16)
    s_last_mounted: bytes = raw(0x88, 64)
    s_algorithm_usage_bitmap: int = u32(0xC8)
    s_prealloc_blocks: int = u8(0xCC)
    s_prealloc_dir_blocks: int = u8(0xCD)
    s_reserved_gdt_blocks: int = u16(0xCE)
    s_journal_uuid: bytes = raw(0xD0, 16)
    s_journal_inum: int = u32(0xE0)
    s_journal_dev: int = u32(0xE4)
    s_last_orphan: int = u32(0xE8)
    s_hash_seed: bytes = raw(0xEC, 16)
    s_def_hash_version: int = u8(0xFC)
    s_jnl_backup_type: int = u8(0xFD)
    s_desc_size: int = u16(0xFE)
    s_default_mount_opts: int = u32(0x100)
    s_first_meta_bg: int = u32(0x104)
    s_mkfs_time: int = u32(0x108)
    s_jnl_blocks: bytes = raw(0x10C, 68)
    s_blocks_count_hi: int = u32(0x150)
    s_r_blocks_count_hi: int = u32(0x154)
    s_free_blocks_count_hi: int = u32(0x158)
    s_min_extra_isize: int = u16(0x15C)
    s_want_extra_isize: int = u16(0x15E)
    s_flags: int = u32(0x160)
    s_raid_stride: int = u16(0x164)
    s_mmp_interval: int = u16(0x166)
    s_mmp_block: int = u64(0x168)
    s_raid_stripe_width: int = u32(0x170)
    s_log_groups_per_flex: int = u8(0x174)
    s_checksum_type: int = u8(0x175)
    s_encryption_level: int = u8(0x176)
    s_kbytes_written: int = u64(0x178)
    s_snapshot_inum: int = u32(0x180)
    s_error_count: int = u32(0x194)
    s_first_error_time: int = u32(0x198)
    s_first_error_ino: int = u32(0x19C)
    s_first_error_block: int = u64(0x1A0)
    s_last_error_time: int = u32(0x1CC)
    s_last_error_ino: int = u32(0x1D0)
    s_last_error_block: int = u64(0x1D8)
    s_mount_opts: bytes = raw(0x200, 64)
    s_usr_quota_inum: int = u32(0x240)
    s_grp_quota_inum: int = u32(0x244)
    s_overhead_blocks: int = u32(0x248)
    s_backup_bgs: bytes = raw(0x24C, 8)
    s_encrypt_algos: bytes = raw(0x254, 4)
    s_encrypt_pw_salt: bytes = raw(0x258, 16)
    s_lpf_ino: int = u32(0x268)
    s_prj_quota_inum: int = u32(0x26C)
    s_checksum_seed: int = u32(0x270)
    s_wtime_hi: int = u8(0x274)
    s_mtime_hi: int = u8(0x275)
    s_mkfs_time_hi: int = u8(0x276)
    s_lastcheck_hi: int = u8(0x277)
    s_encoding: int = u16(0x27C)
    s_encoding_flags: int = u16(0x27E)
    s_orphan_file_inum: int = u32(0x280)
    s_checksum: int = u32(0x3FC)

    @property
    def block_size(self) -> int:
        """Bytes in a block."""
        return 1024 << self.s_log_block_size

    @property
    def blocks_count(self) -> int:
        """Blocks in the file system; the high half counts with 64bit only."""
        high = self.s_blocks_count_hi if self.s_feature_incompat & Incompat.bit64 else 0
        return high << 32 | self.s_blocks_count_lo

    @property
    def free_blocks_count(self) -> int:
        """Free blocks (clusters with bigalloc are counted in blocks too)."""
        high = self.s_free_blocks_count_hi if self.s_feature_incompat & Incompat.bit64 else 0
        return high << 32 | self.s_free_blocks_count_lo

    @property
    def reserved_blocks_count(self) -> int:
        """Blocks kept for the superuser."""
        high = self.s_r_blocks_count_hi if self.s_feature_incompat & Incompat.bit64 else 0
        return high << 32 | self.s_r_blocks_count_lo

    @property
    def inode_size(self) -> int:
        """Bytes in an inode; revision 0 has no field for it."""
        return self.s_inode_size if self.s_rev_level else GOOD_OLD_INODE_SIZE

    @property
    def first_ino(self) -> int:
        """The first inode that is not reserved."""
        return self.s_first_ino if self.s_rev_level else ReservedInode.first_ordinary

    @property
    def desc_size(self) -> int:
        """Bytes in a group descriptor."""
        return self.s_desc_size if self.s_feature_incompat & Incompat.bit64 and self.s_desc_size else 32

    @property
    def checksum_seed(self) -> int:
        """What every metadata checksum starts from."""
        if self.s_feature_incompat & Incompat.metadata_csum_seed:
            return self.s_checksum_seed
        return crc32c_raw(0xFFFFFFFF, self.s_uuid)


class GroupDescriptor(Record, size=64):
    """ext4_group_desc; the first 32 bytes are all there is without 64bit."""

    bg_block_bitmap_lo: int = u32(0x0)
    bg_inode_bitmap_lo: int = u32(0x4)
    bg_inode_table_lo: int = u32(0x8)
    bg_free_blocks_count_lo: int = u16(0xC)
    bg_free_inodes_count_lo: int = u16(0xE)
    bg_used_dirs_count_lo: int = u16(0x10)
    bg_flags: int = u16(0x12)
    bg_exclude_bitmap_lo: int = u32(0x14)
    bg_block_bitmap_csum_lo: int = u16(0x18)
    bg_inode_bitmap_csum_lo: int = u16(0x1A)
    bg_itable_unused_lo: int = u16(0x1C)
    bg_checksum: int = u16(0x1E)
    bg_block_bitmap_hi: int = u32(0x20)
    bg_inode_bitmap_hi: int = u32(0x24)
    bg_inode_table_hi: int = u32(0x28)
    bg_free_blocks_count_hi: int = u16(0x2C)
    bg_free_inodes_count_hi: int = u16(0x2E)
    bg_used_dirs_count_hi: int = u16(0x30)
    bg_itable_unused_hi: int = u16(0x32)
    bg_exclude_bitmap_hi: int = u32(0x34)
    bg_block_bitmap_csum_hi: int = u16(0x38)
    bg_inode_bitmap_csum_hi: int = u16(0x3A)

    @property
    def block_bitmap(self) -> int:
        """Block of the block bitmap."""
        return self.bg_block_bitmap_hi << 32 | self.bg_block_bitmap_lo

    @property
    def inode_bitmap(self) -> int:
        """Block of the inode bitmap."""
        return self.bg_inode_bitmap_hi << 32 | self.bg_inode_bitmap_lo

    @property
    def inode_table(self) -> int:
        """First block of the inode table."""
        return self.bg_inode_table_hi << 32 | self.bg_inode_table_lo

    @property
    def free_blocks_count(self) -> int:
        """Free clusters in the group."""
        return self.bg_free_blocks_count_hi << 16 | self.bg_free_blocks_count_lo

    @property
    def free_inodes_count(self) -> int:
        """Free inodes in the group."""
        return self.bg_free_inodes_count_hi << 16 | self.bg_free_inodes_count_lo

    @property
    def used_dirs_count(self) -> int:
        """Directories whose inodes lie in the group."""
        return self.bg_used_dirs_count_hi << 16 | self.bg_used_dirs_count_lo

    @property
    def itable_unused(self) -> int:
        """Inodes at the end of the table that were never used."""
        return self.bg_itable_unused_hi << 16 | self.bg_itable_unused_lo

    @property
    def block_bitmap_checksum(self) -> int:
        """The block bitmap's checksum; of a short descriptor its lower half."""
        return self.bg_block_bitmap_csum_hi << 16 | self.bg_block_bitmap_csum_lo

    @block_bitmap_checksum.setter
    def block_bitmap_checksum(self, value: int) -> None:
        self.bg_block_bitmap_csum_lo, self.bg_block_bitmap_csum_hi = value & 0xFFFF, value >> 16

    @property
    def inode_bitmap_checksum(self) -> int:
        """The inode bitmap's checksum; of a short descriptor its lower half."""
        return self.bg_inode_bitmap_csum_hi << 16 | self.bg_inode_bitmap_csum_lo

    @inode_bitmap_checksum.setter
    def inode_bitmap_checksum(self, value: int) -> None:
        self.bg_inode_bitmap_csum_lo, self.bg_inode_bitmap_csum_hi = value & 0xFFFF, value >> 16


class Inode(Record, size=160):
    """ext4_inode; the first 128 bytes are all there is in small inodes, the rest as far as i_extra_isize says."""

    i_mode: int = u16(0x0)
    i_uid: int = u16(0x2)
    i_size_lo: int = u32(0x4)
    i_atime: int = u32(0x8)
    i_ctime: int = u32(0xC)
    i_mtime: int = u32(0x10)
    i_dtime: int = u32(0x14)
    i_gid: int = u16(0x18)
    i_links_count: int = u16(0x1A)
    i_blocks_lo: int = u32(0x1C)
    i_flags: int = u32(0x20)
    i_version: int = u32(0x24)
    i_block: bytes = raw(0x28, 60)
    i_generation: int = u32(0x64)
    i_file_acl_lo: int = u32(0x68)
    i_size_high: int = u32(0x6C)
    i_faddr: int = u32(0x70)
    i_blocks_high: int = u16(0x74)
    i_file_acl_high: int = u16(0x76)
    i_uid_high: int = u16(0x78)
    i_gid_high: int = u16(0x7A)
    i_checksum_lo: int = u16(0x7C)
    i_extra_isize: int = u16(0x80)
    i_checksum_hi: int = u16(0x82)
    i_ctime_extra: int = u32(0x84)
    i_mtime_extra: int = u32(0x88)
    i_atime_extra: int = u32(0x8C)
    i_crtime: int = u32(0x90)
    i_crtime_extra: int = u32(0x94)
    i_version_hi: int = u32(0x98)
    i_projid: int = u32(0x9C)


def encode_time(time_ns: int) -> tuple[int, int]:
    """Return (seconds field, extra field) of a time in nanoseconds, clamped to what 34 bits hold.

    The extra field keeps nanoseconds above two epoch bits, which carry seconds from 1901 to 2446.
    """
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    if seconds < -(1 << 31):
        seconds, nanoseconds = -(1 << 31), 0
    elif seconds >= (1 << 34) - (1 << 31):
        seconds, nanoseconds = (1 << 34) - (1 << 31) - 1, 999_999_999
    low = seconds & 0xFFFFFFFF
    signed = low - (1 << 32) if low >= 1 << 31 else low
    return low, nanoseconds << 2 | (seconds - signed) >> 32 & 3


def decode_time(seconds: int, extra: int) -> int:
    """Return nanoseconds since 1970 of a seconds field and its extra field (0 where there is none)."""
    signed = seconds - (1 << 32) if seconds >= 1 << 31 else seconds
    return (signed + ((extra & 3) << 32)) * 1_000_000_000 + (extra >> 2)


# -- extents ---------------------------------------------------------------------------------------------------

EXTENT_MAGIC: Final = 0xF30A
MAX_EXTENT_DEPTH: Final = 5
MAX_EXTENT_BLOCKS: Final = 32768
"""Blocks in an initialised extent; ee_len above this means that many less, uninitialised."""

EXTENT_HEADER: Final = Struct("<HHHHI")
"""eh_magic, eh_entries, eh_max, eh_depth, eh_generation."""
EXTENT_LEAF: Final = Struct("<IHHI")
"""ee_block, ee_len, ee_start_hi, ee_start_lo."""
EXTENT_INDEX: Final = Struct("<IIHH")
"""ei_block, ei_leaf_lo, ei_leaf_hi, ei_unused."""

# -- directories -----------------------------------------------------------------------------------------------

DIR_ENTRY: Final = Struct("<IHBB")
"""inode, rec_len, name_len, file_type; the name follows, padded to a multiple of 4 bytes."""
DIR_TAIL_SIZE: Final = 12
DIR_TAIL_TYPE: Final = 0xDE
DIR_TAIL: Final = Struct("<IHBBI")
"""0, 12, 0, 0xDE, checksum: closes a directory block with metadata_csum."""
DX_ROOT_INFO: Final = Struct("<IBBBB")
"""0, hash_version, info_length (8), indirect_levels, unused_flags; at byte 24 of the first block."""
DX_ROOT_INFO_OFFSET: Final = 24
DX_COUNT_LIMIT: Final = Struct("<HHI")
"""limit, count, block: the first entry of an index node, whose hash is 0."""
DX_ENTRY: Final = Struct("<II")
"""hash, block."""
DX_TAIL: Final = Struct("<II")
"""reserved, checksum: closes an index node with metadata_csum."""

# -- extended attributes ---------------------------------------------------------------------------------------

XATTR_MAGIC: Final = 0xEA020000
XATTR_HEADER: Final = Struct("<IIIII12x")
"""h_magic, h_refcount, h_blocks, h_hash, h_checksum: 32 bytes at the start of an attribute block."""
XATTR_ENTRY: Final = Struct("<BBHIII")
"""e_name_len, e_name_index, e_value_offs, e_value_inum, e_value_size, e_hash; the name follows, padded to 4."""
XATTR_PREFIXES: Final = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
    8: b"system.richacl",
}
"""e_name_index to the part of the name that it stands for. 2, 3 and 8 are whole names."""
ACL_VERSION: Final = 1
"""a_version of an access control list on disk; getxattr's form has version 2."""

# -- journal (big-endian) --------------------------------------------------------------------------------------

JBD2_MAGIC: Final = 0xC03B3998
JBD2_DESCRIPTOR: Final = 1
JBD2_COMMIT: Final = 2
JBD2_SUPERBLOCK_V1: Final = 3
JBD2_SUPERBLOCK_V2: Final = 4
JBD2_REVOKE: Final = 5


class JournalIncompat(IntFlag):
    """s_feature_incompat of the journal."""

    revoke = 0x1
    bit64 = 0x2
    async_commit = 0x4
    csum_v2 = 0x8
    csum_v3 = 0x10
    fast_commit = 0x20


class JournalTagFlag(IntFlag):
    """t_flags of a descriptor tag."""

    escape = 0x1
    same_uuid = 0x2
    deleted = 0x4
    last = 0x8


class JournalSuperblock(Record, size=1024, byte_order=">"):
    """journal_superblock_s, the journal's first block."""

    h_magic: int = u32(0x0, JBD2_MAGIC)
    h_blocktype: int = u32(0x4, JBD2_SUPERBLOCK_V2)
    h_sequence: int = u32(0x8)
    s_blocksize: int = u32(0xC)
    s_maxlen: int = u32(0x10)
    s_first: int = u32(0x14)
    s_sequence: int = u32(0x18)
    s_start: int = u32(0x1C)
    s_errno: int = u32(0x20)
    s_feature_compat: int = u32(0x24)
    s_feature_incompat: int = u32(0x28)
    s_feature_ro_compat: int = u32(0x2C)
    s_uuid: bytes = raw(0x30, 16)
    s_nr_users: int = u32(0x40)
    s_dynsuper: int = u32(0x44)
    s_max_transaction: int = u32(0x48)
    s_max_trans_data: int = u32(0x4C)
    s_checksum_type: int = u8(0x50)
    s_num_fc_blks: int = u32(0x54)
    s_head: int = u32(0x58)
    s_checksum: int = u32(0xFC)
    s_users: bytes = raw(0x100, 768)


JOURNAL_HEADER: Final = Struct(">III")
"""h_magic, h_blocktype, h_sequence."""

MAX_LINKS: Final = 65000
"""i_links_count of ext4, above which a directory says 1 with dir_nlink."""

# -- orphan file --------------------------------------------------------------------

ORPHAN_MAGIC: Final = 0x0B10CA04
ORPHAN_TAIL: Final = Struct("<II")
"""ob_magic, ob_checksum: closes a block of the orphan file."""


# -- checksums (metadata_csum) ---------------------------------------------------------------------------------


def superblock_checksum(data: Buffer) -> int:
    """Return s_checksum of a superblock's 1024 bytes."""
    return crc32c_raw(0xFFFFFFFF, bytes(data[:0x3FC]))


def inode_seed(seed: int, inode: int, generation: int) -> int:
    """Return what the checksums of an inode, its directory blocks and its extent blocks start from."""
    return crc32c_raw(seed, inode.to_bytes(4, "little") + generation.to_bytes(4, "little"))


def group_checksum(seed: int, group: int, descriptor: bytes) -> int:
    """Return bg_checksum of a whole descriptor of 32 or 64 bytes, whatever its checksum field holds."""
    blank = descriptor[:0x1E] + b"\0\0" + descriptor[0x20:]
    return crc32c_raw(seed, group.to_bytes(4, "little") + blank) & 0xFFFF
