"""The sectors in front of the allocation tables: boot sector, FSInfo, and their backups.

Knows: what the fields of a new volume say. Refuses to know: how its numbers were chosen.
"""

from __future__ import annotations

from typing import Final

from blockwright.fs.fat import layout
from blockwright.fs.fat.geometry import Geometry
from blockwright.fs.fat.options import FatOptions

OEM_NAME: Final = b"MSWIN4.1"
"""What fatgen103 recommends, because some readers insist on it."""
NO_NAME: Final = b"NO NAME    "
FS_INFO_SECTOR: Final = 1
BACKUP_SECTOR: Final = 6

_FIELDS: Final = 11
_CODE: Final = 0x5A
_CODE_END: Final = 0x1FE
_BOOT_CODE: Final = b"\xcd\x18\xf4\xeb\xfd"
"""``int 18h`` hands over to the next boot device; ``hlt`` in a loop where nothing answers."""


def boot_region(geometry: Geometry, options: FatOptions, free: int, next_free: int) -> list[tuple[int, bytes]]:
    """Return the (offset, bytes) of everything before the first FAT that is not zeros.

    ``free`` clusters are left of the volume, and ``next_free`` is the first of them.
    """
    sector = geometry.sector_size
    if geometry.bits != 32:
        return [(0, with_code(_boot_sector(geometry, options).pack(), options.boot_sector))]
    boot = with_code(_boot_sector32(geometry, options).pack(), options.boot_sector)
    info = layout.FsInfo(
        fsi_lead_sig=layout.LEAD_SIG,
        fsi_struc_sig=layout.STRUC_SIG,
        fsi_free_count=free,
        fsi_nxt_free=next_free if free else layout.UNKNOWN_COUNT,
        fsi_trail_sig=layout.TRAIL_SIG,
    ).pack()
    third = layout.BOOT_SIGNATURE.rjust(512, b"\0")
    return [
        ((first + number) * sector, data)
        for first in (0, BACKUP_SECTOR)
        for number, data in enumerate((boot, info, third))
    ]


def with_code(sector: bytes, loader: bytes) -> bytes:
    """Return the boot sector with a loader's jump, name and code, the volume's own fields as they are.

    ``loader`` is a boot sector whose code lies behind the fields of FAT32; empty for none.
    """
    if not loader:
        return sector
    return loader[:_FIELDS] + sector[_FIELDS:_CODE] + loader[_CODE:_CODE_END] + sector[_CODE_END:]


def _boot_sector(geometry: Geometry, options: FatOptions) -> layout.BootSector:
    small = geometry.total_sectors < 1 << 16
    return layout.BootSector(
        bs_jmp_boot=b"\xeb\x3c\x90",
        bs_oem_name=OEM_NAME,
        bpb_byts_per_sec=geometry.sector_size,
        bpb_sec_per_clus=geometry.sectors_per_cluster,
        bpb_rsvd_sec_cnt=geometry.reserved_sectors,
        bpb_num_fats=geometry.fats,
        bpb_root_ent_cnt=geometry.root_entries,
        bpb_tot_sec16=geometry.total_sectors if small else 0,
        bpb_media=geometry.media,
        bpb_fat_sz16=geometry.fat_sectors,
        bpb_sec_per_trk=geometry.sectors_per_track,
        bpb_num_heads=geometry.heads,
        bpb_hidd_sec=options.hidden_sectors,
        bpb_tot_sec32=0 if small else geometry.total_sectors,
        bs_drv_num=0x80 if geometry.media == layout.MEDIA else 0,
        bs_boot_sig=layout.EXTENDED[1],
        bs_vol_id=options.effective_volume_id,
        bs_vol_lab=options.label_bytes or NO_NAME,
        bs_fil_sys_type=f"FAT{geometry.bits}   ".encode(),
        boot_code=_BOOT_CODE,
        signature=layout.BOOT_SIGNATURE,
    )


def _boot_sector32(geometry: Geometry, options: FatOptions) -> layout.BootSector32:
    return layout.BootSector32(
        bs_jmp_boot=b"\xeb\x58\x90",
        bs_oem_name=OEM_NAME,
        bpb_byts_per_sec=geometry.sector_size,
        bpb_sec_per_clus=geometry.sectors_per_cluster,
        bpb_rsvd_sec_cnt=geometry.reserved_sectors,
        bpb_num_fats=geometry.fats,
        bpb_media=layout.MEDIA,
        bpb_sec_per_trk=63,
        bpb_num_heads=255,
        bpb_hidd_sec=options.hidden_sectors,
        bpb_tot_sec32=geometry.total_sectors,
        bpb_fat_sz32=geometry.fat_sectors,
        bpb_root_clus=geometry.root_cluster,
        bpb_fs_info=FS_INFO_SECTOR,
        bpb_bk_boot_sec=BACKUP_SECTOR,
        bs_drv_num=0x80,
        bs_boot_sig=layout.EXTENDED[1],
        bs_vol_id=options.effective_volume_id,
        bs_vol_lab=options.label_bytes or NO_NAME,
        bs_fil_sys_type=b"FAT32   ",
        boot_code=_BOOT_CODE,
        signature=layout.BOOT_SIGNATURE,
    )
