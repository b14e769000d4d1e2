"""A tree and a definition become a disk: its table, its file systems and where each lies, as a value.

Knows: what a disk plan is, and a bare file system. Refuses to know: partitioned disks (``partitioned``), files,
sources and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from blockwright.build.definition import Definition, Table
from blockwright.build.holding import Holding, check_maximum
from blockwright.build.trees import with_extras
from blockwright.device.planned import PlannedDevice, SegmentTable
from blockwright.errors import UsageError
from blockwright.fs.ext4.plan import Ext4Plan
from blockwright.tree.node import Directory, Node, newest_time

if TYPE_CHECKING:  # a bare file system needs none of them, and starts sooner without
    from blockwright.build.bios import CorePlan
    from blockwright.build.content import Contents
    from blockwright.build.raw import RawPlan
    from blockwright.build.verity import VerityPlan
    from blockwright.fs.fat.plan import FatPlan
    from blockwright.fs.swap.plan import SwapPlan
    from blockwright.table.partition import AnyPartition, AnyTable

    AnyPlan = Ext4Plan | FatPlan | SwapPlan | RawPlan | VerityPlan | CorePlan

NO_TREES: Final[Mapping[int, Directory]] = MappingProxyType({})


class Part(NamedTuple):
    """What lies on a disk: what it is for, where it begins in bytes, and what it holds.

    ``partition`` is None where no table tells of it.
    """

    role: str
    start: int
    file_system: AnyPlan
    partition: AnyPartition | None


class DiskPlan(NamedTuple):
    """A whole disk of ``size`` bytes: a table (None for a bare file system), and file systems.

    ``table_segments`` are the table's bytes, with all others that are not within a file system's plan: boot loaders'.

    Where a hash of the root file system is still to come, ``seal`` returns the same disk with it.
    """

    size: int
    table: AnyTable | None
    parts: tuple[Part, ...]
    table_segments: SegmentTable
    seal: Callable[[bytes], DiskPlan] | None = None

    def part(self, role: str) -> Part:
        """Return the part with that role, which there is."""
        return next(part for part in self.parts if part.role == role)

    def device(self) -> PlannedDevice:
        """Return the disk as a read-only device; nothing of it is written anywhere yet.

        Of a verity partition it has the superblock only. Raises UsageError where the root hash is not known.
        """
        if self.seal is not None:
            raise UsageError("build: a disk with --verity is known when it was written: expected an output")
        segments = SegmentTable()
        segments.include(self.table_segments, 0)
        for part in self.parts:
            segments.include(part.file_system.segments(), part.start)
        return PlannedDevice(self.size, segments)


def clamp_times(tree: Directory, limit_ns: int) -> None:
    """Set every modification time above ``limit_ns`` to it, as SOURCE_DATE_EPOCH asks."""
    stack: list[Node] = [tree]
    while stack:
        node = stack.pop()
        node.mtime_ns = min(node.mtime_ns, limit_ns)
        if isinstance(node, Directory):
            stack.extend(node.entries.values())


def disk_time_ns(tree: Directory, definition: Definition, own: Mapping[int, Directory] = NO_TREES) -> int:
    """Return the time of everything that is not the trees': SOURCE_DATE_EPOCH, or the trees' newest."""
    if definition.time_s is not None:
        return definition.time_s * 10**9
    return max(newest_time(each) for each in (tree, *own.values()))


def plan_disk(tree: Directory, definition: Definition, seed: bytes, contents: Contents | None = None) -> DiskPlan:
    """Return the disk that holds ``tree`` as ``definition`` says.

    ``contents`` is what changed the tree, and has what partitions bring along.

    Raises NoSpace with both numbers, NotFound for a kernel or loader, UsageError for what a file system cannot hold.
    """
    own = NO_TREES if contents is None else contents.own
    time_ns = disk_time_ns(tree, definition, own)
    if definition.table is not Table.NONE:
        from blockwright.build import partitioned

        return partitioned.draft(tree, definition, seed, time_ns, contents=contents).finish()
    part = definition.listed[0]
    held = own.get(0, with_extras(tree, part) if part.is_root else Directory(mtime_ns=time_ns))
    size = part.size if part.size is not None else definition.disk_size if part.rest else None
    plan = Holding(part, held, seed, time_ns, definition.sector_size).plan(size)
    if size is None:
        check_maximum(part, plan)
    return bare(plan, definition, contents)


def bare(root: AnyPlan, definition: Definition, contents: Contents | None = None) -> DiskPlan:
    """Return the disk that is nothing but a file system."""
    if contents is not None and isinstance(root, Ext4Plan):
        contents.extras.fill_fstab(definition, {"root": f"UUID={root.summary.uuid}"})
    return DiskPlan(root.size, None, (Part("root", 0, root, None),), SegmentTable())


def streamed_root(definition: Definition, contents: Contents | None = None) -> tuple[int, int | None]:
    """Return where the root of a streamed build begins and its size, None for automatic, before it is known."""
    if definition.table is Table.NONE:
        return 0, definition.listed[0].size
    from blockwright.build import partitioned

    return partitioned.streamed_root(definition, contents)
