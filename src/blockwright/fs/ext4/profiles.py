"""Which features old kernels and boot loaders know, and what a file system is to be without for their sake.

A file system is asked for by its type, which is a set of features, and by who else has to read it: a ``Reader`` takes
away what it does not know. Nothing here is guessed from a version number: each entry names the constant or the page
that says so.

Knows: names, flags and their sources. Refuses to know: how any feature is laid out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from blockwright.errors import UsageError
from blockwright.fs.ext4.form import INODE_SIZE
from blockwright.fs.ext4.layout import GOOD_OLD_INODE_SIZE, Compat, Incompat, RoCompat
from blockwright.fs.ext4.options import DEFAULT_FEATURES, Features

_EXT2: Final = Features(
    Compat.ext_attr | Compat.resize_inode | Compat.dir_index,
    Incompat.filetype,
    RoCompat.sparse_super | RoCompat.large_file,
)
TYPES: Final = {
    "ext2": _EXT2,
    "ext3": replace(_EXT2, compat=_EXT2.compat | Compat.has_journal),
    "ext4": DEFAULT_FEATURES,
}
"""What mke2fs(8) and its configuration call by these names, the oldest first."""

_ALL_RO_COMPAT: Final = RoCompat(sum(RoCompat))
_EXT3_INCOMPAT: Final = Incompat.filetype | Incompat.meta_bg
_EXT3_RO_COMPAT: Final = RoCompat.sparse_super | RoCompat.large_file | RoCompat.btree_dir
_OLD_EXT4_INCOMPAT: Final = _EXT3_INCOMPAT | Incompat.extent | Incompat.bit64 | Incompat.flex_bg
_OLD_EXT4_RO_COMPAT: Final = (
    _EXT3_RO_COMPAT | RoCompat.uninit_bg | RoCompat.dir_nlink | RoCompat.extra_isize | RoCompat.huge_file
)
_LARGE_DIR: Final = Incompat.large_dir


class Reader(NamedTuple):
    """Who has to read, and where it can write, a file system: what it knows of features that may hinder it.

    Who only reads need not know what is called read-only compatible. ``inode_size`` is the largest it reads, in
    bytes; ``source`` says where all this stands. ``without`` are features that everybody else may ignore.
    """

    incompat: Incompat
    ro_compat: RoCompat
    inode_size: int
    source: str
    without: Compat = Compat(0)


READERS: Final[dict[str, Reader]] = {
    "linux-2.6.18": Reader(
        _EXT3_INCOMPAT, _EXT3_RO_COMPAT, INODE_SIZE, "Linux 2.6.18, include/linux/ext3_fs.h: EXT3_FEATURE_*_SUPP"
    ),
    "linux-2.6.32": Reader(
        _OLD_EXT4_INCOMPAT, _OLD_EXT4_RO_COMPAT, INODE_SIZE, "Linux 2.6.32, fs/ext4/ext4.h: EXT4_FEATURE_*_SUPP"
    ),
    "linux-3.10": Reader(
        _OLD_EXT4_INCOMPAT | Incompat.mmp,
        _OLD_EXT4_RO_COMPAT | RoCompat.quota,
        INODE_SIZE,
        "Linux 3.10, fs/ext4/ext4.h: EXT4_FEATURE_*_SUPP; without metadata_csum, since kernels from 3.18 on then "
        "mark the journal with JBD2_FEATURE_INCOMPAT_CSUM_V3, which 3.10 refuses",
    ),
    "linux-4.12": Reader(
        _OLD_EXT4_INCOMPAT | Incompat.mmp | Incompat.metadata_csum_seed,
        _OLD_EXT4_RO_COMPAT | RoCompat.quota | RoCompat.metadata_csum | RoCompat.project,
        INODE_SIZE,
        "Linux 4.12, fs/ext4/ext4.h: EXT4_FEATURE_*_SUPP, before ea_inode and large_dir",
    ),
    "grub-0.97": Reader(
        Incompat.filetype,
        _ALL_RO_COMPAT,
        GOOD_OLD_INODE_SIZE,
        "GRUB 0.97, stage2/fsys_ext2fs.c: block maps only, inodes of sizeof (struct ext2_inode)",
    ),
    "grub-2.00": Reader(
        _OLD_EXT4_INCOMPAT,
        _ALL_RO_COMPAT,
        INODE_SIZE,
        "GRUB 2.00 to 2.06, grub-core/fs/ext2.c: EXT2_DRIVER_SUPPORTED_INCOMPAT and _IGNORED_INCOMPAT",
    ),
    "syslinux-6.03": Reader(
        _OLD_EXT4_INCOMPAT & ~Incompat.bit64,
        _ALL_RO_COMPAT,
        INODE_SIZE,
        "SYSLINUX 4.00 to 6.03, wiki.syslinux.org, Filesystem: ext4 without 64bit",
    ),
    "syslinux-6.04": Reader(
        _OLD_EXT4_INCOMPAT | _LARGE_DIR,
        _ALL_RO_COMPAT,
        INODE_SIZE,
        "SYSLINUX 6.04, core/fs/ext2/ext2.c, which reads directories from end to end; see boot.md",
    ),
    "u-boot-write": Reader(
        _OLD_EXT4_INCOMPAT,
        _ALL_RO_COMPAT & ~RoCompat.metadata_csum,
        INODE_SIZE,
        "U-Boot 2017.01 to 2024.07, fs/ext4/ext4_write.c: writes neither where there is metadata_csum nor to an "
        "indexed directory",
        Compat.dir_index,
    ),
}
"""Readers by name. Each is tested: what is made for it has no feature that it does not know."""


class Profile(NamedTuple):
    """What a file system is to be made with: features, bytes of an inode, whether it may be given large_dir."""

    features: Features
    inode_size: int
    large_dir: bool


def profile(kind: str = "ext4", readers: Sequence[str] = (), inode_size: int | None = None) -> Profile:
    """Return the profile of a type that all ``readers`` read. Raises UsageError for names that are not known.

    Where metadata_csum is taken away and everybody knows uninit_bg, that takes its place: groups then say what of
    them was never written. What depends on a feature that is gone goes with it.
    """
    if kind not in TYPES:
        raise UsageError(f"file system: expected {', '.join(TYPES)}, found {kind!r}")
    for name in readers:
        if name not in READERS:
            raise UsageError(f"compat: expected one of {', '.join(READERS)}, found {name!r}")
    features = TYPES[kind]
    incompat, ro_compat = ~Incompat(0), ~RoCompat(0)
    without, size = Compat(0), INODE_SIZE
    for name in readers:
        reader = READERS[name]
        incompat, ro_compat = incompat & reader.incompat, ro_compat & reader.ro_compat
        without |= reader.without
        size = min(size, reader.inode_size)
    had_sums = features.ro_compat & RoCompat.metadata_csum
    features = Features(features.compat & ~without, features.incompat & incompat, features.ro_compat & ro_compat)
    if had_sums and not features.ro_compat & RoCompat.metadata_csum and ro_compat & RoCompat.uninit_bg:
        features = replace(features, ro_compat=features.ro_compat | RoCompat.uninit_bg)
    if not features.incompat & Incompat.extent:
        features = replace(features, incompat=features.incompat & ~Incompat.bit64)
    if inode_size is not None:
        if inode_size > size:
            raise UsageError(f"compat: expected inodes of at most {size} bytes, found {inode_size}")
        size = inode_size
    if size == GOOD_OLD_INODE_SIZE:
        features = replace(features, ro_compat=features.ro_compat & ~RoCompat.extra_isize)
    return Profile(features, size, kind == "ext4" and bool(incompat & Incompat.large_dir))
