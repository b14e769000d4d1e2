"""What one partition holds, planned: a file system with its tree, swap, somebody's bytes, or nothing.

Knows: which planner makes which kind. Refuses to know: the other partitions, and where any of them lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockwright.build.partition import EXT, FAT, SWAP, PartitionDefinition
from blockwright.codec.identity import derive_uuid
from blockwright.errors import NoSpace, UsageError
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import Ext4Plan
from blockwright.fs.ext4.plan import plan as plan_ext4
from blockwright.fs.ext4.profiles import profile
from blockwright.tree.node import Directory
from blockwright.units import align_down, align_up

if TYPE_CHECKING:  # a disk without them starts sooner
    from blockwright.build.plan import AnyPlan
    from blockwright.fs.fat.plan import FatPlan


def ext4_options(part: PartitionDefinition, seed: bytes, time_ns: int, size: int | None) -> Ext4Options:
    """Return the planner's options for a file system of ``size`` bytes, None for automatic."""
    chosen = profile(part.kind, part.compat, part.inode_size)
    return Ext4Options(
        seed=seed,
        size=size,
        free=part.free if size is None else 0.0,
        label=part.label,
        block_size=part.block_size or 4096,
        uuid=part.file_system_uuid,
        inodes=part.inodes,
        reserved_percent=None if part.reserved is None else part.reserved * 100,
        journal=part.journal,
        time_ns=time_ns,
        features=chosen.features,
        inode_size=chosen.inode_size,
        large_dir=chosen.large_dir,
    )


def check_maximum(part: PartitionDefinition, plan: AnyPlan) -> None:
    """Raise NoSpace where a partition whose size follows from what it holds would be larger than it may be."""
    if part.maximum is not None and plan.size > part.maximum:
        raise NoSpace(
            f"{part.what}: expected a maximum of at least the {plan.size} bytes that it takes, found {part.maximum}"
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """What a partition is planned from; ``tree`` is empty where it holds no files."""

    part: PartitionDefinition
    tree: Directory
    seed: bytes
    time_ns: int
    sector_size: int

    def plan(self, size: int | None) -> AnyPlan:
        """Return what it holds: within ``size`` bytes, as small as can be where that is None.

        Raises NoSpace where it does not fit, UsageError for what cannot be planned.
        """
        part = self.part
        if part.kind in EXT:
            return self._ext(size)
        if part.kind in FAT:
            return self._fat(size)
        if part.kind == SWAP:
            from blockwright.fs.swap.layout import PAGE_SIZE
            from blockwright.fs.swap.plan import SwapPlan

            uuid = part.file_system_uuid or derive_uuid(self.seed, "swap uuid")
            room = part.minimum if size is None else size
            if not room:
                raise UsageError("expected a size of the disk, or a minimum, for swap that takes the rest")
            return SwapPlan(align_down(room, PAGE_SIZE), uuid, part.label)
        from blockwright.build.raw import RawPlan

        if part.image is None:
            return RawPlan()
        plan = RawPlan(part.image.content, part.image.name)
        if size is not None and plan.size > size:
            raise NoSpace(f"{plan.image}: expected room for its {plan.size} bytes, found {size}")
        return plan

    def _ext(self, size: int | None) -> Ext4Plan:
        block = self.part.block_size or 4096
        if size is None and self.part.minimum:
            least = plan_ext4(self.tree, ext4_options(self.part, self.seed, self.time_ns, None))
            if least.size >= self.part.minimum:
                return least
            size = align_up(self.part.minimum, block)
        given = None if size is None else align_down(size, block)
        return plan_ext4(self.tree, ext4_options(self.part, self.seed, self.time_ns, given))

    def _fat(self, size: int | None) -> FatPlan:
        from blockwright.fs.fat.options import FatOptions
        from blockwright.fs.fat.plan import plan as plan_fat

        part = self.part

        def planned(size: int | None) -> FatPlan:
            options = FatOptions(
                seed=self.seed,
                size=size,
                free=part.free if size is None else 0.0,
                label=part.label,
                bits=FAT[part.kind],
                sector_size=self.sector_size,
                cluster_size=part.block_size,
            )
            return plan_fat(self.tree, options)

        if size is None:
            least = planned(None)
            if least.size >= part.minimum:
                return least
            size = align_up(part.minimum, self.sector_size)
        return planned(align_down(size, self.sector_size))
