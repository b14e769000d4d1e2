"""FAT's bytes: boot sector, FSInfo, directory entries, long-name entries, times.

Source: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03 ("fatgen103"), with what Windows NT
added since: case bits in a short entry, and flags for an unclean volume in the boot sector.

Knows: fields and checksums. Refuses to know: positions, and which combinations of fields make sense.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from blockwright.codec.record import Record, raw, u8, u16, u32

SPEC: Final = "fatgen103"
ENTRY_SIZE: Final = 32
MEDIA: Final = 0xF8
BOOT_SIGNATURE: Final = b"\x55\xaa"
EXTENDED: Final = (0x28, 0x29)
"""Values of ``bs_boot_sig`` that say the fields behind it are there: volume id only, or label and type too."""
DIRTY: Final = 1
"""Bit of ``bs_reserved1``: not unmounted cleanly."""
CLEAN: Final = {16: 0x8000, 32: 0x08000000}
"""The bit of the table's entry 1 that says it was unmounted cleanly, where there is one, by FAT type."""
MARKS: Final = 0xFC
"""Bits of ``bs_reserved1`` that nobody gives a meaning, and in which our own resize says that it is under way."""
RESIZING: Final = 0xA4
RESIZING_ONE_FAT: Final = 0xA8
"""The same, and that the one FAT there is for now takes the room of two."""

MIN_FAT16: Final = 4085
"""Clusters from which on a volume is FAT16; below it is FAT12. Nothing else decides (fatgen103, "FAT Type")."""
MIN_FAT32: Final = 65525
MAX_FAT32: Final = 0x0FFFFFF5
EDGE: Final = 16
"""Clusters that a new volume keeps away from those numbers, because implementations differ there by a few."""
FIRST_CLUSTER: Final = 2

EOC: Final = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}
"""The least value that ends a chain, by FAT type."""
BAD: Final = {12: 0xFF7, 16: 0xFFF7, 32: 0x0FFFFFF7}
MASK: Final = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}

MAX_FILE: Final = 0xFFFFFFFF
MAX_DIRECTORY: Final = 65536 * ENTRY_SIZE
"""Bytes in a directory at the most."""

READ_ONLY: Final = 0x01
HIDDEN: Final = 0x02
SYSTEM: Final = 0x04
VOLUME: Final = 0x08
DIRECTORY: Final = 0x10
ARCHIVE: Final = 0x20
LONG_NAME: Final = READ_ONLY | HIDDEN | SYSTEM | VOLUME
DELETED: Final = 0xE5
KANJI_E5: Final = 0x05
"""Stands for a first byte of E5h, which alone would mark the entry deleted."""
LOWER_BASE: Final = 0x08
LOWER_EXTENSION: Final = 0x10
NO_SHORT_NAME: Final = 0x20
"""Case bit by which some writers say that the short name is meaningless, so that a long one must be there."""

LAST_LONG: Final = 0x40
MAX_LONG_UNITS: Final = 255
LONG_UNITS: Final = 13
"""UTF-16 units in one long-name entry."""
MAX_LONG_ENTRIES: Final = 20


class BootSector(Record, size=512):
    """The fields that all FAT types share, and those of FAT12 and FAT16 behind byte 36."""

    bs_jmp_boot: bytes = raw(0, 3)
    bs_oem_name: bytes = raw(3, 8)
    bpb_byts_per_sec: int = u16(11)
    bpb_sec_per_clus: int = u8(13)
    bpb_rsvd_sec_cnt: int = u16(14)
    bpb_num_fats: int = u8(16)
    bpb_root_ent_cnt: int = u16(17)
    bpb_tot_sec16: int = u16(19)
    bpb_media: int = u8(21)
    bpb_fat_sz16: int = u16(22)
    bpb_sec_per_trk: int = u16(24)
    bpb_num_heads: int = u16(26)
    bpb_hidd_sec: int = u32(28)
    bpb_tot_sec32: int = u32(32)
    bs_drv_num: int = u8(36)
    bs_reserved1: int = u8(37)
    bs_boot_sig: int = u8(38)
    bs_vol_id: int = u32(39)
    bs_vol_lab: bytes = raw(43, 11)
    bs_fil_sys_type: bytes = raw(54, 8)
    boot_code: bytes = raw(62, 448)
    signature: bytes = raw(510, 2)


class BootSector32(Record, size=512):
    """The boot sector of FAT32."""

    bs_jmp_boot: bytes = raw(0, 3)
    bs_oem_name: bytes = raw(3, 8)
    bpb_byts_per_sec: int = u16(11)
    bpb_sec_per_clus: int = u8(13)
    bpb_rsvd_sec_cnt: int = u16(14)
    bpb_num_fats: int = u8(16)
    bpb_root_ent_cnt: int = u16(17)
    bpb_tot_sec16: int = u16(19)
    bpb_media: int = u8(21)
    bpb_fat_sz16: int = u16(22)
    bpb_sec_per_trk: int = u16(24)
    bpb_num_heads: int = u16(26)
    bpb_hidd_sec: int = u32(28)
    bpb_tot_sec32: int = u32(32)
    bpb_fat_sz32: int = u32(36)
    bpb_ext_flags: int = u16(40)
    bpb_fs_ver: int = u16(42)
    bpb_root_clus: int = u32(44)
    bpb_fs_info: int = u16(48)
    bpb_bk_boot_sec: int = u16(50)
    bpb_reserved: bytes = raw(52, 12)
    bs_drv_num: int = u8(64)
    bs_reserved1: int = u8(65)
    bs_boot_sig: int = u8(66)
    bs_vol_id: int = u32(67)
    bs_vol_lab: bytes = raw(71, 11)
    bs_fil_sys_type: bytes = raw(82, 8)
    boot_code: bytes = raw(90, 420)
    signature: bytes = raw(510, 2)


class FsInfo(Record, size=512):
    """FAT32's note of how much is free; a hint that may be wrong."""

    fsi_lead_sig: bytes = raw(0, 4)
    fsi_struc_sig: bytes = raw(484, 4)
    fsi_free_count: int = u32(488)
    fsi_nxt_free: int = u32(492)
    fsi_trail_sig: bytes = raw(508, 4)


LEAD_SIG: Final = b"RRaA"
STRUC_SIG: Final = b"rrAa"
TRAIL_SIG: Final = b"\x00\x00\x55\xaa"
UNKNOWN_COUNT: Final = 0xFFFFFFFF


class DirEntry(Record, size=ENTRY_SIZE):
    """A file, directory or volume label under its short name."""

    dir_name: bytes = raw(0, 11)
    dir_attr: int = u8(11)
    dir_ntres: int = u8(12)
    dir_crt_time_tenth: int = u8(13)
    dir_crt_time: int = u16(14)
    dir_crt_date: int = u16(16)
    dir_lst_acc_date: int = u16(18)
    dir_fst_clus_hi: int = u16(20)
    dir_wrt_time: int = u16(22)
    dir_wrt_date: int = u16(24)
    dir_fst_clus_lo: int = u16(26)
    dir_file_size: int = u32(28)

    @property
    def first_cluster(self) -> int:
        """Both halves of the first cluster's number; the upper one is FAT32's only."""
        return self.dir_fst_clus_hi << 16 | self.dir_fst_clus_lo


class LongEntry(Record, size=ENTRY_SIZE):
    """Thirteen UTF-16 units of a long name, stored before the short entry, last part first."""

    ldir_ord: int = u8(0)
    ldir_name1: bytes = raw(1, 10)
    ldir_attr: int = u8(11, LONG_NAME)
    ldir_type: int = u8(12)
    ldir_chksum: int = u8(13)
    ldir_name2: bytes = raw(14, 12)
    ldir_fst_clus_lo: int = u16(26)
    ldir_name3: bytes = raw(28, 4)


@lru_cache(maxsize=4096)
def short_checksum(name: bytes) -> int:
    """Return the checksum of an 11-byte short name that its long-name entries carry."""
    value = 0
    for byte in name:
        value = ((value & 1) << 7 | value >> 1) + byte & 0xFF
    return value


def long_units(entry: bytes | memoryview) -> bytes:
    """Return the 26 bytes of name that a long-name entry holds."""
    return bytes(entry[1:11]) + bytes(entry[14:26]) + bytes(entry[28:32])


EPOCH_S: Final = 315532800
"""1980-01-01, the first time that FAT can tell, in seconds since 1970."""
END_S: Final = 4354819198
"""2107-12-31 23:59:58, the last."""


@lru_cache(maxsize=4096)
def encode_time(time_s: int) -> tuple[int, int]:
    """Return (date, time) for seconds since 1970 in UTC, two-second steps rounded down, clamped to 1980 to 2107."""
    moment = datetime.fromtimestamp(min(max(time_s, EPOCH_S), END_S), UTC)
    date = moment.year - 1980 << 9 | moment.month << 5 | moment.day
    return date, moment.hour << 11 | moment.minute << 5 | moment.second >> 1


def decode_time(date: int, time: int, tenths: int = 0) -> int | None:
    """Return nanoseconds since 1970 for a date and time in UTC, or None where they say none.

    ``tenths`` are the hundredths of a second (0 to 199) that only creation times have.
    """
    try:
        moment = datetime(
            (date >> 9) + 1980, date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, 2 * (time & 31), tzinfo=UTC
        )
    except ValueError:
        return None
    return int(moment.timestamp()) * 10**9 + min(tenths, 199) * 10**7
