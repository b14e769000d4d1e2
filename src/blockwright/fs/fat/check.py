"""Verifies a FAT volume: boot sector and its backup, FSInfo, the allocation tables, and through ``check_tree`` every
directory and chain. Its verdict is fsck.fat's, where that judges at all.

Knows: rules of the volume as a whole. Refuses to know: how to mend what breaks them.
"""

from __future__ import annotations

from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, LimitExceeded
from blockwright.finding import Finding
from blockwright.fs.fat import layout
from blockwright.fs.fat.allocation import AllocationTable
from blockwright.fs.fat.check_tree import TreeChecker
from blockwright.fs.fat.volume import BOOT_SIZE, Volume, read_volume
from blockwright.units import MiB, align_up, ceil_div

MAX_CLUSTERS: Final = 1 << 27
"""Clusters that a check takes on; it keeps a byte for each."""
MAX_FINDINGS: Final = 1000
"""Findings after which a check stops looking: a volume with so many is broken, and its report readable."""
_FIELDS: Final = layout.BootSector32.FIELDS


def check(device: BlockDevice) -> list[Finding]:
    """Return every rule that the volume breaks, ``MAX_FINDINGS`` at the most; an empty list says it is clean.

    Raises NotThisFormat for what is no FAT volume, LimitExceeded for one of more than ``MAX_CLUSTERS``.
    """
    try:
        volume = read_volume(device)
    except Corrupt as error:
        return [Finding("fat.boot.fields", str(error.args[0]), error.offset)]
    geometry = volume.geometry
    if geometry.clusters > MAX_CLUSTERS:
        raise LimitExceeded(f"fat check: expected at most {MAX_CLUSTERS} clusters, found {geometry.clusters}")
    found = _check_boot(device, volume)
    table = AllocationTable(device, geometry, volume.active_fat)
    found += _check_copies(device, volume)
    found += _check_table(table, volume)
    tree = TreeChecker(device, volume, table, found, MAX_FINDINGS)
    tree.run()
    free = _check_lost(table, tree, found)
    found += _check_free_count(device, volume, free)
    found += _check_label(volume, tree.label)
    return found[:MAX_FINDINGS]


def _check_boot(device: BlockDevice, volume: Volume) -> list[Finding]:
    """Return what is wrong with flags and the backup; the numbers were judged when the volume was read."""
    found = []
    geometry = volume.geometry
    wide = geometry.bits == 32
    if volume.dirty:
        offset = _FIELDS["bs_reserved1"].offset if wide else layout.BootSector.FIELDS["bs_reserved1"].offset
        text = "boot sector: the dirty bit is set: the volume was not unmounted cleanly"
        found.append(Finding("fat.dirty", text, offset, repairable=True))
    if volume.mark:
        text = "boot sector: a change of the volume's size was interrupted: the same resize finishes it"
        found.append(Finding("fat.resize", text))
    if not wide:
        return found
    if geometry.root_entries:
        text = f"boot sector: expected no fixed root directory on FAT32, found {geometry.root_entries} entries"
        found.append(Finding("fat.boot.root-entries", text, 17))
    if not volume.backup_sector:
        text = f"boot sector: expected a backup in the {geometry.reserved_sectors} reserved sectors, found none"
        return [*found, Finding("fat.backup.missing", text, 50, repairable=True)]
    first = device.read(0, geometry.sector_size)[:BOOT_SIZE]
    second = device.read(volume.backup_sector * geometry.sector_size, geometry.sector_size)[:BOOT_SIZE]
    if first != second:
        where = [index for index in range(BOOT_SIZE) if first[index] != second[index]]
        names = [name for name, field in _FIELDS.items() if any(0 <= at - field.offset < field.width for at in where)]
        text = f"backup boot sector: differs in {len(where)} bytes: {', '.join(names)}"
        found.append(Finding("fat.backup.differs", text, where[0], repairable=True))
    return found


def _check_copies(device: BlockDevice, volume: Volume) -> list[Finding]:
    """Return the first place where each other FAT differs from the one in use."""
    geometry = volume.geometry
    if not volume.mirrored:
        return []
    used = ceil_div(geometry.end_cluster * geometry.bits, 8)
    for copy in range(1, geometry.fats):
        for position in range(0, used, MiB):
            length = min(MiB, used - position)
            whole = align_up(length, geometry.sector_size)
            first = device.read(geometry.fat_start(0) + position, whole)[:length]
            second = device.read(geometry.fat_start(copy) + position, whole)[:length]
            if first != second:
                at = next(index for index in range(length) if first[index] != second[index]) + position
                text = f"FAT {copy + 1}: differs from the first at its byte {at}"
                return [Finding("fat.table.copies", text, geometry.fat_start(copy) + at, repairable=True)]
    return []


def _check_table(table: AllocationTable, volume: Volume) -> list[Finding]:
    """Return what is wrong with the two entries in front, and the entries that lead out of the volume."""
    geometry = volume.geometry
    start = geometry.fat_start(volume.active_fat)
    mask = layout.MASK[geometry.bits]
    found = []
    media = table.get(0)
    if media < mask & ~0xF:
        text = f"FAT: entry 0: expected the media byte below ones, found {media:#x}"
        found.append(Finding("fat.table.media", text, start, repairable=True))
    clean = layout.CLEAN.get(geometry.bits, 0)
    if table.get(1) & clean != clean:
        text = f"FAT: entry 1: expected bit {clean:#x} of a clean volume, found {table.get(1):#x}"
        found.append(Finding("fat.dirty.table", text, start + geometry.bits // 8, repairable=True))
    for first, values in table.pages():
        if max(values) < table.end:
            continue
        for within, value in enumerate(values):
            if table.end <= value < table.bad and first + within >= layout.FIRST_CLUSTER:
                at = first + within
                text = f"FAT: cluster {at}: expected a cluster up to {table.end - 1}, found {value}"
                found.append(Finding("fat.table.range", text, start + at * geometry.bits // 8))
                if len(found) >= MAX_FINDINGS:
                    return found
    return found


def _check_lost(table: AllocationTable, tree: TreeChecker, found: list[Finding]) -> int:
    """Add a finding for clusters that are allocated and in no chain; return how many are free."""
    free = lost = 0
    first_lost = 0
    owned = tree.owned
    for first, values in table.pages():
        zeros = values.count(0)
        free += zeros if first else values[layout.FIRST_CLUSTER :].count(0)
        marks = owned[first : first + len(values)]
        if len(values) - zeros == marks.count(1):
            continue
        for within, value in enumerate(values):
            cluster = first + within
            if value and not marks[within] and value != table.bad and cluster >= layout.FIRST_CLUSTER:
                first_lost = first_lost or cluster
                lost += 1
    if lost:
        text = f"clusters: expected each allocated one in a chain, found {lost} in none, cluster {first_lost} first"
        found.append(Finding("fat.cluster.lost", text, repairable=True))
    return free


def _check_free_count(device: BlockDevice, volume: Volume, free: int) -> list[Finding]:
    """Return what is wrong with FSInfo."""
    geometry = volume.geometry
    if geometry.bits != 32:
        return []
    if not volume.info_sector:
        return [Finding("fat.info.missing", "boot sector: expected a sector of FSInfo, found none", 48)]
    start = volume.info_sector * geometry.sector_size
    info = layout.FsInfo.parse(device.read(start, geometry.sector_size))
    for name, expected in (
        ("fsi_lead_sig", layout.LEAD_SIG),
        ("fsi_struc_sig", layout.STRUC_SIG),
        ("fsi_trail_sig", layout.TRAIL_SIG),
    ):
        value = getattr(info, name)
        if value != expected:
            offset = start + layout.FsInfo.FIELDS[name].offset
            text = f"FSInfo: expected {expected.hex()}, found {value.hex()}"
            return [Finding("fat.info.signature", text, offset, repairable=True)]
    if info.fsi_free_count not in (free, layout.UNKNOWN_COUNT):
        text = f"FSInfo: free clusters: expected {free}, found {info.fsi_free_count}"
        return [Finding("fat.info.free", text, start + 488, repairable=True)]
    return []


def _check_label(volume: Volume, root_label: bytes | None) -> list[Finding]:
    """Return whether the label in the boot sector is not that of the root directory."""
    if (volume.label or b"").rstrip(b" ") == (root_label or b"").rstrip(b" "):
        return []
    offset = 71 if volume.geometry.bits == 32 else 43
    text = f"label: expected {_text(root_label)} as in the root directory, found {_text(volume.label)}"
    return [Finding("fat.label", text, offset, repairable=True)]


def _text(label: bytes | None) -> str:
    return "none" if label is None else repr(label.decode("cp437").rstrip(" "))
