"""The blocks, group descriptors and inodes of an ext2, ext3 or ext4 file system, read on demand.

Knows: where they lie, how they are summed, and a bounded cache of them.
Refuses to know: what inodes hold, and how an unclean journal changes the blocks (the device already shows that).

Source: Linux 6.1, Documentation/filesystems/ext4 (super, group_descr, inodes, checksums).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

from blockwright.codec.checksum import crc16, crc32c_raw
from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, NotThisFormat, Unsupported
from blockwright.fs.ext4.geometry import MAX_LOG_BLOCK_SIZE, Geometry, geometry
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.layout import (
    MAGIC,
    SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE,
    GroupDescriptor,
    Incompat,
    RoCompat,
    Superblock,
    group_checksum,
    inode_seed,
    superblock_checksum,
)
from blockwright.units import KiB, MiB, align_down, align_up

MAX_CACHED_BLOCKS: Final = 4 * MiB
"""Bytes of single metadata blocks that are kept."""
MAX_CACHED_TABLES: Final = 16 * MiB
"""Bytes of inode tables that are kept."""
TABLE_PART: Final = 64 * KiB
"""Bytes of an inode table that are read at once."""
CHECKSUM_CRC32C: Final = 1
"""s_checksum_type: the only one there is."""
MAX_CACHED_DESCRIPTORS: Final = 65536


class Volume:
    """A file system's superblock, ``geometry`` and metadata, read through ``device``.

    With ``verify``, checksums are compared as metadata is read, and a mismatch raises Corrupt.
    """

    def __init__(
        self,
        device: BlockDevice,
        superblock: Superblock,
        *,
        source: str | None,
        verify: bool,
        super_block: int | None,
    ) -> None:
        self.device = device
        self.source = source
        self.verify = verify
        self.superblock = superblock
        self.super_block = super_block
        at = SUPERBLOCK_OFFSET if super_block is None else super_block * superblock.block_size
        self.geometry: Geometry = geometry(superblock, device.size, source=source, offset=at)
        self.block_size = self.geometry.block_size
        self.has_checksums = bool(superblock.s_feature_ro_compat & RoCompat.metadata_csum)
        self.seed = superblock.checksum_seed
        self.shared_attributes: dict[int, Sequence[Any]] = {}
        """Attributes by their block, kept by whoever reads them."""
        self._lock = threading.Lock()
        self._blocks: dict[int, bytes] = {}
        self._max_blocks = MAX_CACHED_BLOCKS // self.block_size
        self._tables: dict[int, bytes] = {}
        self._descriptors: dict[int, GroupDescriptor] = {}
        self._minimum_block = device.traits.minimum_block
        self._wide = bool(superblock.s_feature_incompat & Incompat.bit64)

    def corrupt(self, message: str, offset: int | None = None, spec: str | None = None) -> Corrupt:
        """Return the error to raise where bytes at ``offset`` break the format's rules."""
        return Corrupt(message, source=self.source, offset=offset, spec=spec)

    def unsupported(self, message: str, offset: int | None = None) -> Unsupported:
        """Return the error to raise for what is sound and refused by name."""
        return Unsupported(message, source=self.source, offset=offset)

    # -- blocks ----------------------------------------------------------------------------------------------

    def read_bytes(self, offset: int, length: int) -> bytes:
        """Return bytes of the device, whatever its minimum block."""
        grain = self._minimum_block
        if grain == 1 or not (offset | length) % grain:
            return self.device.read(offset, length)
        start = align_down(offset, grain)
        end = min(align_up(offset + length, grain), self.device.size)
        return self.device.read(start, end - start)[offset - start : offset - start + length]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from the device, whatever its minimum block."""
        if self._minimum_block == 1 or not (offset | len(buffer)) % self._minimum_block:
            self.device.read_into(offset, buffer)
        else:
            buffer[:] = self.read_bytes(offset, len(buffer))

    def block(self, number: int, what: str) -> bytes:
        """Return a metadata block, from the cache where it is there. Raises Corrupt outside the file system."""
        cache = self._blocks
        with self._lock:
            data = cache.pop(number, None)
            if data is not None:
                cache[number] = data
                return data
        data = self.blocks(number, 1, what)
        with self._lock:
            while len(cache) >= self._max_blocks:
                del cache[next(iter(cache))]
            cache[number] = data
        return data

    def blocks(self, number: int, count: int, what: str) -> bytes:
        """Return ``count`` blocks that lie side by side, past the cache."""
        self.check_run(number, count, what)
        return self.read_bytes(number * self.block_size, count * self.block_size)

    def check_run(self, number: int, count: int, what: str) -> None:
        """Raise Corrupt unless the blocks lie in the file system and behind its superblock's."""
        geo = self.geometry
        if not geo.first_data_block <= number or not number + count <= geo.blocks_count or number == 0:
            raise self.corrupt(
                f"{what}: expected blocks from {geo.first_data_block} to {geo.blocks_count - 1}, "
                f"found {count} from {number} on"
            )

    # -- groups ----------------------------------------------------------------------------------------------

    def raw_descriptor(self, group: int) -> bytes:
        """Return the bytes of a group descriptor."""
        geo = self.geometry
        index, slot = divmod(group, geo.descriptors_per_block)
        data = self.block(geo.descriptor_block(index, self.super_block), f"descriptors of group {group}")
        return data[slot * geo.desc_size : (slot + 1) * geo.desc_size]

    def descriptor_position(self, group: int) -> int:
        """Return the byte of the device where a group's descriptor lies."""
        geo = self.geometry
        index, slot = divmod(group, geo.descriptors_per_block)
        return geo.descriptor_block(index, self.super_block) * geo.block_size + slot * geo.desc_size

    def descriptor(self, group: int) -> GroupDescriptor:
        """Return a group's descriptor, verified. Raises Corrupt where its checksum is wrong."""
        found = self._descriptors.get(group)
        if found is None:
            raw = self.raw_descriptor(group)
            if self.verify:
                self.verify_descriptor(group, raw)
            found = parse_descriptor(raw)
            if len(self._descriptors) >= MAX_CACHED_DESCRIPTORS:
                self._descriptors.clear()
            self._descriptors[group] = found
        return found

    def verify_descriptor(self, group: int, raw: bytes) -> None:
        """Raise Corrupt unless a descriptor's bytes have the checksum they must have."""
        expected = self.descriptor_checksum(group, raw)
        found = int.from_bytes(raw[0x1E:0x20], "little")
        if expected is not None and expected != found:
            message = f"checksum: expected {expected:#06x}, found {found:#06x}"
            raise self.corrupt(f"descriptor of group {group}: {message}", self.descriptor_position(group))

    def descriptor_checksum(self, group: int, raw: bytes) -> int | None:
        """Return the checksum a descriptor must have, or None where the file system keeps none."""
        if self.has_checksums:
            return group_checksum(self.seed, group, raw)
        if self.superblock.s_feature_ro_compat & RoCompat.uninit_bg:
            start = crc16(crc16(0xFFFF, self.superblock.s_uuid), group.to_bytes(4, "little"))
            return crc16(start, raw[:0x1E] + raw[0x20:])
        return None

    # -- inodes ----------------------------------------------------------------------------------------------

    def inode_position(self, number: int) -> int:
        """Return the byte of the device where an inode lies. Raises Corrupt for a number that cannot be."""
        geo = self.geometry
        if not 1 <= number <= geo.inodes_count:
            raise self.corrupt(f"inode {number}: expected a number from 1 to {geo.inodes_count}")
        group, index = geo.inode_place(number)
        table = self.descriptor(group).inode_table
        if table < 1 or table + geo.inode_table_blocks > geo.blocks_count:
            raise self.corrupt(
                f"group {group}: inode table: expected {geo.inode_table_blocks} blocks below {geo.blocks_count}, "
                f"found them from {table} on",
                self.descriptor_position(group) + 8,
            )
        return table * geo.block_size + index * geo.inode_size

    def inode(self, number: int) -> Inode:
        """Return an inode, verified, in use or not. Raises Corrupt where its number or checksum is wrong."""
        position = self.inode_position(number)
        size = self.geometry.inode_size
        start = align_down(position, TABLE_PART)
        part = self._table(start)
        inode = self.parse_inode(number, part[position - start : position - start + size], position)
        if self.has_checksums and self.verify and not inode.checksum_holds(self.seed):
            expected = inode.checksum(self.seed)
            raise self.corrupt(
                f"inode {number}: checksum: expected {expected:#x}, found {inode.stored_checksum:#x}", position
            )
        return inode

    def _table(self, start: int) -> bytes:
        """Return the part of an inode table that begins at byte ``start`` of the device."""
        tables = self._tables
        with self._lock:
            part = tables.pop(start, None)
            if part is not None:
                tables[start] = part
                return part
        part = self.read_bytes(start, min(TABLE_PART, self.device.size - start))
        with self._lock:
            while len(tables) >= MAX_CACHED_TABLES // TABLE_PART:
                del tables[next(iter(tables))]
            tables[start] = part
        return part

    def parse_inode(self, number: int, raw: bytes, position: int) -> Inode:
        """Return the inode of bytes that were read at ``position``."""
        inode = Inode(number, raw, position)
        if not self._wide:
            inode.file_acl &= 0xFFFFFFFF
        return inode

    def inode_seed(self, inode: Inode) -> int:
        """Return what the checksums of an inode's directory and extent blocks start from."""
        return inode_seed(self.seed, inode.number, inode.generation)

    def bitmap_checksum(self, data: bytes) -> int:
        """Return the checksum of a bitmap's bytes that count, as wide as descriptors have it."""
        checksum = crc32c_raw(self.seed, data)
        return checksum if self.geometry.desc_size >= GroupDescriptor.SIZE else checksum & 0xFFFF


def parse_descriptor(raw: bytes) -> GroupDescriptor:
    """Return a descriptor of 32 bytes or more; what a short one lacks is zero."""
    return GroupDescriptor.parse(raw if len(raw) >= GroupDescriptor.SIZE else raw.ljust(GroupDescriptor.SIZE, b"\0"))


def read_superblock(
    device: BlockDevice, *, source: str | None = None, verify: bool = True, block: int | None = None
) -> Superblock:
    """Return the primary superblock, or the backup in ``block``.

    Raises NotThisFormat where its magic is missing, Corrupt where its checksum is wrong.
    """
    offsets = [SUPERBLOCK_OFFSET]
    if block is not None:
        offsets = [block * (KiB << log) for log in range(MAX_LOG_BLOCK_SIZE + 1)]
    for offset in offsets:
        if offset + SUPERBLOCK_SIZE > device.size or offset < 0:
            continue
        raw = _read(device, offset)
        superblock = Superblock.parse(raw)
        if superblock.s_magic != MAGIC:
            continue
        if block is not None and offset != block * (1024 << (superblock.s_log_block_size & 0x1F)):
            continue
        if verify:
            _verify_superblock(superblock, raw, source, offset)
        return superblock
    place = "at byte 1024" if block is None else f"in block {block}"
    raise NotThisFormat(f"superblock: expected the magic {MAGIC:#x} {place}, found none", source=source)


def _read(device: BlockDevice, offset: int) -> bytes:
    grain = device.traits.minimum_block
    start = align_down(offset, grain)
    end = min(align_up(offset + SUPERBLOCK_SIZE, grain), device.size)
    return device.read(start, end - start)[offset - start : offset - start + SUPERBLOCK_SIZE]


def _verify_superblock(superblock: Superblock, raw: bytes, source: str | None, offset: int) -> None:
    if not superblock.s_feature_ro_compat & RoCompat.metadata_csum:
        return
    if superblock.s_checksum_type != CHECKSUM_CRC32C:
        raise Unsupported(
            f"superblock: checksum type: expected 1 (crc32c), found {superblock.s_checksum_type}",
            source=source,
            offset=offset + 0x175,
        )
    expected = superblock_checksum(raw)
    if superblock.s_checksum != expected:
        raise Corrupt(
            f"superblock: checksum: expected {expected:#010x}, found {superblock.s_checksum:#010x}",
            source=source,
            offset=offset + 0x3FC,
        )
