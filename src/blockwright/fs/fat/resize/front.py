"""The sectors in front while a volume's size changes.

A volume becomes another by one write of its boot sector. From before the first write to behind the last it says that
it is not clean, and that a resize is under way. FSInfo says meanwhile that the number of free clusters is not known;
it and the backup of the boot sector come last.

Knows: fields and flushes. Refuses to know: which numbers are right.
"""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.fs.fat import layout
from blockwright.fs.fat.edit.state import VolumeState
from blockwright.fs.fat.edit.table import EditedTable
from blockwright.fs.fat.geometry import Geometry
from blockwright.fs.fat.volume import Volume, read_volume


def has_flags(device: BlockDevice, volume: Volume) -> bool:
    """Whether the boot sector has a place to say that the volume is not clean."""
    return device.read(0, volume.geometry.sector_size)[_place(volume, "bs_boot_sig")] in layout.EXTENDED


def begin(device: BlockDevice, volume: Volume, mark: int) -> None:
    """Have the volume say that it is not clean, and by its mark why; where it has a place for that."""
    if not has_flags(device, volume):
        return
    _set_flags(device, volume, layout.DIRTY | mark)
    device.flush()
    table = EditedTable(device, volume)
    bits = volume.geometry.bits
    if bits in layout.CLEAN:
        table.set_clean(layout.CLEAN[bits], clean=False)
    state = VolumeState(device, volume, table)
    state.write_counts(layout.UNKNOWN_COUNT, state.next_free or layout.FIRST_CLUSTER)
    device.flush()


def flip(device: BlockDevice, volume: Volume, geometry: Geometry, mark: int | None = None) -> Volume:
    """Have the volume be of this geometry, by one write of one sector; return it. ``mark`` None leaves that."""
    device.flush()
    boot = bytearray(device.read(0, geometry.sector_size))
    _put_geometry(boot, geometry)
    if mark is not None:
        boot[_place(volume, "bs_reserved1")] = layout.DIRTY | mark
    device.write(0, boot)
    device.flush()
    return read_volume(device)


def settle(device: BlockDevice) -> None:
    """Have backup and FSInfo right, and then the volume say that it is clean."""
    volume = read_volume(device)
    geometry = volume.geometry
    table = EditedTable(device, volume)
    state = VolumeState(device, volume, table)
    state.write_counts(table.count_free(), state.next_free or layout.FIRST_CLUSTER)
    _write_backup(device, volume)
    device.flush()
    if not has_flags(device, volume):
        return
    if geometry.bits in layout.CLEAN:
        table.set_clean(layout.CLEAN[geometry.bits], clean=True)
        device.flush()
    _set_flags(device, volume, 0)
    device.flush()


def is_settled(device: BlockDevice, volume: Volume) -> bool:
    """Whether the volume says that it is clean."""
    clean = layout.CLEAN.get(volume.geometry.bits, 0)
    return not volume.dirty and not volume.mark and EditedTable(device, volume).get(1) & clean == clean


def _place(volume: Volume, name: str) -> int:
    return (layout.BootSector32 if volume.geometry.bits == 32 else layout.BootSector).FIELDS[name].offset


def _set_flags(device: BlockDevice, volume: Volume, flags: int) -> None:
    """Write the flags, and the mark among them."""
    boot = bytearray(device.read(0, volume.geometry.sector_size))
    boot[_place(volume, "bs_reserved1")] = flags
    device.write(0, boot)


def _put_geometry(boot: bytearray, geometry: Geometry) -> None:
    """Have a boot sector tell the geometry; all else stays."""
    fields = (layout.BootSector32 if geometry.bits == 32 else layout.BootSector).parse(boot)
    total = geometry.total_sectors
    short = bool(fields.bpb_tot_sec16) and total < 1 << 16
    if not short or fields.bpb_tot_sec32:
        fields.bpb_tot_sec32 = total
    fields.bpb_tot_sec16 = total if short else 0
    fields.bpb_rsvd_sec_cnt = geometry.reserved_sectors
    fields.bpb_num_fats = geometry.fats
    if isinstance(fields, layout.BootSector32):
        fields.bpb_fat_sz32 = geometry.fat_sectors
        fields.bpb_root_clus = geometry.root_cluster
    else:
        fields.bpb_fat_sz16 = geometry.fat_sectors
    fields.pack_into(boot)


def _write_backup(device: BlockDevice, volume: Volume) -> None:
    """Have the backup tell what the boot sector tells, where it is one; its code stays its own."""
    if not volume.backup_sector:
        return
    sector = volume.geometry.sector_size
    start = volume.backup_sector * sector
    boot = bytearray(device.read(start, sector))
    if boot[510:512] == layout.BOOT_SIGNATURE and boot[11:14] == device.read(0, sector)[11:14]:
        _put_geometry(boot, volume.geometry)
        boot[_place(volume, "bs_reserved1")] = 0
        device.write(start, boot)
