"""How a disk plan is shown before, or after, it is written.

Knows: text and JSON for plans. Refuses to know: how a plan is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockwright.build.plan import DiskPlan, Part
from blockwright.cli.output import table
from blockwright.fs.ext4.plan import Ext4Plan
from blockwright.units import format_size

if TYPE_CHECKING:  # what a disk does not hold needs no planner
    from blockwright.build.plan import AnyPlan


def plan_document(plan: DiskPlan) -> dict[str, Any]:
    """Return the plan for JSON; sizes and positions in bytes unless a name says otherwise."""
    found = plan.table
    return {
        "size": plan.size,
        "table": found and {"kind": found.kind, "guid": found.identity, "sector_size": found.sector_size},
        "parts": [_part_document(part) for part in plan.parts],
    }


def plan_lines(plan: DiskPlan) -> list[str]:
    """Return the plan for people: the disk, its parts, and each file system down to its block groups."""
    kind = f"{plan.table.kind} {plan.table.identity}" if plan.table else "no partition table"
    lines = [f"disk: {format_size(plan.size)} ({plan.size} bytes), {kind}"]
    rows = [("part", "start", "size", "guid")]
    for part in plan.parts:
        run = part.partition
        size = run.size if run else part.file_system.size
        rows.append((part.role, str(part.start), format_size(size), run.identity if run else "-"))
    lines += table(rows, "<>><")
    for part in plan.parts:
        lines += ["", f"{part.role}:"]
        shown = [
            (f"  {name.replace('_', ' ')}:", _shown(value)) for name, value in _summary(part.file_system).items()
        ]
        lines += table(shown, "<<")
        if isinstance(part.file_system, Ext4Plan):
            lines += _group_lines(part.file_system)
    return lines


def _part_document(part: Part) -> dict[str, Any]:
    run, system = part.partition, part.file_system
    document: dict[str, Any] = {
        "role": part.role,
        "start": part.start,
        "partition": run and {"number": run.number, "size": run.size, "guid": run.identity},
        "file_system": {"size": system.size, **_summary(system)},
    }
    if isinstance(system, Ext4Plan):
        document["file_system"]["groups"] = [group._asdict() for group in system.groups()]
    return document


def _summary(system: AnyPlan) -> dict[str, Any]:
    return {"kind": system.kind, **system.summary._asdict()}


def _shown(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _group_lines(plan: Ext4Plan) -> list[str]:
    """Return a line for each block group, with the positions that dumpe2fs tells of the finished file system."""
    head = ("  group", "blocks", "superblock", "bitmaps", "inode table", "free blocks", "free inodes", "directories")
    rows = [
        (
            f"  {group.number}",
            f"{group.first_block}-{group.end_block - 1}",
            "-" if group.superblock is None else str(group.superblock),
            f"{group.block_bitmap} {group.inode_bitmap}",
            f"{group.inode_table}-{group.inode_table + plan.summary.inode_table_blocks - 1}",
            str(group.free_blocks),
            str(group.free_inodes),
            str(group.directories),
        )
        for group in plan.groups()
    ]
    return ["", *table([head, *rows], "<<>><>>>")]
