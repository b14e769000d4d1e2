"""All group descriptors of a file system that is being resized, in memory, with their checksums.

Knows: how descriptors are stored and summed. Refuses to know: what they should say.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from blockwright.fs.ext4.geometry import Geometry
from blockwright.fs.ext4.layout import GroupDescriptor
from blockwright.fs.ext4.volume import Volume, parse_descriptor

_COUNTS: Final = Struct("<HH").unpack_from
_CHECKSUM: Final = 0x1E


class Descriptors:
    """The descriptors of ``geometry``'s groups; those that the volume has are read and verified, others are zeros.

    Where groups go, what their descriptors say stays in the last block, since until they are gone it counts.
    Raises Corrupt where a checksum is wrong.
    """

    def __init__(self, volume: Volume, geometry: Geometry) -> None:
        self._volume = volume
        self._geometry = geometry
        old, size = volume.geometry, geometry.desc_size
        kept = min(old.groups, geometry.groups)
        data = bytearray(geometry.descriptor_blocks * geometry.block_size)
        for index in range(-(-kept // old.descriptors_per_block)):
            start = index * geometry.block_size
            block = volume.blocks(old.descriptor_block(index), 1, f"descriptor block {index}")
            data[start : start + geometry.block_size] = block
        if geometry.groups > old.groups:
            data[kept * size :] = bytes(len(data) - kept * size)
        self._data = data
        for group in range(kept if volume.verify else 0):
            volume.verify_descriptor(group, bytes(data[group * size : (group + 1) * size]))

    def get(self, group: int) -> GroupDescriptor:
        """Return a copy of a group's descriptor."""
        size = self._geometry.desc_size
        return parse_descriptor(bytes(self._data[group * size : (group + 1) * size]))

    def put(self, group: int, descriptor: GroupDescriptor) -> None:
        """Store a group's descriptor with its checksum."""
        size = self._geometry.desc_size
        start = group * size
        packed = descriptor.pack()[:size]
        self._data[start : start + len(packed)] = packed
        checksum = self._volume.descriptor_checksum(group, bytes(self._data[start : start + size]))
        if checksum is not None:
            self._data[start + _CHECKSUM : start + _CHECKSUM + 2] = checksum.to_bytes(2, "little")

    def block(self, index: int) -> bytes:
        """Return descriptor block ``index``."""
        size = self._geometry.block_size
        return bytes(self._data[index * size : (index + 1) * size])

    def blocks(self, count: int) -> bytes:
        """Return the first ``count`` descriptor blocks."""
        return bytes(self._data[: count * self._geometry.block_size])

    def totals(self) -> tuple[int, int]:
        """Return the free blocks and free inodes of all groups."""
        size = self._geometry.desc_size
        wide = size >= GroupDescriptor.SIZE
        blocks = inodes = 0
        for start in range(0, self._geometry.groups * size, size):
            low_blocks, low_inodes = _COUNTS(self._data, start + 0xC)
            blocks += low_blocks
            inodes += low_inodes
            if wide:
                high_blocks, high_inodes = _COUNTS(self._data, start + 0x2C)
                blocks += high_blocks << 16
                inodes += high_inodes << 16
        return blocks, inodes
