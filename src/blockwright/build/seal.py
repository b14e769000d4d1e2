"""A planned disk is written; where its root hash is still to come, in the order that this takes.

The root file system goes first, and is hashed as it is written; what streamed into the output before is read from
there once more. The tree is written as it grows. Then the disk is planned again with the root hash, and what is left
follows: the table, the boot partition with the kernel's command line, the hash area's superblock.

Knows: that order. Refuses to know: what becomes of a root hash in a plan.
"""

from __future__ import annotations

from collections.abc import Callable

from blockwright.build.plan import DiskPlan, Part
from blockwright.build.verity import VerityPlan
from blockwright.device.base import BlockDevice
from blockwright.device.copy import copy
from blockwright.device.copy_runs import Ranges
from blockwright.device.planned import PlannedDevice
from blockwright.device.window import Window
from blockwright.verity.tap import HashingDevice
from blockwright.verity.tree import write_tree

Progress = Callable[[int, int], None]


def write_sealed(
    plan: DiskPlan, target: BlockDevice, *, target_is_zero: bool, streamed: bool, progress: Progress | None = None
) -> tuple[DiskPlan, int]:
    """Write a disk whose root hash is not known; return the disk that it became, and the bytes that were copied.

    ``streamed`` says that bodies are in the target already. Raises as ``copy`` does.
    """
    root, area = plan.part("root"), plan.part("verity")
    hashes = area.file_system
    assert plan.seal is not None
    assert isinstance(hashes, VerityPlan)
    size = hashes.parameters.data_size
    told = None if progress is None else (lambda done, _total: progress(done, plan.size))
    with (
        PlannedDevice(size, root.file_system.segments()) as source,
        Window(target, root.start, size, owns=False) as data,
        Window(target, area.start + hashes.tree_start, hashes.size - hashes.tree_start, owns=False) as tree,
    ):
        if streamed:
            copied = copy(source, data, target_is_zero=True, write_back=True).copied
            root_hash = write_tree(data, hashes.parameters, tree.write, progress=told)
        else:
            with HashingDevice(data, hashes.parameters, tree.write, owns=False) as hashing:
                copied = copy(source, hashing, target_is_zero=target_is_zero, write_back=True, progress=told).copied
                root_hash = hashing.finish()
    sealed = plan.seal(root_hash)
    ranges = _rest(plan.size, root, size, area, hashes)
    with sealed.device() as rest:
        copied += copy(rest, target, target_is_zero=target_is_zero, write_back=True, ranges=ranges).copied
    return sealed, copied


def _rest(end: int, root: Part, size: int, area: Part, hashes: VerityPlan) -> Ranges:
    """Return what lies outside the root file system and its tree, ascending."""
    first, second = root.start + size, area.start + hashes.tree_start
    behind = area.start + hashes.size
    return lambda: ((0, root.start), (first, second - first), (behind, end - behind))
