"""Verifies an ext2, ext3 or ext4 file system: structure, checksums, counts and links.

Knows: the order of the passes, and what can be judged after an earlier one failed.
Refuses to know: the rules themselves (one module each), and repair.
"""

from __future__ import annotations

import time

from blockwright.device.base import BlockDevice
from blockwright.errors import FormatError
from blockwright.finding import Finding
from blockwright.fs.ext4.check import attributes, groups, links, quota, special, superblock
from blockwright.fs.ext4.check.bitmaps import BitmapPass
from blockwright.fs.ext4.check.directories import DirectoryPass
from blockwright.fs.ext4.check.inodes import InodePass
from blockwright.fs.ext4.check.state import MAX_FINDINGS, EnoughFound, State
from blockwright.fs.ext4.layout import SUPERBLOCK_OFFSET, RoCompat
from blockwright.fs.ext4.replay import needs_replay, replayed
from blockwright.fs.ext4.volume import Volume, read_superblock

__all__ = ["MAX_FINDINGS", "check"]


def check(device: BlockDevice, *, source: str | None = None, now: int | None = None) -> list[Finding]:
    """Return what is wrong with the file system on ``device``: nothing where e2fsck would find nothing.

    An unclean journal is replayed in memory first. ``now`` is the present in seconds since 1970, by default the
    clock's: until 2242 no inode's time can be of the last epoch. At most MAX_FINDINGS are returned.
    Raises NotThisFormat where there is no such file system, and Unsupported for what cannot be judged.
    """
    found = read_superblock(device, source=source, verify=False)
    moment = int(time.time()) if now is None else now
    try:
        read_superblock(device, source=source)
        volume = _replayed(Volume(device, found, source=source, verify=False, super_block=None))
    except FormatError as error:
        return [Finding("ext4.superblock.unusable", str(error.args[0]), error.offset)]
    state = State(volume, moment)
    try:
        _run(state)
    except EnoughFound:
        pass
    except FormatError as error:
        # A pass met bytes that it cannot go on from, and a finding must say so.
        state.findings.append(Finding("ext4.unreadable", str(error.args[0]), error.offset))
    return state.findings


def _replayed(volume: Volume) -> Volume:
    if not needs_replay(volume):
        return volume
    device = replayed(volume)
    if device is volume.device:
        return volume
    found = read_superblock(device, source=volume.source)
    return Volume(device, found, source=volume.source, verify=False, super_block=None)


def _run(state: State) -> None:
    superblock.check_superblock(state)
    if not groups.check_groups(state):
        return
    special.check_journal(state)
    special.check_resize_inode(state)
    special.check_orphan_file(state)
    special.check_mmp(state)
    inodes = InodePass(state)
    inodes.run()
    attributes.finish(state)
    _shared_blocks(state)
    DirectoryPass(state).run()
    links.check_connections(state)
    links.check_counts(state)
    if state.large_files and not state.ro_compat(RoCompat.large_file):
        state.report(
            "superblock.features", "expected large_file with files of 2 GiB, found it off", SUPERBLOCK_OFFSET + 0x64
        )
    BitmapPass(state).run()
    quota.check_quotas(state)


def _shared_blocks(state: State) -> None:
    """Report blocks that two owners claim, where the file system does not share them on purpose."""
    if state.ro_compat(RoCompat.shared_blocks):
        return
    geo = state.volume.geometry
    for overlap in state.claims.overlaps():
        block = geo.first_data_block + overlap.start * geo.cluster_blocks
        owners = " and ".join(
            "a table" if owner == 0 else f"inode {owner}" for owner in (overlap.first, overlap.second)
        )
        state.report(
            "block.claimed-twice",
            f"expected each block used once, found {overlap.units} from block {block} on used by {owners}",
            block * geo.block_size,
        )
