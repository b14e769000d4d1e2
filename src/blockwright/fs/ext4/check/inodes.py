"""Every inode that may have been used, judged one by one.

Knows: which inodes are looked at, what reserved ones may be, and how fields agree with the block map.
Refuses to know: names and link counts, which need all directories.

Source: Linux 6.1, Documentation/filesystems/ext4 (inodes, special_inodes, bigalloc).
"""

from __future__ import annotations

from typing import Final

from blockwright.fs.ext4.check import attributes, fields
from blockwright.fs.ext4.check.maps import MapWalk
from blockwright.fs.ext4.check.state import Charge, DirectoryState, State
from blockwright.fs.ext4.directory import index_offset
from blockwright.fs.ext4.inode import S_IFDIR, S_IFREG, Inode
from blockwright.fs.ext4.layout import Compat, InodeFlag, ReservedInode, RoCompat
from blockwright.units import MiB, align_down

PART: Final = MiB
"""Bytes of an inode table that are read at once."""
QUOTA_USER, QUOTA_GROUP, QUOTA_PROJECT = range(3)
_LARGE_FILE: Final = 1 << 31


class InodePass:
    """Looks at each inode once; what other passes need is left in the state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.seen: set[int] = set()
        superblock = state.volume.superblock
        self.first_ino = superblock.first_ino
        self.quota_inodes = {
            int(ReservedInode.user_quota): superblock.s_usr_quota_inum,
            int(ReservedInode.group_quota): superblock.s_grp_quota_inum,
        }
        if superblock.s_prj_quota_inum:
            self.quota_inodes[superblock.s_prj_quota_inum] = superblock.s_prj_quota_inum
        self.orphan_file = superblock.s_orphan_file_inum
        self.rules = fields.Rules(state)

    def run(self) -> None:
        """Look at all inodes, group by group, as far as descriptors say that they were ever used."""
        geo = self.state.volume.geometry
        for group, descriptor in enumerate(self.state.groups):
            count = self.state.used_inodes(descriptor)
            self._table(group * geo.inodes_per_group + 1, count, descriptor.inode_table * geo.block_size)

    def _table(self, number: int, count: int, position: int) -> None:
        volume, size = self.state.volume, self.state.volume.geometry.inode_size
        blank = bytes(size)
        part_inodes = align_down(PART, size) // size
        for start in range(0, count, part_inodes):
            part = min(part_inodes, count - start)
            at = position + start * size
            if at + part * size > volume.device.size:
                return
            data = volume.read_bytes(at, part * size)
            if data == bytes(len(data)) and number + start > self.first_ino:
                continue
            for index in range(part):
                raw = data[index * size : (index + 1) * size]
                if raw != blank or number + start + index < self.first_ino:
                    self._inode(volume.parse_inode(number + start + index, raw, at + index * size))

    # -- one inode -------------------------------------------------------------------------------------------

    def _inode(self, inode: Inode) -> None:
        state, number = self.state, inode.number
        volume = state.volume
        if volume.has_checksums and not inode.checksum_holds(volume.seed):
            expected = inode.checksum(volume.seed)
            self.report(inode, "checksum", f"expected {expected:#x}, found {inode.stored_checksum:#x}", 0x7C)
        self.rules.deletion_time(inode)
        if inode.links:
            state.links[number] = inode.links
        elif number >= self.first_ino and number not in self.quota_inodes:
            if not inode.dtime and inode.mode:
                self.report(inode, "deletion-time", "expected one without links, found 0", 0x14)
            return
        self.rules.flags(inode)
        kept = number < self.first_ino or number in self.quota_inodes or number == self.orphan_file
        if kept and self._reserved(inode):
            return
        if not inode.links:
            return
        state.kinds[number] = inode.kind
        self.rules.fields(inode)
        usage = attributes.in_inode(state, inode)
        self.rules.kind(inode)
        if inode.kind == S_IFDIR:
            state.directories[number] = DirectoryState(inode, [])
        self._blocks(inode, usage)

    def report(self, inode: Inode, rule: str, message: str, offset: int) -> None:
        """Report about an inode's field."""
        self.state.report(
            "inode." + rule, f"inode {inode.number}: {rule.replace('-', ' ')}: {message}", inode.position + offset
        )

    def _reserved(self, inode: Inode) -> bool:
        """Judge an inode that is no user's; return whether that was all."""
        state, number = self.state, inode.number
        superblock = state.volume.superblock
        if number == ReservedInode.root:
            if inode.kind != S_IFDIR:
                self.report(inode, "root", f"expected a directory, found mode {inode.mode:#o}", 0)
            return False
        state.kinds.setdefault(number, 0)
        if number == ReservedInode.journal:
            return self._purpose(inode, "journal", wanted=superblock.s_journal_inum == number)
        if number in self.quota_inodes:
            wanted = state.ro_compat(RoCompat.quota) and number in self.quota_inodes.values()
            return self._purpose(inode, "quota", wanted=wanted)
        if number == self.orphan_file:
            return self._purpose(inode, "orphan-file", wanted=state.compat(Compat.orphan_file))
        if number == ReservedInode.bad_blocks:
            used = inode.mode or inode.uid & 0xFFFF or inode.gid & 0xFFFF or inode.links
            if used or inode.file_acl & 0xFFFFFFFF or inode.flags & InodeFlag.inline_data:
                self.report(inode, "bad-blocks", f"expected blocks only, found mode {inode.mode:#o}", 0)
            MapWalk(state, inode, self.seen).walk()
            return True
        self._kept(inode)
        self._blocks(inode, attributes.Usage(0, 0))
        return True

    def _kept(self, inode: Inode) -> None:
        """Judge the mode of an inode that is kept for a use it may not have."""
        if inode.number == ReservedInode.boot_loader:
            if inode.kind == S_IFDIR:
                self.report(inode, "reserved", f"expected no directory, found mode {inode.mode:#o}", 0)
        elif inode.number == ReservedInode.resize:
            if inode.mode and inode.kind != S_IFREG:
                self.report(inode, "reserved", f"expected a regular file, found mode {inode.mode:#o}", 0)
        elif inode.mode:
            self.report(inode, "reserved", f"expected no mode, found {inode.mode:#o}", 0)

    def _purpose(self, inode: Inode, what: str, *, wanted: bool) -> bool:
        """Judge an inode that a feature uses, or that must be clear without it."""
        if wanted:
            if inode.kind != S_IFREG:
                self.report(inode, what, f"expected a regular file, found mode {inode.mode:#o}", 0)
            self._blocks(inode, attributes.Usage(0, 0))
            return True
        if inode.links or inode.blocks & 0xFFFFFFFF or any(inode.block[:4]):
            self.report(inode, what, f"expected it clear, found {inode.links} links and {inode.blocks} sectors", 0)
        return False

    # -- blocks ----------------------------------------------------------------------------------------------

    def _blocks(self, inode: Inode, inner: attributes.Usage) -> None:
        state = self.state
        outer = attributes.in_block(state, inode)
        walk = MapWalk(state, inode, self.seen)
        if self.rules.has_map(inode):
            walk.walk()
        clusters = walk.clusters + inner.clusters + outer.clusters
        directory = state.directories.get(inode.number) if inode.kind == S_IFDIR else None
        if directory is not None:
            directory.runs = walk.runs
        if inode.flags & InodeFlag.index:
            self._index(inode, walk)
        if inode.kind == S_IFDIR and not clusters and not inode.flags & InodeFlag.inline_data:
            self.report(inode, "size", "expected a directory to have blocks, found none", 4)
        self._charge(inode, clusters, 1 + inner.inodes + outer.inodes)
        self.rules.size(inode, walk.last_block, walk.last_written)
        if inode.kind == S_IFREG and inode.size >= _LARGE_FILE:
            state.large_files = True
        self.rules.block_count(inode, clusters)

    def _index(self, inode: Inode, walk: MapWalk) -> None:
        """Judge the first block of a hash tree, whose nodes are judged with their names."""
        state = self.state
        if inode.kind != S_IFDIR:
            self.report(inode, "flags", f"index: expected a directory, found mode {inode.mode:#o}", 0x20)
        elif not state.compat(Compat.dir_index):
            self.report(inode, "flags", "index: expected the feature dir_index with it, found it alone", 0x20)
        elif not walk.runs or walk.runs[0].logical:
            self.report(inode, "flags", "index: expected a first block, found a hole", 0x20)
        else:
            volume = state.volume
            if index_offset(volume.blocks(walk.runs[0].physical, 1, "index"), volume.block_size) != 32:
                position = walk.runs[0].physical * volume.block_size
                state.report("index.root", f"directory {inode.number}: expected the root of a hash tree", position)

    def _charge(self, inode: Inode, clusters: int, inodes: int) -> None:
        """Add what an inode uses to its owners' quotas."""
        state, number = self.state, inode.number
        if not state.ro_compat(RoCompat.quota) or inode.flags & InodeFlag.ea_inode:
            return
        if number in (state.volume.superblock.s_prj_quota_inum, self.orphan_file):
            return
        if number != ReservedInode.root and number < self.first_ino:
            return
        geo = state.volume.geometry
        space = clusters * geo.cluster_blocks * geo.block_size
        owners = ((QUOTA_USER, inode.uid), (QUOTA_GROUP, inode.gid), (QUOTA_PROJECT, inode.projid or 0))
        for owner in owners:
            charge = state.charges.setdefault(owner, Charge())
            charge.space += space
            charge.inodes += inodes
