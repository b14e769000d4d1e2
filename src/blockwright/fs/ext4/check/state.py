"""What the passes of a check share: the file system, the findings, and what was learnt of inodes and blocks.

Knows: how findings are kept and bounded. Refuses to know: the rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from blockwright.finding import Finding
from blockwright.fs.ext4.check.claims import Claims
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.layout import Compat, Incompat, RoCompat
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
    claims: Claims = field(default_factory=Claims)
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
