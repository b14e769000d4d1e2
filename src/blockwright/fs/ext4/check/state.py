"""What the passes of a check share: the file system, the findings, and what was learnt of inodes and blocks.

Knows: how findings are kept and bounded. Refuses to know: the rules.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from blockwright.finding import Finding
from blockwright.fs.ext4.check.claims import Claims
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.layout import Compat, GroupFlag, Incompat, RoCompat
from blockwright.fs.ext4.mapping import Run
from blockwright.fs.ext4.volume import Volume

MAX_FINDINGS: Final = 1000
"""Findings after which a check ends: more would help nobody."""


class EnoughFound(Exception):
    """MAX_FINDINGS was reached. Never leaves ``check``."""


class Group(NamedTuple):
    """What a group descriptor says, its halves joined."""

    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    free_clusters: int
    free_inodes: int
    directories: int
    unused_inodes: int
    flags: int
    block_bitmap_checksum: int
    inode_bitmap_checksum: int


@dataclass(slots=True)
class DirectoryState:
    """A directory between the passes: its blocks, and the parents that names and ``..`` give it."""

    inode: Inode
    runs: list[Run]
    parent: int = 0
    dotdot: int = 0


@dataclass(slots=True)
class AttributeBlock:
    """An attribute block that inodes share: the references it states, those met, what it adds to a quota."""

    stated: int
    met: int
    clusters: int
    inodes: int


@dataclass(slots=True)
class Charge:
    """What one owner uses: bytes and inodes."""

    space: int = 0
    inodes: int = 0


@dataclass(slots=True)
class State:
    """All that is known so far. ``now`` is the time in seconds that nothing may lie behind."""

    volume: Volume
    now: int
    findings: list[Finding] = field(default_factory=list)
    tables: Claims = field(default_factory=Claims)
    """Blocks that groups use for themselves."""
    claims: Claims = field(default_factory=Claims)
    """Clusters in use, of groups first, then of inodes."""
    groups: list[Group] = field(default_factory=list)
    links: dict[int, int] = field(default_factory=dict)
    """i_links_count of each inode in use."""
    counted: dict[int, int] = field(default_factory=dict)
    """Names met of each inode."""
    kinds: dict[int, int] = field(default_factory=dict)
    """Type bits of each inode in use, 0 where the type is broken."""
    directories: dict[int, DirectoryState] = field(default_factory=dict)
    attribute_blocks: dict[int, AttributeBlock] = field(default_factory=dict)
    attribute_inodes: dict[int, int] = field(default_factory=dict)
    """References met of each inode that holds a value."""
    charges: dict[tuple[int, int], Charge] = field(default_factory=dict)
    """(quota type, owner) to what it uses."""
    large_files: bool = False
    tables_by_start: list[tuple[int, int]] = field(default_factory=list)
    """(first block, group) of all inode tables, ascending, once they are asked for."""

    def in_unused_inodes(self, block: int) -> bool:
        """Whether a block belongs to an inode table, to that part of it which was never used."""
        if not self.tables_by_start:
            self.tables_by_start = sorted((group.inode_table, index) for index, group in enumerate(self.groups))
        found = bisect_right(self.tables_by_start, (block, len(self.groups))) - 1
        if found < 0:
            return False
        start, index = self.tables_by_start[found]
        geo = self.volume.geometry
        used = self.used_inodes(self.groups[index]) * geo.inode_size
        return -(-used // geo.block_size) <= block - start < geo.inode_table_blocks

    def used_inodes(self, group: Group) -> int:
        """Return how many of a group's inodes, from its first on, may have been used."""
        count = self.volume.geometry.inodes_per_group
        if not self.group_checksums:
            return count
        return 0 if group.flags & GroupFlag.inode_uninit else max(0, count - group.unused_inodes)

    def report(self, rule: str, message: str, offset: int | None = None, *, repairable: bool = False) -> None:
        """Add a finding. Raises EnoughFound once there are too many."""
        if len(self.findings) >= MAX_FINDINGS:
            raise EnoughFound
        self.findings.append(Finding("ext4." + rule, message, offset, repairable))

    def compat(self, flag: Compat) -> bool:
        """Whether a compatible feature is on."""
        return bool(self.volume.superblock.s_feature_compat & flag)

    def incompat(self, flag: Incompat) -> bool:
        """Whether an incompatible feature is on."""
        return bool(self.volume.superblock.s_feature_incompat & flag)

    def ro_compat(self, flag: RoCompat) -> bool:
        """Whether a read-only compatible feature is on."""
        return bool(self.volume.superblock.s_feature_ro_compat & flag)

    @property
    def group_checksums(self) -> bool:
        """Whether descriptors are summed, so that their flags count."""
        return self.ro_compat(RoCompat.metadata_csum) or self.ro_compat(RoCompat.uninit_bg)
