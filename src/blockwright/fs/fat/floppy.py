"""Floppy disks: a volume that has just the size of one gets its numbers, which drives and DOS take for granted.

Knows: the formats of PCs, double and high density, from 360 KB on. Refuses to know: contents.

Source: ECMA-107, Annex on formats; Microsoft's ``FORMAT`` as in the boot sectors of its disks.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SECTOR: Final = 512


class Floppy(NamedTuple):
    """A floppy's numbers: sectors, entries of the root directory, the first byte of the FAT, tracks and heads."""

    name: str
    sectors: int
    sectors_per_cluster: int
    root_entries: int
    fat_sectors: int
    media: int
    sectors_per_track: int
    heads: int = 2


FLOPPIES: Final = {
    each.sectors: each
    for each in (
        Floppy("360 KB", 720, 2, 112, 2, 0xFD, 9),
        Floppy("720 KB", 1440, 2, 112, 3, 0xF9, 9),
        Floppy("1.2 MB", 2400, 1, 224, 7, 0xF9, 15),
        Floppy("1.44 MB", 2880, 1, 224, 9, 0xF0, 18),
        Floppy("2.88 MB", 5760, 2, 240, 9, 0xF0, 36),
    )
}
"""By the number of sectors of 512 bytes."""


def floppy_of(sectors: int, bits: int | None, sector_size: int, cluster_size: int | None) -> Floppy | None:
    """Return the floppy of just that size, where nothing that was asked for contradicts it."""
    found = FLOPPIES.get(sectors)
    if found is None or sector_size != SECTOR or bits not in (None, 12):
        return None
    return found if cluster_size in (None, found.sectors_per_cluster * SECTOR) else None
