"""Which file systems are changed in place, and which are refused, by name and with the reason.

Knows: feature flags and states. Refuses to know: how any feature is edited.

Source: Linux 6.1, Documentation/filesystems/ext4/super.rst.
"""

from __future__ import annotations

from typing import Final

from blockwright.errors import UsageError
from blockwright.fs.ext4.layout import Compat, RoCompat, State, Superblock
from blockwright.fs.ext4.mmp import refuse_used
from blockwright.fs.ext4.volume import Volume

EDITED_RO_COMPAT: Final = int(
    RoCompat.sparse_super
    | RoCompat.large_file
    | RoCompat.btree_dir
    | RoCompat.huge_file
    | RoCompat.uninit_bg
    | RoCompat.dir_nlink
    | RoCompat.extra_isize
    | RoCompat.metadata_csum
    | RoCompat.project
    | RoCompat.verity
    | RoCompat.orphan_present
)


def refuse_features(volume: Volume) -> None:
    """Raise Unsupported for a file system that must not be written to by who does not know its features.

    Raises InUse for one that another host or e2fsck uses. The reader has refused unknown incompatible ones.
    """
    features = volume.superblock.s_feature_ro_compat
    unknown = features & ~EDITED_RO_COMPAT
    if unknown:
        named = [str(flag.name) for flag in RoCompat if unknown & flag]
        rest = unknown & ~sum(int(flag) for flag in RoCompat)
        names = ", ".join([*named, *([f"{rest:#x}"] if rest else [])])
        raise volume.unsupported(
            f"edit: expected no read-only features that are not edited, found {names}", 1024 + 0x64
        )
    refuse_used(volume, "edit")


def refuse_state(superblock: Superblock) -> None:
    """Raise UsageError for a file system on which errors are recorded, or that was not unmounted."""
    if superblock.s_state & State.error or superblock.s_error_count:
        raise UsageError("edit: expected no errors on record, found some: run e2fsck first")
    if not superblock.s_state & State.valid and not superblock.s_feature_compat & Compat.has_journal:
        raise UsageError(
            "edit: expected a file system that was unmounted cleanly, found one that was not: run e2fsck first"
        )
