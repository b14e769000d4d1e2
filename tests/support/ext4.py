"""File systems that we wrote, for programs to judge.

Knows: how a plan becomes a file, and what e2fsck is asked. Refuses to know: what is in them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.plan import Ext4Plan
from tests.support.disks import save
from tests.support.tools import run, tool


def write_plan(plan: Ext4Plan, path: Path) -> Path:
    """Write a planned file system to a sparse file."""
    with open_plan(plan) as device:
        save(device, path)
    return path


def e2fsck(path: Path) -> str:
    """What `e2fsck -fn` prints; the test fails unless it finds nothing to fix."""
    return run([tool("e2fsck"), "-fn", path], timeout=240).stdout


class DumpedGroup(NamedTuple):
    """What dumpe2fs tells of a group; positions in blocks, ranges with both ends in them."""

    number: int
    blocks: tuple[int, int]
    flags: frozenset[str]
    superblock: int | None
    descriptors: tuple[int, int] | None
    reserved: tuple[int, int] | None
    block_bitmap: int
    inode_bitmap: int
    inode_table: tuple[int, int]
    free_blocks: int
    free_inodes: int
    directories: int
    unused_inodes: int
    free_runs: list[tuple[int, int]]


def dumpe2fs(path: Path) -> tuple[Mapping[str, str], list[DumpedGroup]]:
    """The superblock as names and values, and the groups, as dumpe2fs prints them."""
    text = run([tool("dumpe2fs"), path], timeout=120).stdout
    head, *groups = re.split(r"^Group (?=\d+:)", text, flags=re.MULTILINE)
    values = dict(re.findall(r"^([^:\n]+):[ \t]*(.*)$", head, flags=re.MULTILINE))
    return values, [_group(group) for group in groups]


def _pair(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _group(text: str) -> DumpedGroup:
    def find(pattern: str) -> str | None:
        found = re.search(pattern, text)
        return found[1] if found else None

    def number(pattern: str) -> int:
        found = find(pattern)
        assert found is not None, f"{pattern} in\n{text}"
        return int(found)

    superblock = find(r"superblock at (\d+)")
    descriptors, reserved = find(r"Group descriptors at ([\d-]+)"), find(r"Reserved GDT blocks at ([\d-]+)")
    free = find(r"Free blocks: ([\d, -]*)") or ""
    return DumpedGroup(
        int(text.split(":", maxsplit=1)[0]),
        _pair(str(find(r"Blocks ([\d-]+)"))),
        frozenset((find(r"\) csum 0x[0-9a-f]+ \[([A-Z_, ]+)\]") or "").split(", ")) - {""},
        None if superblock is None else int(superblock),
        _pair(descriptors) if descriptors else None,
        _pair(reserved) if reserved else None,
        number(r"Block bitmap at (\d+)"),
        number(r"Inode bitmap at (\d+)"),
        _pair(str(find(r"Inode table at ([\d-]+)"))),
        number(r"(\d+) free blocks"),
        number(r"(\d+) free inodes"),
        number(r"(\d+) directories"),
        int(find(r"(\d+) unused inodes") or 0),
        [_pair(part) for part in free.split(", ") if part.strip()],
    )
