"""Makes an ext2, ext3 or ext4 file system larger or smaller, offline, with no inode moved.

Knows: the order of the steps. Refuses to know: how the device got its size.
"""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.errors import NoSpace
from blockwright.fs.ext4.layout import RoCompat
from blockwright.fs.ext4.read import kind_of
from blockwright.fs.ext4.resize.apply import apply, committer_of
from blockwright.fs.ext4.resize.bitmaps import read_block_bitmap
from blockwright.fs.ext4.resize.gate import open_volume
from blockwright.fs.ext4.resize.least import least_blocks, least_blocks_moved
from blockwright.fs.ext4.resize.move import move_below
from blockwright.fs.ext4.resize.plan import Plan
from blockwright.fs.ext4.resize.target import target_of
from blockwright.fs.ext4.volume import Volume
from blockwright.fs.resize import ResizeReport, Wanted, long_enough, size_wanted

__all__ = ["minimum_size", "resize"]


def minimum_size(device: BlockDevice, *, source: str | None = None) -> int:
    """Return the least size in bytes that ``resize`` can give the file system, which is the present one at most.

    Nothing is written. Raises as ``resize`` does.
    """
    volume = open_volume(device, source, change=False)
    return _least(volume) * volume.block_size


def _least(volume: Volume) -> int:
    least = least_blocks(volume)
    features = volume.superblock.s_feature_ro_compat
    if features & (RoCompat.quota | RoCompat.shared_blocks) or not volume.verify:
        return least  # blocks of a map count for a quota, and shared ones for several files
    return min(least, least_blocks_moved(volume))


def resize(device: BlockDevice, size: Wanted = None, *, source: str | None = None) -> ResizeReport:
    """Give the file system ``size`` bytes, or all of the device; a device that can grow grows first.

    ``size`` may be a function of the size that the file system has.

    Called again after it was interrupted at any moment, it finishes; only blocks that were moving without a journal
    need e2fsck first. Whole blocks count, and an end too short for a group's metadata is left out. The device keeps
    what lies behind a smaller file system. ``source`` is what messages call the device.

    Raises NoSpace for a size at which an inode would have to move, or that what is in use does not fit, with nothing
    changed but what was moved until then; UsageError for a file system in a state that forbids changes, or a device
    that is too short; Unsupported, Corrupt.
    """
    volume = open_volume(device, source)
    old = volume.geometry
    present = old.blocks_count * old.block_size
    wanted = size_wanted(device, size, present, interrupted=not volume.verify)
    target = target_of(volume.superblock, old, wanted // old.block_size, _BackupRoom(volume))
    blocks = target.geometry.blocks_count
    if blocks < old.blocks_count and blocks < least_blocks(volume):
        volume = _make_room(volume, blocks, wanted)
        target = target_of(volume.superblock, old, blocks, _BackupRoom(volume))
    with long_enough(device, blocks * old.block_size):
        plan = Plan(volume, target)
        committer = committer_of(plan)
    method = apply(plan, committer)
    return ResizeReport(
        kind=kind_of(volume),
        block_size=old.block_size,
        old_blocks=old.blocks_count,
        blocks=blocks,
        old_groups=old.groups,
        groups=target.geometry.groups,
        method=method,
    )


def _make_room(volume: Volume, blocks: int, wanted: int) -> Volume:
    """Move what lies behind ``blocks`` to before it; return the volume as it is then."""
    least = _least(volume)
    if blocks >= least:
        move_below(volume.device, blocks, source=volume.source)
        volume = open_volume(volume.device, volume.source)
        least = least_blocks(volume)
    if blocks < least:
        raise NoSpace(
            f"resize: expected at least {least * volume.block_size} bytes for what is in use, found {wanted}"
        )
    return volume


class _BackupRoom:
    """Whether the head of a group is free, so that a backup can come there (sparse_super2)."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    def __call__(self, group: int) -> bool:
        volume, geo = self._volume, self._volume.geometry
        bits = int.from_bytes(read_block_bitmap(volume, group, volume.descriptor(group)), "little")
        count = 2 + geo.descriptor_blocks + geo.reserved_gdt_blocks
        return not bits & (1 << count) - 1
