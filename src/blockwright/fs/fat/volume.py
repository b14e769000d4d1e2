"""Reads a FAT volume's boot sector: geometry, identities, and where its own notes lie.

The type is what Linux takes it for: FAT32 where the 16-bit FAT size is 0, else FAT12 or FAT16 by the number of
clusters. fatgen103 counts clusters only, but small FAT32 volumes that break its rule are common.

Knows: what a boot sector must say to be believed. Refuses to know: allocation and directories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, NotThisFormat
from blockwright.fs.fat import layout
from blockwright.fs.fat.boot import NO_NAME
from blockwright.fs.fat.geometry import Geometry
from blockwright.fs.fat.options import SECTOR_SIZES
from blockwright.units import ceil_div

BOOT_SIZE: Final = 512


@dataclass(frozen=True, slots=True)
class Volume:
    """What a boot sector says. ``label`` is None where it has none; sectors are 0 where there is no such sector.

    ``active_fat`` is the copy to read; ``mirrored`` says whether the others must equal it. ``mark`` says that a
    resize is under way: ``layout.RESIZING`` or ``RESIZING_ONE_FAT``, else 0.
    """

    geometry: Geometry
    label: bytes | None
    volume_id: int
    dirty: bool
    active_fat: int = 0
    mirrored: bool = True
    info_sector: int = 0
    backup_sector: int = 0
    mark: int = 0


def looks_like_fat(sector: bytes) -> bool:
    """Whether the first 512 bytes can be those of a FAT volume: the fields that no other format has like this."""
    boot = layout.BootSector.parse(sector)
    per_cluster = boot.bpb_sec_per_clus
    return (
        boot.signature == layout.BOOT_SIGNATURE
        and boot.bs_jmp_boot[0] in (0xEB, 0xE9)
        and boot.bpb_byts_per_sec in SECTOR_SIZES
        and per_cluster.bit_count() == 1
        and boot.bpb_rsvd_sec_cnt > 0
        and 1 <= boot.bpb_num_fats <= 2
        and (boot.bpb_media == 0xF0 or boot.bpb_media >= 0xF8)
        and bool(boot.bpb_tot_sec16 or boot.bpb_tot_sec32)
    )


def read_volume(device: BlockDevice) -> Volume:
    """Return what the boot sector says. Raises NotThisFormat, or Corrupt where its numbers contradict each other."""
    if device.size < BOOT_SIZE:
        raise NotThisFormat(f"fat: expected at least {BOOT_SIZE} bytes, found {device.size}", offset=0)
    sector = device.read(0, max(BOOT_SIZE, device.traits.minimum_block))[:BOOT_SIZE]
    if not looks_like_fat(sector):
        raise NotThisFormat("fat: the first sector is no boot sector of FAT", offset=0, spec=layout.SPEC)
    return parse_volume(sector, device.size)


def parse_volume(sector: bytes, device_size: int) -> Volume:
    """Return what a plausible boot sector says of a device of ``device_size`` bytes. Raises Corrupt."""
    boot = layout.BootSector.parse(sector)
    boot32 = layout.BootSector32.parse(sector)
    wide = boot.bpb_fat_sz16 == 0
    fat_sectors = boot32.bpb_fat_sz32 if wide else boot.bpb_fat_sz16
    total = boot.bpb_tot_sec16 or boot.bpb_tot_sec32
    size = boot.bpb_byts_per_sec
    _require(fat_sectors > 0, "FAT size: expected at least 1 sector, found 0", 22)
    _require(wide or boot.bpb_root_ent_cnt > 0, "root entries: expected at least 1, found 0", 17)
    root_sectors = ceil_div(boot.bpb_root_ent_cnt * layout.ENTRY_SIZE, size)
    data = boot.bpb_rsvd_sec_cnt + boot.bpb_num_fats * fat_sectors + root_sectors
    clusters = (total - data) // boot.bpb_sec_per_clus
    _require(clusters > 0, f"total sectors: expected more than the {data} before the clusters, found {total}", 19)
    _require(total * size <= device_size, f"size: expected at most {device_size} bytes, found {total * size}", 19)
    bits = 32 if wide else 16 if clusters >= layout.MIN_FAT16 else 12
    most = layout.MAX_FAT32 if wide else layout.MIN_FAT32
    _require(clusters < most, f"clusters: expected under {most} in FAT{bits}, found {clusters}", 19)
    room = fat_sectors * size * 8 // bits - layout.FIRST_CLUSTER
    _require(clusters <= room, f"clusters: expected at most the {room} that a FAT has room for, found {clusters}", 22)
    geometry = Geometry(
        bits=bits,
        sector_size=size,
        sectors_per_cluster=boot.bpb_sec_per_clus,
        reserved_sectors=boot.bpb_rsvd_sec_cnt,
        fats=boot.bpb_num_fats,
        fat_sectors=fat_sectors,
        root_entries=boot.bpb_root_ent_cnt,
        total_sectors=total,
        clusters=clusters,
        root_cluster=boot32.bpb_root_clus & layout.MASK[32] if wide else 0,
    )
    return _finish(geometry, boot, boot32)


def _finish(geometry: Geometry, boot: layout.BootSector, boot32: layout.BootSector32) -> Volume:
    wide = geometry.bits == 32
    extension = boot32 if wide else boot
    extended = extension.bs_boot_sig == layout.EXTENDED[1]
    label = extension.bs_vol_lab if extended and extension.bs_vol_lab != NO_NAME else None
    mirrored, active = True, 0
    if wide and boot32.bpb_ext_flags & 0x80:
        mirrored, active = False, boot32.bpb_ext_flags & 0x0F
        _require(active < geometry.fats, f"active FAT: expected under {geometry.fats}, found {active}", 40)
    if wide:
        root, end = geometry.root_cluster, geometry.end_cluster
        _require(layout.FIRST_CLUSTER <= root < end, f"root cluster: expected 2 to {end - 1}, found {root}", 44)
    return Volume(
        geometry=geometry,
        label=label,
        volume_id=extension.bs_vol_id if extension.bs_boot_sig in layout.EXTENDED else 0,
        dirty=bool(extension.bs_reserved1 & layout.DIRTY),
        mark=_mark(extension, geometry),
        active_fat=active,
        mirrored=mirrored,
        info_sector=_sector(boot32.bpb_fs_info, geometry) if wide else 0,
        backup_sector=_sector(boot32.bpb_bk_boot_sec, geometry) if wide else 0,
    )


def _mark(extension: layout.BootSector | layout.BootSector32, geometry: Geometry) -> int:
    mark = extension.bs_reserved1 & layout.MARKS if extension.bs_boot_sig in layout.EXTENDED else 0
    one_fat = mark == layout.RESIZING_ONE_FAT and geometry.fats == 1 and geometry.fat_sectors % 2 == 0
    return mark if one_fat or mark == layout.RESIZING else 0


def _sector(number: int, geometry: Geometry) -> int:
    """Return the number of a sector in the reserved region, or 0 for none."""
    return number if number < geometry.reserved_sectors else 0


def _require(holds: bool, message: str, offset: int) -> None:  # noqa: FBT001  # a condition
    if not holds:
        raise Corrupt(f"fat boot sector: {message}", offset=offset, spec=layout.SPEC)
