"""A tree becomes a file system on a device that is there, or in a new file.

Knows: which planner makes which file system, and that the rest of the device stays as it is. Refuses to know:
partition tables, and what is asked of each file system beyond ``MkfsOptions``.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from blockwright.address import parse_address
from blockwright.device.copy import copy
from blockwright.device.inplace import DeviceOutput
from blockwright.device.output import OutputFile
from blockwright.device.planned import PlannedDevice
from blockwright.device.window import Window
from blockwright.errors import UsageError
from blockwright.resolve import open_device
from blockwright.tree.node import Directory
from blockwright.units import SECTOR, align_down

EXT_KINDS: Final = ("ext2", "ext3", "ext4")
FAT_KINDS: Final = {"fat": None, "fat12": 12, "fat16": 16, "fat32": 32}
"""The types of FAT with their bits; ``fat`` is the one that fits the size."""
KINDS: Final = (*EXT_KINDS, *FAT_KINDS)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class MkfsOptions:
    """What is asked of a file system. Sizes in bytes; None for what the planner takes.

    ``size`` None is all of a device that is there, and in a new file the least that holds the tree. ``block_size``
    is ext4's block or FAT's cluster, ``inode_size`` that of an inode. ``identity`` is a UUID, or FAT's volume id of 8
    hexadecimal digits. ``seed`` gives every identity that is not given; None is a new one each time. ``compat`` names
    old kernels and loaders that have to read it (``fs.ext4.profiles``).
    """

    kind: str
    size: int | None = None
    label: str = ""
    block_size: int | None = None
    identity: str | None = None
    seed: str | None = None
    fat_bits: int | None = None
    inodes: int | None = None
    journal: int | None = None
    inode_size: int | None = None
    compat: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """A file system that was made: its short name, its size in bytes, and its identity."""

    kind: str
    size: int
    identity: str


def make_file_system(
    address: str,
    tree: Directory,
    options: MkfsOptions,
    *,
    partition: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Made:
    """Make the file or device at ``address`` hold a file system with the tree.

    What is there already is written in place: unasked only where both its ends are blank, and anything with
    ``force``. Raises as ``open_device``, the planners and ``DeviceOutput`` do.
    """
    where = parse_address(address, partition=partition)
    where.check_writable()
    if where.scheme == "file" and not where.is_part and not os.path.exists(where.rest):
        planned, made = _plan(tree, options, options.size, 0)
        with planned, OutputFile(where.rest, size=planned.size) as new:
            copy(planned, new.device, target_is_zero=new.target_is_zero, progress=progress)
        return made
    device = open_device(address, writable=True, partition=partition, alone=True)
    try:
        grain = max(options.block_size or 4096, 4096)
        size = align_down(device.size, grain) or device.size if options.size is None else options.size
        hidden = device.start // SECTOR if isinstance(device, Window) else 0
        planned, made = _plan(tree, options, size, hidden)
    except BaseException:
        device.close()
        raise
    with planned, DeviceOutput(device, str(where), size=planned.size, force=force) as there:
        copy(planned, there.device, target_is_zero=there.target_is_zero, progress=progress)
    return made


def _plan(tree: Directory, options: MkfsOptions, size: int | None, hidden: int) -> tuple[PlannedDevice, Made]:
    if options.seed is None:
        seed = secrets.token_bytes(32)
    else:
        seed = hashlib.sha256(options.seed.encode("utf-8", "surrogateescape")).digest()
    if options.kind in EXT_KINDS:
        return _plan_ext4(tree, options, size, seed)
    return _plan_fat(tree, options, size, seed, hidden)


def _plan_ext4(tree: Directory, options: MkfsOptions, size: int | None, seed: bytes) -> tuple[PlannedDevice, Made]:
    from blockwright.fs.ext4.device import open_plan
    from blockwright.fs.ext4.options import Ext4Options
    from blockwright.fs.ext4.plan import plan
    from blockwright.fs.ext4.profiles import profile

    if options.fat_bits is not None:
        raise UsageError("mkfs: --fat-bits is for FAT")
    try:
        uuid = None if options.identity is None else UUID(options.identity)
    except ValueError:
        raise UsageError(f"uuid: expected a UUID, found {options.identity!r}") from None
    chosen = profile(options.kind, options.compat, options.inode_size)
    asked = Ext4Options(
        block_size=options.block_size or 4096,
        size=size,
        label=options.label,
        seed=seed,
        uuid=uuid,
        inodes=options.inodes,
        journal=options.journal,
        features=chosen.features,
        inode_size=chosen.inode_size,
        large_dir=chosen.large_dir,
    )
    planned = plan(tree, asked)
    return open_plan(planned), Made(planned.kind, planned.size, str(asked.effective_uuid))


def _plan_fat(
    tree: Directory, options: MkfsOptions, size: int | None, seed: bytes, hidden: int
) -> tuple[PlannedDevice, Made]:
    from blockwright.fs.fat.device import open_plan
    from blockwright.fs.fat.plan import FatOptions, plan

    if (options.inodes, options.journal, options.inode_size) != (None, None, None):
        raise UsageError("mkfs: FAT has neither inodes nor a journal")
    if options.compat:
        raise UsageError("mkfs: --compat is for ext2, ext3 and ext4")
    bits = FAT_KINDS[options.kind]
    if options.fat_bits not in (None, bits) and bits is not None:
        raise UsageError(f"mkfs: expected one type of FAT, found {options.kind} and --fat-bits {options.fat_bits}")
    bits = bits or options.fat_bits
    planned = plan(
        tree,
        FatOptions(
            seed=seed,
            size=size,
            label=options.label,
            bits=bits,
            cluster_size=options.block_size,
            hidden_sectors=hidden,
            volume_id=_volume_id(options.identity),
        ),
    )
    return open_plan(planned), Made(planned.kind, planned.size, planned.summary.volume_id)


_VOLUME_ID: Final = re.compile(r"(0[xX])?([0-9a-fA-F]{1,8}|[0-9a-fA-F]{4}-[0-9a-fA-F]{4})")


def _volume_id(text: str | None) -> int | None:
    if text is None:
        return None
    if not _VOLUME_ID.fullmatch(text):
        raise UsageError(f"volume id: expected 8 hexadecimal digits, found {text[:64]!r}")
    return int(text.replace("-", ""), 16)
