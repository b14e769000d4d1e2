"""What a byte of a planned disk is a part of, for people: a partition, a structure of its file system, a file.

File systems are read through the plan, which has every byte of their metadata, whatever an output holds.

Knows: names of structures. Refuses to know: why somebody asks.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from blockwright.build.plan import DiskPlan, Part
from blockwright.build.verity import VerityPlan
from blockwright.device.window import Window
from blockwright.errors import FormatError
from blockwright.fs.ext4.plan import Ext4Plan
from blockwright.fs.fat.plan import FatPlan
from blockwright.fs.reader import FileSystem, show_path
from blockwright.resolve import open_file_system
from blockwright.table.partition import AnyTable, MbrTable, PartitionTable

_SUPERBLOCK = 1024


def locate(plan: DiskPlan, offset: int) -> str:
    """Return what byte ``offset`` of the disk belongs to: ``root (partition 2): /etc/passwd, byte 17``."""
    for part in plan.parts:
        size = part.partition.size if part.partition is not None else part.file_system.size
        if part.start <= offset < part.start + size:
            number = f" (partition {part.partition.number})" if part.partition is not None else ""
            return f"{part.role}{number}: {_within(plan, part, offset - part.start)}"
    if offset >= plan.size:
        return "behind the end"
    return "behind the file system" if plan.table is None else _beside(plan, plan.table, offset)


def _beside(plan: DiskPlan, table: AnyTable, offset: int) -> str:
    """Return what a byte of a partitioned disk is that no partition has."""
    if offset < table.sector_size:
        return "boot code or partition table"
    if isinstance(table, PartitionTable) and not table.usable_start <= offset < table.usable_end:
        return "partition table"
    if isinstance(table, MbrTable):
        records = [each.start for each in table.extended] + [each.record for each in table.partitions]
        if any(record <= offset < record + table.sector_size for record in records):
            return "partition table"
    before = any(part.start <= offset for part in plan.parts)
    behind = any(part.start > offset for part in plan.parts)
    if before and behind:
        return "between partitions"
    return "behind the last partition" if before else "before the first partition"


def _within(plan: DiskPlan, part: Part, position: int) -> str:
    system = part.file_system
    if position >= system.size:
        return "behind the file system"
    if isinstance(system, Ext4Plan):
        return _ext4(plan, part, system, position)
    if isinstance(system, FatPlan):
        return _fat(plan, part, system, position)
    if isinstance(system, VerityPlan):
        return "superblock" if position < system.tree_start else "hash tree"
    return system.kind


def _ext4(plan: DiskPlan, part: Part, system: Ext4Plan, position: int) -> str:
    size, summary = system.summary.block_size, system.summary
    if position < _SUPERBLOCK:
        return "boot sector"
    if position < 2 * _SUPERBLOCK:
        return "superblock"
    block = position // size
    group = next(each for each in system.groups() if block < each.end_block)
    if group.superblock is not None:
        if block == group.superblock:
            return f"superblock's copy in group {group.number}" if group.number else "the block of the superblock"
        behind = group.superblock + 1 + summary.descriptor_blocks
        if block < behind:
            return f"group descriptors in group {group.number}"
        if block < behind + summary.reserved_descriptor_blocks:
            return f"blocks kept for group descriptors in group {group.number}"
    for each in system.groups():
        if block in (each.block_bitmap, each.inode_bitmap):
            return f"{'block' if block == each.block_bitmap else 'inode'} bitmap of group {each.number}"
        if each.inode_table <= block < each.inode_table + summary.inode_table_blocks:
            index = (position - each.inode_table * size) // (
                summary.inode_table_blocks * size // summary.inodes_per_group
            )
            number = each.number * summary.inodes_per_group + index + 1
            return f"inode {number}{_named(plan, part, number)}"
    return _owner(plan, part, position) or "a directory, a map of blocks, attributes, the journal, or free blocks"


def _fat(plan: DiskPlan, part: Part, system: FatPlan, position: int) -> str:
    geometry = system.geometry
    if position < geometry.fat_start(0):
        return "boot sector, or a sector kept beside it"
    if position < geometry.root_start:
        return f"allocation table {(position - geometry.fat_start(0)) // geometry.fat_size + 1}"
    if position < geometry.data_start:
        return "root directory"
    return _owner(plan, part, position) or "a directory, or free clusters"


def _owner(plan: DiskPlan, part: Part, position: int) -> str | None:
    """Return the regular file that has the byte, None where there is none."""
    with _opened(plan, part) as files:
        for path, inode, kind in _walk(files):
            if kind != stat.S_IFREG:
                continue
            for run in files.placement(inode):
                if run.position <= position < run.position + run.length:
                    at, size = run.offset + position - run.position, files.stat_inode(inode).size
                    return f"/{show_path(path)}, byte {at}" if at < size else f"behind the end of /{show_path(path)}"
    return None


def _named(plan: DiskPlan, part: Part, number: int) -> str:
    """Return the path of an inode, in brackets; nothing where it has none."""
    with _opened(plan, part) as files:
        found = next((path for path, inode, _ in _walk(files) if inode == number), None)
    return "" if found is None else f" (/{show_path(found)})"


def _opened(plan: DiskPlan, part: Part) -> FileSystem:
    """Return the planned file system, open for reading: its metadata is all there, what streamed past is not."""
    return open_file_system(Window(plan.device(), part.start, part.file_system.size), source=part.role)


def _walk(files: FileSystem) -> Iterator[tuple[bytes, int, int]]:
    """Yield path, inode and kind of everything; a directory that cannot be read is passed over."""
    yield b"", files.root_inode, stat.S_IFDIR
    stack = [(b"", files.root_inode)]
    while stack:
        path, inode = stack.pop()
        try:
            entries = list(files.entries(inode))
        except FormatError:
            continue
        for entry in entries:
            below = path + b"/" + entry.name if path else entry.name
            kind = entry.kind or files.stat_inode(entry.inode).kind
            yield below, entry.inode, kind
            if kind == stat.S_IFDIR:
                stack.append((below, entry.inode))
