"""Whether a file system may be resized at all: what state it is in, and which features are known.

Knows: the reasons to refuse. Refuses to know: sizes.
"""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.errors import ReadOnly, UsageError
from blockwright.fs.ext4.check.superblock import KNOWN_RO_COMPAT
from blockwright.fs.ext4.edit.recover import recovered
from blockwright.fs.ext4.layout import (
    SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE,
    Compat,
    RoCompat,
    State,
)
from blockwright.fs.ext4.mmp import refuse_used
from blockwright.fs.ext4.replay import needs_replay, replayed
from blockwright.fs.ext4.resize.mark import is_marked
from blockwright.fs.ext4.volume import Volume, read_superblock


def open_volume(device: BlockDevice, source: str | None, *, change: bool = True) -> Volume:
    """Return the volume on a device, fit to be resized; an unclean journal is replayed.

    Onto the device where it is to ``change``, else in memory. Raises FormatError, UsageError, InUse, ReadOnly.
    """
    if change and not device.traits.writable:
        raise ReadOnly("resize: the device is read-only")
    volume = _volume(device, source)
    _refuse_features(volume)
    if needs_replay(volume):
        if change:
            recovered(device, source=source)
        volume = _volume(device if change else replayed(volume), source)
    _refuse_state(volume)
    return volume


def _volume(device: BlockDevice, source: str | None) -> Volume:
    superblock = read_superblock(device, source=source)
    return Volume(device, superblock, source=source, verify=True, super_block=None)


def _refuse_features(volume: Volume) -> None:
    superblock = volume.superblock
    ro_compat = superblock.s_feature_ro_compat
    if ro_compat & ~KNOWN_RO_COMPAT:
        raise volume.unsupported(f"resize: unknown read-only compatible features {ro_compat & ~KNOWN_RO_COMPAT:#x}")
    if ro_compat & RoCompat.bigalloc:
        raise volume.unsupported("resize: file systems with the feature bigalloc are not resized")
    if ro_compat & RoCompat.read_only:
        raise UsageError("resize: the file system has the feature read-only, which forbids every change")
    if superblock.s_feature_compat & Compat.exclude_bitmap or superblock.s_snapshot_inum:
        raise volume.unsupported("resize: file systems with snapshots inside are not resized")
    refuse_used(volume, "resize")


def _refuse_state(volume: Volume) -> None:
    superblock = volume.superblock
    if superblock.s_state & State.error:
        raise UsageError("resize: errors are on record: run e2fsck first")
    if not superblock.s_state & State.valid:
        raw = volume.read_bytes(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE)
        if not is_marked(superblock, raw):
            raise UsageError("resize: the file system was not unmounted: run e2fsck first")
        volume.verify = False  # of a bitmap and its checksum one may have come to the device alone
