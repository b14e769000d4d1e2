"""Makes a FAT12, FAT16 or FAT32 volume larger or smaller, offline; its type stays what it is.

Knows: the order of the steps. Refuses to know: how the device got its size.
"""

from __future__ import annotations

from dataclasses import replace

from blockwright.device.base import BlockDevice
from blockwright.errors import NoSpace
from blockwright.fs.fat import layout
from blockwright.fs.fat.allocation import PAGE, AllocationTable
from blockwright.fs.fat.geometry import Geometry
from blockwright.fs.fat.resize.front import begin, flip, is_settled, settle
from blockwright.fs.fat.resize.gate import open_volume
from blockwright.fs.fat.resize.move import Move
from blockwright.fs.fat.resize.target import bounds, least_size, target_of
from blockwright.fs.fat.resize.tree import drop_lost, read_tree
from blockwright.fs.fat.resize.values import clear_entries, read_values, write_values
from blockwright.fs.fat.volume import Volume, read_volume
from blockwright.fs.resize import ResizeReport, Wanted, long_enough, size_wanted
from blockwright.units import MiB

__all__ = ["check_size", "minimum_size", "resize"]


def minimum_size(device: BlockDevice) -> int:
    """Return the least size in bytes that ``resize`` can give the volume, which is the present one at most.

    Nothing is written. Raises as ``resize`` does.
    """
    volume = open_volume(device, change=False)
    base = _base(volume)
    low, _ = bounds(base)
    return min(base.size, least_size(base, max(low, _used_end(device, volume))))


def check_size(device: BlockDevice, size: int) -> None:
    """Raise what ``resize`` would, for a size that the volume's type of FAT cannot have. Nothing is written."""
    target_of(_base(read_volume(device)), size)


def resize(device: BlockDevice, size: Wanted = None) -> ResizeReport:
    """Give the volume ``size`` bytes, or all of the device; a device that can grow grows first.

    ``size`` may be a function of the size that the volume has.

    Called again after it was interrupted at any moment, it finishes. An end too short for a cluster, or for the
    larger FATs that it would need, is left out. The device keeps what lies behind a smaller volume.

    Raises NoSpace, with nothing changed, for a size at which a cluster in use would lie behind the end, or where what
    lies in the way of larger FATs finds no room; UsageError for a damaged volume, for a size that would make it
    another type of FAT, or for a device that is too short; Unsupported, Corrupt.
    """
    volume = open_volume(device)
    base = _base(volume)
    wanted = size_wanted(device, size, base.size, interrupted=bool(volume.mark))
    target = target_of(base, wanted)
    settled = is_settled(device, volume)
    done = volume.geometry == target.geometry and settled
    if target.shift:
        move = Move(device, volume, base, target)
        with long_enough(device, target.geometry.size):
            pass
        move.apply()
        settle(device)
    elif not done:
        used = _used_end(device, volume)
        if target.geometry.clusters < used:
            raise NoSpace(
                f"fat: expected at least {least_size(base, max(used, bounds(base)[0]))} bytes for what is in use, "
                f"found {wanted}"
            )
        with long_enough(device, target.geometry.size):
            pass
        _change_in_place(device, volume, target.geometry)
        settle(device)
    return ResizeReport(
        kind=f"fat{base.bits}",
        block_size=base.sector_size,
        old_blocks=base.total_sectors,
        blocks=target.geometry.total_sectors,
        old_groups=0,
        groups=0,
        method="none" if done else "ordered",
    )


def _base(volume: Volume) -> Geometry:
    """Return the volume's geometry with both its FATs, where an interrupted resize has left it with one."""
    geometry = volume.geometry
    if volume.mark == layout.RESIZING_ONE_FAT:
        return replace(geometry, fats=2, fat_sectors=geometry.fat_sectors // 2)
    return geometry


def _used_end(device: BlockDevice, volume: Volume) -> int:
    """Return the least number of clusters that holds every one that is in use."""
    if volume.mark:  # what is in use and nobody's is left from what was interrupted
        return max(0, read_tree(device, volume).owned.rfind(1) - layout.FIRST_CLUSTER + 1)
    table = AllocationTable(device, volume.geometry, volume.active_fat)
    for index in range((table.end - 1) // PAGE, -1, -1):
        values = table.page(index)
        for within in range(len(values) - 1, -1, -1):
            if values[within] not in (0, table.bad) and index * PAGE + within >= layout.FIRST_CLUSTER:
                return index * PAGE + within - layout.FIRST_CLUSTER + 1
    return 0


def _change_in_place(device: BlockDevice, volume: Volume, geometry: Geometry) -> None:
    """Have the volume end elsewhere, its FATs where they are, and both of them."""
    begin(device, volume, volume.mark or layout.RESIZING)
    if volume.mark:
        values = read_values(device, volume.geometry)
        drop_lost(values, read_tree(device, volume).owned, geometry.bits)
        write_values(device, volume.geometry, values)
    live = volume.geometry
    if geometry.clusters > live.clusters:
        clear_entries(device, live, geometry.clusters, keep_bad=True)
    if live.fats != geometry.fats:
        volume = flip(device, volume, replace(live, total_sectors=geometry.total_sectors, clusters=geometry.clusters))
        for at in range(0, geometry.fat_size, MiB):
            part = device.read(geometry.fat_start() + at, min(MiB, geometry.fat_size - at))
            device.write(geometry.fat_start(1) + at, part)
    flip(device, volume, geometry, layout.RESIZING)
