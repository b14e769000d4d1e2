"""The resize inode, which keeps blocks behind the group descriptors, at another size of the file system.

Each kept block of group 0 serves as an indirect block that lists its copies in the groups with a backup; a double
indirect block lists those, at the places of the descriptor blocks they stand for.

Knows: what the inode and its blocks must hold. Refuses to know: when they change.

Source: Linux 6.1, Documentation/filesystems/ext4 (special_inodes, blockgroup); resize_inode as mke2fs makes it.
"""

from __future__ import annotations

from struct import Struct

from blockwright.errors import Unsupported
from blockwright.fs.ext4.geometry import Geometry
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.layout import InodeFlag, ReservedInode
from blockwright.fs.ext4.volume import Volume
from blockwright.units import SECTOR

_POINTERS = Struct("<15I")
_DOUBLE = 13
_CHECKSUM_LOW, _CHECKSUM_HIGH = 0x7C, 0x82


class ResizeInode:
    """The resize inode of a volume that has the feature. Raises Corrupt where it is not formed as it must be."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self.inode = inode = volume.inode(int(ReservedInode.resize))
        pointers = _POINTERS.unpack(inode.block)
        self.double = pointers[_DOUBLE]
        if any(pointers[:_DOUBLE] + pointers[_DOUBLE + 1 :]) or inode.flags & (
            InodeFlag.extents | InodeFlag.huge_file
        ):
            raise volume.corrupt("resize inode: expected one double indirect block, found others", inode.position)
        volume.check_run(self.double, 1, "resize inode: double indirect block")

    def blocks_for(self, geo: Geometry) -> dict[int, bytes]:
        """Return what the inode's blocks in group 0 must hold for a geometry, by their numbers."""
        fan_out = geo.block_size // 4
        backups = [group for group in range(1, geo.groups) if geo.has_super(group)]
        if len(backups) > fan_out or geo.reserved_gdt_blocks > fan_out or geo.blocks_count > 1 << 32:
            raise Unsupported(
                f"resize inode: expected at most {fan_out} backups, {fan_out} kept blocks and {1 << 32} blocks, "
                f"found {len(backups)}, {geo.reserved_gdt_blocks} and {geo.blocks_count}"
            )
        outer = [0] * fan_out
        found: dict[int, bytes] = {}
        listing = Struct(f"<{len(backups)}I")
        first = geo.super_block + 1 + geo.descriptor_blocks
        self._volume.check_run(first, geo.reserved_gdt_blocks, "resize inode: kept blocks")
        for index in range(geo.reserved_gdt_blocks):
            block = first + index
            outer[(geo.descriptor_blocks + index) % fan_out] = block
            copies = listing.pack(*(block + group * geo.blocks_per_group for group in backups))
            found[block] = copies.ljust(geo.block_size, b"\0")
        found[self.double] = Struct(f"<{fan_out}I").pack(*outer)
        return found

    def bytes_for(self, geo: Geometry) -> bytes:
        """Return the inode's bytes with the count of blocks that a geometry gives it."""
        copies = sum(geo.has_super(group) for group in range(geo.groups))
        return self._changed(1 + geo.reserved_gdt_blocks * copies, self.double)

    def emptied(self) -> bytes:
        """Return the inode's bytes once it keeps nothing."""
        return self._changed(0, 0)

    def _changed(self, blocks: int, double: int) -> bytes:
        volume, inode = self._volume, self.inode
        raw = bytearray(inode.raw)
        sectors = blocks * (volume.block_size // SECTOR)
        raw[0x1C:0x20] = (sectors & 0xFFFFFFFF).to_bytes(4, "little")
        raw[0x74:0x76] = (sectors >> 32).to_bytes(2, "little")
        pointers = [0] * 15
        pointers[_DOUBLE] = double
        raw[0x28:0x64] = _POINTERS.pack(*pointers)
        if volume.has_checksums:
            checksum = Inode(inode.number, bytes(raw), inode.position).checksum(volume.seed)
            raw[_CHECKSUM_LOW : _CHECKSUM_LOW + 2] = (checksum & 0xFFFF).to_bytes(2, "little")
            if checksum >> 16 or inode.extra_isize >= 4:
                raw[_CHECKSUM_HIGH : _CHECKSUM_HIGH + 2] = (checksum >> 16).to_bytes(2, "little")
        return bytes(raw)
