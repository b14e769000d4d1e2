"""A tree and a definition become a disk: its table, its file systems and where each lies, as a value.

Knows: what a disk plan is, and a bare file system. Refuses to know: partitioned disks (``partitioned``), files,
sources and outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from blockwright.build.definition import Definition, RootOptions, Table
from blockwright.device.planned import PlannedDevice, SegmentTable
from blockwright.errors import UsageError
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import Ext4Plan
from blockwright.fs.ext4.plan import plan as plan_ext4
from blockwright.tree.node import Directory, Node

if TYPE_CHECKING:  # a bare file system needs none of them, and starts sooner without
    from blockwright.build.bios import CorePlan
    from blockwright.build.verity import VerityPlan
    from blockwright.fs.fat.plan import FatPlan
    from blockwright.table.partition import AnyPartition, AnyTable

    AnyPlan = Ext4Plan | FatPlan | VerityPlan | CorePlan


class Part(NamedTuple):
    """A file system of the disk, hashes, or a core image: what it is for, and where it begins in bytes.

    ``partition`` is None where it has none.
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


def newest_time(tree: Directory) -> int:
    """Return the newest modification time in the tree, in nanoseconds; every time of the disk follows from it."""
    newest = tree.mtime_ns
    stack = [tree]
    while stack:
        nodes = stack.pop().entries.values()
        newest = max([newest, *[node.mtime_ns for node in nodes]])
        stack += [node for node in nodes if isinstance(node, Directory)]
    return newest


def clamp_times(tree: Directory, limit_ns: int) -> None:
    """Set every modification time above ``limit_ns`` to it, as SOURCE_DATE_EPOCH asks."""
    stack: list[Node] = [tree]
    while stack:
        node = stack.pop()
        node.mtime_ns = min(node.mtime_ns, limit_ns)
        if isinstance(node, Directory):
            stack.extend(node.entries.values())


def ext4_options(root: RootOptions, seed: bytes, time_ns: int, size: int | None) -> Ext4Options:
    """Return the planner's options for the root file system of ``size`` bytes, None for automatic."""
    return Ext4Options(
        seed=seed,
        size=size,
        free=root.free if size is None else 0.0,
        label=root.label,
        block_size=root.block_size,
        inodes=root.inodes,
        reserved_percent=None if root.reserved is None else root.reserved * 100,
        journal=root.journal,
        time_ns=time_ns,
    )


def disk_time_ns(tree: Directory, definition: Definition) -> int:
    """Return the time of everything that is not the tree's: SOURCE_DATE_EPOCH, or the tree's newest."""
    return newest_time(tree) if definition.time_s is None else definition.time_s * 10**9


def plan_disk(tree: Directory, definition: Definition, seed: bytes) -> DiskPlan:
    """Return the disk that holds ``tree`` as ``definition`` says.

    Raises NoSpace with both numbers, NotFound for a kernel or loader, UsageError for what a file system cannot hold.
    """
    time_ns = disk_time_ns(tree, definition)
    if definition.table is not Table.NONE:
        from blockwright.build import partitioned

        return partitioned.draft(tree, definition, seed, time_ns).finish()
    return bare(plan_ext4(tree, ext4_options(definition.root, seed, time_ns, definition.root_size)))


def bare(root: Ext4Plan) -> DiskPlan:
    """Return the disk that is nothing but a file system."""
    return DiskPlan(root.size, None, (Part("root", 0, root, None),), SegmentTable())


def streamed_root(definition: Definition) -> tuple[int, int | None]:
    """Return where the root of a streamed build begins and its size, None for automatic, before it is known."""
    if definition.table is Table.NONE:
        return 0, definition.root_size
    from blockwright.build import partitioned

    return partitioned.streamed_root(definition)
