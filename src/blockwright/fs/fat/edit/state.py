"""What a volume says of itself as a whole: whether it was left clean, how much is free, and its label.

Knows: the boot sector's fields for these, their backup, FSInfo. Refuses to know: files, and the order of writes.
"""

from __future__ import annotations

from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.fs.fat import check, layout
from blockwright.fs.fat.edit.pending import Pending, Step
from blockwright.fs.fat.edit.table import EditedTable
from blockwright.fs.fat.volume import Volume

_HARMLESS: Final = frozenset(
    (
        "fat.dirty",
        "fat.dirty.table",
        "fat.info.free",
        "fat.backup.differs",
        "fat.cluster.lost",
        "fat.long-name.orphan",
        "fat.label",
    )
)
"""What an interrupted change may leave, and no change makes worse."""


def damage_of_unclean(device: BlockDevice, volume: Volume, table: EditedTable) -> str:
    """Return what speaks against changing a volume that was not left clean; empty where nothing does.

    A clean volume is not looked at: its state says that it is sound.
    """
    clean = layout.CLEAN.get(volume.geometry.bits, 0)
    if not volume.dirty and table.get(1) & clean == clean:
        return ""
    for found in check.check(device):
        if found.rule not in _HARMLESS:
            return str(found)
    return ""


class VolumeState:
    """The sectors in front of the tables, written at once but for the label."""

    def __init__(self, device: BlockDevice, volume: Volume, table: EditedTable) -> None:
        self._device = device
        self._volume = volume
        self._table = table
        self._sector = volume.geometry.sector_size
        wide = volume.geometry.bits == 32
        fields = layout.BootSector32.FIELDS if wide else layout.BootSector.FIELDS
        self._flags_at = fields["bs_reserved1"].offset
        self._label_at = fields["bs_vol_lab"].offset
        signature = self._read(0)[fields["bs_boot_sig"].offset]
        self._has_flags = signature in layout.EXTENDED
        self._has_label = signature == layout.EXTENDED[1]

    def mark(self, *, clean: bool) -> None:
        """Have the volume say whether it is clean."""
        bit = layout.CLEAN.get(self._volume.geometry.bits)
        if bit:
            self._table.set_clean(bit, clean=clean)
        if self._has_flags:
            boot = self._read(0)
            boot[self._flags_at] = boot[self._flags_at] & ~layout.DIRTY | (0 if clean else layout.DIRTY)
            self._device.write(0, boot)

    def write_counts(self, free: int, next_free: int) -> None:
        """Have FSInfo say how many clusters are free, and where to look for the next; nothing where it is none."""
        if not self._volume.info_sector:
            return
        sector = self._read(self._volume.info_sector)
        info = layout.FsInfo.parse(sector)
        if (info.fsi_lead_sig, info.fsi_struc_sig) != (layout.LEAD_SIG, layout.STRUC_SIG):
            return
        info.fsi_free_count = free
        info.fsi_nxt_free = next_free if next_free < self._volume.geometry.end_cluster else layout.FIRST_CLUSTER
        info.pack_into(sector)
        self._device.write(self._volume.info_sector * self._sector, sector)

    @property
    def next_free(self) -> int | None:
        """Where FSInfo says that free clusters may be found."""
        if not self._volume.info_sector:
            return None
        info = layout.FsInfo.parse(self._read(self._volume.info_sector))
        sound = (info.fsi_lead_sig, info.fsi_struc_sig) == (layout.LEAD_SIG, layout.STRUC_SIG)
        within = layout.FIRST_CLUSTER <= info.fsi_nxt_free < self._volume.geometry.end_cluster
        return info.fsi_nxt_free if sound and within else None

    def put_label(self, pending: Pending, label: bytes) -> None:
        """Have the boot sector and its backup hold the label's 11 bytes with the next commit."""
        if not self._has_label:
            return
        for sector in {0, self._volume.backup_sector}:
            boot = self._read(sector)
            if boot[510:512] == layout.BOOT_SIGNATURE and boot[:36] == self._read(0)[:36]:
                pending.put(sector * self._sector + self._label_at, label, Step.CLEAN_UP)

    def _read(self, sector: int) -> bytearray:
        return bytearray(self._device.read(sector * self._sector, self._sector))
