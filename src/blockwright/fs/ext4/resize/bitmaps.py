"""Block bitmaps of groups that stay, changed in memory.

Knows: how a bitmap is stored, summed and counted. Refuses to know: why blocks are taken or given back.

Source: Linux 6.1, Documentation/filesystems/ext4 (bitmaps, group_descr).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from blockwright.fs.ext4.check.claims import set_bits
from blockwright.fs.ext4.geometry import Geometry
from blockwright.fs.ext4.layout import GroupDescriptor, GroupFlag, RoCompat
from blockwright.fs.ext4.resize.descriptors import Descriptors
from blockwright.fs.ext4.resize.groups import pad
from blockwright.fs.ext4.volume import Volume

_BITS_CLEAR: Final = bytes(8 - byte.bit_count() for byte in range(256))


def has_group_checksums(volume: Volume) -> bool:
    """Whether descriptors are summed, so that their flags count."""
    return bool(volume.superblock.s_feature_ro_compat & (RoCompat.metadata_csum | RoCompat.uninit_bg))


def read_block_bitmap(volume: Volume, group: int, descriptor: GroupDescriptor) -> bytearray:
    """Return a group's block bitmap, made where it is uninitialised, and padded to the group's end.

    Raises Corrupt where it lies outside the file system or its checksum is wrong.
    """
    geo = volume.geometry
    start, bits = geo.group_start(group), geo.group_end(group) - geo.group_start(group)
    if descriptor.bg_flags & GroupFlag.block_uninit and has_group_checksums(volume):
        bitmap = bytearray(geo.block_size)
        places = descriptor.block_bitmap, descriptor.inode_bitmap, descriptor.inode_table
        for block, count in geo.own_blocks(group, *places):
            set_bits(bitmap, block - start, count)
    else:
        data = volume.blocks(descriptor.block_bitmap, 1, f"block bitmap of group {group}")
        _verify(volume, group, data[: geo.blocks_per_group // 8], descriptor)
        bitmap = bytearray(data)
    pad(bitmap, bits)
    return bitmap


def _verify(volume: Volume, group: int, data: bytes, descriptor: GroupDescriptor) -> None:
    if not volume.has_checksums or not volume.verify:
        return
    found, expected = descriptor.block_bitmap_checksum, volume.bitmap_checksum(data)
    if found != expected:
        position = descriptor.block_bitmap * volume.block_size
        raise volume.corrupt(
            f"block bitmap of group {group}: checksum: expected {expected:#x}, found {found:#x}", position
        )


def free_in(bitmap: bytearray) -> int:
    """Return how many bits are clear."""
    return sum(bitmap.translate(_BITS_CLEAR))


class Bitmaps:
    """The block bitmaps that change on the way to ``geometry``."""

    def __init__(self, volume: Volume, geometry: Geometry, descriptors: Descriptors) -> None:
        self._volume = volume
        self._geometry = geometry
        self._descriptors = descriptors
        self._loaded: dict[int, bytearray] = {}

    def bits(self, group: int) -> bytearray:
        """Return a group's bitmap as it is with the changes so far; changing it changes the group."""
        found = self._loaded.get(group)
        if found is None:
            found = read_block_bitmap(self._volume, group, self._descriptors.get(group))
            self._loaded[group] = found
        return found

    def give(self, start: int, count: int) -> None:
        """Mark blocks as free."""
        for group, bit, bits in self._parts(start, count):
            bitmap = self.bits(group)
            mask = bytearray(len(bitmap))
            set_bits(mask, bit, bits)
            left = int.from_bytes(bitmap, "little") & ~int.from_bytes(mask, "little")
            bitmap[:] = left.to_bytes(len(bitmap), "little")

    def _parts(self, start: int, count: int) -> list[tuple[int, int, int]]:
        """Return (group, first bit, bits) of blocks, as far as they lie in groups that stay."""
        geo, found = self._geometry, []
        end = min(start + count, geo.blocks_count)
        while start < end:
            group = geo.group_of(start)
            low = geo.group_start(group)
            high = min(end, low + geo.blocks_per_group)
            found.append((group, start - low, high - start))
            start = high
        return found

    def finish(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (block, bytes, bytes) of each changed bitmap: without and with what the new superblock takes.

        That is all behind the new end, and what groups open with then. Descriptors say what the latter holds.
        """
        geo, volume = self._geometry, self._volume
        for group, bitmap in sorted(self._loaded.items()):
            before_end = bytes(bitmap)
            start = geo.group_start(group)
            for block, count in geo.overhead(group):
                set_bits(bitmap, block - start, count)
            pad(bitmap, geo.group_end(group) - start)
            descriptor = self._descriptors.get(group)
            volume.check_run(descriptor.block_bitmap, 1, f"block bitmap of group {group}")
            set_free_blocks(descriptor, free_in(bitmap))
            set_block_checksum(volume, descriptor, bytes(bitmap[: geo.blocks_per_group // 8]))
            descriptor.bg_flags &= ~int(GroupFlag.block_uninit)
            self._descriptors.put(group, descriptor)
            yield descriptor.block_bitmap, before_end, bytes(bitmap)


def set_free_blocks(descriptor: GroupDescriptor, count: int) -> None:
    """Set a group's free blocks."""
    descriptor.bg_free_blocks_count_lo = count & 0xFFFF
    descriptor.bg_free_blocks_count_hi = count >> 16


def set_block_checksum(volume: Volume, descriptor: GroupDescriptor, data: bytes) -> None:
    """Set the checksum of a block bitmap, where the file system keeps one."""
    if volume.has_checksums:
        descriptor.block_bitmap_checksum = volume.bitmap_checksum(data)
