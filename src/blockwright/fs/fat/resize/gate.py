"""Opens a volume whose size is to change, or says why it cannot be changed.

Numbers of clusters and the end of a volume change under everything that refers to them, so all of it must be sound:
the volume is checked first, whole.

Knows: which findings do not matter. Refuses to know: sizes.
"""

from __future__ import annotations

from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import ReadOnly, Unsupported, UsageError
from blockwright.fs.fat import check
from blockwright.fs.fat.volume import Volume, read_volume

_HARMLESS: Final = frozenset(
    (
        "fat.backup.differs",
        "fat.backup.missing",
        "fat.dirty",
        "fat.dirty.table",
        "fat.info.free",
        "fat.info.missing",
        "fat.label",
        "fat.long-name.checksum",
        "fat.long-name.order",
        "fat.long-name.orphan",
        "fat.long-name.reserved",
    )
)
"""What has nothing to do with where clusters are."""
_INTERRUPTED: Final = frozenset(("fat.cluster.lost", "fat.resize", "fat.table.copies", "fat.table.range"))
"""What a resize of our own leaves when it is interrupted: copies that nothing refers to yet, or no longer."""


def open_volume(device: BlockDevice, *, change: bool = True) -> Volume:
    """Return what the boot sector says.

    Raises UsageError for damage, ReadOnly, Unsupported, Corrupt, NotThisFormat.
    """
    volume = read_volume(device)
    if change and not device.traits.writable:
        raise ReadOnly("fat: the device takes no writes")
    if device.traits.minimum_block > volume.geometry.sector_size:
        raise Unsupported(
            f"fat: expected sectors of at least the device's {device.traits.minimum_block} bytes, "
            f"found {volume.geometry.sector_size}"
        )
    findings = check.check(device)
    for found in findings:
        if found.rule not in _HARMLESS and not (volume.mark and found.rule in _INTERRUPTED):
            raise UsageError(f"fat: is damaged: mend it first, as with fsck.fat -a: {found}")
    if len(findings) >= check.MAX_FINDINGS:
        raise UsageError(f"fat: is damaged: mend it first, as with fsck.fat -a: {findings[0]}, and many more")
    return volume
