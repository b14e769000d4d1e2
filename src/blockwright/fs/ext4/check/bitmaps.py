"""Bitmaps and free counts compared with what was found in use.

Knows: how bitmaps cover groups, what uninitialised ones stand for, and how they are summed.
Refuses to know: why something is in use.

Source: Linux 6.1, Documentation/filesystems/ext4 (bitmaps, group_descr, bigalloc).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from blockwright.fs.ext4.check.claims import set_bits
from blockwright.fs.ext4.check.state import Group, State
from blockwright.fs.ext4.inode import S_IFDIR
from blockwright.fs.ext4.layout import SUPERBLOCK_OFFSET, GroupFlag, RoCompat

_BITS_SET: Final = bytes(byte.bit_count() for byte in range(256))


class BitmapPass:
    """Compares every group's two bitmaps, then the counts of groups and superblock."""

    def __init__(self, state: State) -> None:
        self.state = state
        geo = state.volume.geometry
        self.geo = geo
        self.ratio = geo.cluster_blocks
        self.clusters_per_group = geo.blocks_per_group // geo.cluster_blocks
        self.runs = list(state.claims.merged())
        self.run_starts = [low for low, _high in self.runs]
        self.used_inodes = sorted(number for number in state.kinds)

    def run(self) -> None:
        """Compare all."""
        free_clusters = free_inodes = 0
        for group, found in enumerate(self.state.groups):
            free_clusters += self._blocks(group, found)
            free_inodes += self._inodes(group, found)
        superblock = self.state.volume.superblock
        expected = free_clusters * self.ratio
        if superblock.free_blocks_count != expected:
            self._superblock("free-blocks", expected, superblock.free_blocks_count, 0xC)
        if superblock.s_free_inodes_count != free_inodes:
            self._superblock("free-inodes", free_inodes, superblock.s_free_inodes_count, 0x10)

    def _superblock(self, rule: str, expected: int, found: int, offset: int) -> None:
        message = f"expected {expected}, found {found}"
        self.state.report("superblock." + rule, message, SUPERBLOCK_OFFSET + offset, repairable=True)

    def _report(self, group: int, rule: str, message: str, offset: int) -> None:
        self.state.report(rule, f"group {group}: {message}", offset, repairable=True)

    def _count(self, group: int, rule: str, expected: int, found: int, offset: int) -> None:
        if expected != found:
            position = self.state.volume.descriptor_position(group) + offset
            self._report(group, "group." + rule, f"expected {expected}, found {found}", position)

    # -- blocks ----------------------------------------------------------------------------------------------

    def _blocks(self, group: int, found: Group) -> int:
        """Compare a group's block bitmap; return its free clusters."""
        geo, size = self.geo, self.geo.block_size
        first = group * self.clusters_per_group
        clusters = -(-(geo.group_end(group) - geo.first_data_block) // self.ratio) - first
        used = self._used(first, clusters)
        if found.flags & GroupFlag.block_uninit and self.state.group_checksums:
            self._compare(group, "block-bitmap", used, self._own(group, found, clusters), clusters, None)
        elif 0 < found.block_bitmap < geo.blocks_count:
            data = self.state.volume.blocks(found.block_bitmap, 1, "block bitmap")
            self._compare(group, "block-bitmap", used, data, clusters, found.block_bitmap * size)
            self._padding(group, "block-bitmap", data, clusters, found.block_bitmap * size)
            self._sum(group, "block-bitmap", data[: self.clusters_per_group // 8], found.block_bitmap_checksum, 0x18)
        free = clusters - sum(used.translate(_BITS_SET))
        self._count(group, "free-blocks", free, found.free_clusters, 0xC)
        return free

    def _used(self, first: int, clusters: int) -> bytearray:
        bitmap = bytearray(-(-clusters // 8))
        end = first + clusters
        begin = max(0, bisect_left(self.run_starts, first) - 1)
        for run_low, run_high in self.runs[begin : bisect_left(self.run_starts, end)]:
            low, high = max(run_low, first), min(run_high, end)
            if low < high:
                set_bits(bitmap, low - first, high - low)
        return bitmap

    def _own(self, group: int, found: Group, clusters: int) -> bytes:
        """Return what an uninitialised bitmap stands for: the group's own tables, as far as they lie in it."""
        geo = self.geo
        bitmap = bytearray(-(-clusters // 8))
        low = geo.group_start(group)
        for start, count in geo.own_blocks(group, found.block_bitmap, found.inode_bitmap, found.inode_table):
            bit = (start - low) // self.ratio
            set_bits(bitmap, bit, (start + count - 1 - low) // self.ratio + 1 - bit)
        return bytes(bitmap)

    # -- inodes ----------------------------------------------------------------------------------------------

    def _inodes(self, group: int, found: Group) -> int:
        """Compare a group's inode bitmap and its number of directories; return its free inodes."""
        geo, size = self.geo, self.geo.block_size
        count = geo.inodes_per_group
        first = group * count + 1
        used = bytearray(-(-count // 8))
        directories = total = 0
        for number in self.used_inodes[
            bisect_left(self.used_inodes, first) : bisect_left(self.used_inodes, first + count)
        ]:
            set_bits(used, number - first, 1)
            total += 1
            directories += self.state.kinds[number] == S_IFDIR
        if found.flags & GroupFlag.inode_uninit and self.state.group_checksums:
            self._compare(group, "inode-bitmap", used, bytes(len(used)), count, None)
        elif 0 < found.inode_bitmap < geo.blocks_count:
            data = self.state.volume.blocks(found.inode_bitmap, 1, "inode bitmap")
            self._compare(group, "inode-bitmap", used, data, count, found.inode_bitmap * size)
            self._padding(group, "inode-bitmap", data, count, found.inode_bitmap * size)
            self._sum(group, "inode-bitmap", data[: count // 8], found.inode_bitmap_checksum, 0x1A)
        self._count(group, "free-inodes", count - total, found.free_inodes, 0xE)
        self._count(group, "directories", directories, found.directories, 0x10)
        return count - total

    # -- both ------------------------------------------------------------------------------------------------

    def _compare(self, group: int, rule: str, used: bytearray, data: bytes, bits: int, position: int | None) -> None:
        whole, rest = divmod(bits, 8)
        mask = (1 << rest) - 1
        if used[:whole] == data[:whole] and (not rest or used[whole] == data[whole] & mask):
            return
        differing = int.from_bytes(used, "little") ^ int.from_bytes(data[: len(used)], "little")
        differing &= (1 << bits) - 1
        bit = (differing & -differing).bit_length() - 1
        wanted = used[bit >> 3] >> (bit & 7) & 1
        at = self.state.volume.descriptor_position(group) if position is None else position + (bit >> 3)
        message = (
            f"expected bit {bit} to be {wanted}, found {1 - wanted}, and {differing.bit_count()} bits differ in all"
        )
        self._report(group, rule + ".bits", message, at)

    def _padding(self, group: int, rule: str, data: bytes, bits: int, position: int) -> None:
        """Judge the bits behind the last that counts, which must be set."""
        whole, rest = divmod(bits, 8)
        tail = data[whole + (rest > 0) :]
        if (rest and data[whole] >> rest != 0xFF >> rest) or tail != b"\xff" * len(tail):
            self._report(
                group, rule + ".padding", f"expected bits from {bits} on to be 1, found others", position + whole
            )

    def _sum(self, group: int, rule: str, data: bytes, found: int, offset: int) -> None:
        if not self.state.ro_compat(RoCompat.metadata_csum):
            return
        expected = self.state.volume.bitmap_checksum(data)
        if expected != found:
            position = self.state.volume.descriptor_position(group) + offset
            self._report(group, rule + ".checksum", f"expected {expected:#x}, found {found:#x}", position)
