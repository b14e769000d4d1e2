"""The bytes of a thin pool's metadata: its superblock, nodes of its trees, details of devices; and how much it needs.

Metadata is blocks of 4 KiB, numbered from 0 on, of which each has a checksum and its own number. All numbers are
little-endian. A tree's node has keys, ascending, and as many values: of a leaf what is looked for, of any other node
the blocks of nodes, in which no key is below the one it stands with.

Knows: bytes, checksums and limits. Refuses to know: where they come from. Source: Linux 6.1,
Documentation/admin-guide/device-mapper/thin-provisioning.rst, and what its dm-thin-pool and thin_dump make and read.
"""

from __future__ import annotations

import operator
import struct
from dataclasses import dataclass
from typing import Final

from blockwright.codec.checksum import crc32c_raw
from blockwright.codec.record import Buffer, Record, raw, u32, u64
from blockwright.errors import Corrupt, NotThisFormat, Unsupported, UsageError
from blockwright.units import SECTOR, GiB, KiB, MiB, align_up, ceil_div

BLOCK: Final = 4 * KiB
MAX_BLOCKS: Final = 255 * ((1 << 14) - 64)
"""Blocks of metadata that a kernel uses, however many there are."""
MAX_IDENTITY: Final = (1 << 24) - 1
MAX_DEPTH: Final = 16
"""Nodes from a root to a leaf. What a kernel makes of all identities there can be has 6 at most."""
MIN_DATA_BLOCK: Final = 64 * KiB
MAX_DATA_BLOCK: Final = GiB
MIN_METADATA: Final = 2 * MiB
_BYTES_PER_DATA_BLOCK: Final = 48

MAGIC: Final = 27022010
SUPERBLOCK_SALT: Final = 160774
NODE_SALT: Final = 121107
NEEDS_CHECK: Final = 1
_VERSIONS: Final = (1, 2)
_INTERNAL, _LEAF = 1, 2


class SpaceMapRoot(Record, size=32):
    """Which blocks are used: how many there are and how many of them are, and the trees that say which."""

    blocks: int = u64(0)
    used_blocks: int = u64(8)
    bitmap_root: int = u64(16)
    count_root: int = u64(24)


class Superblock(Record, size=BLOCK):
    """The first block, and the one a metadata snapshot begins with.

    ``held_root`` is the block of such a snapshot, 0 where there is none; in one the space maps are zeros. The roots
    are of trees: of the mappings, and of the details of devices. Block sizes count sectors. ``time`` goes up with
    each snapshot of a device.
    """

    checksum: int = u32(0)
    flags: int = u32(4)
    block: int = u64(8)
    uuid: bytes = raw(16, 16)
    magic: int = u64(32, MAGIC)
    version: int = u32(40, 2)
    time: int = u32(44)
    transaction: int = u64(48)
    held_root: int = u64(56)
    data_map: bytes = raw(64, 128)
    metadata_map: bytes = raw(192, 128)
    mapping_root: int = u64(320)
    details_root: int = u64(328)
    data_block_sectors: int = u32(336)
    metadata_block_sectors: int = u32(340, BLOCK // SECTOR)
    metadata_blocks: int = u64(344)
    """How many there were when it was made; ``metadata.blocks`` grows with the device."""
    compatible: int = u32(352)
    read_only_compatible: int = u32(356)
    incompatible: int = u32(360)

    @property
    def needs_check(self) -> bool:
        """Whether the kernel met an error, and lets nobody write before a check has cleared this."""
        return bool(self.flags & NEEDS_CHECK)

    @property
    def data_block(self) -> int:
        """The size of a block of data, in bytes."""
        return self.data_block_sectors * SECTOR

    @property
    def data(self) -> SpaceMapRoot:
        """How many blocks of data there are, and are used."""
        return SpaceMapRoot.parse(self.data_map)

    @property
    def metadata(self) -> SpaceMapRoot:
        """How many blocks of metadata there are, and are used."""
        return SpaceMapRoot.parse(self.metadata_map)


class NodeHeader(Record, size=32):
    """What stands before a node's keys, behind all ``max_entries`` of which are as many values."""

    checksum: int = u32(0)
    flags: int = u32(4)
    block: int = u64(8)
    entries: int = u32(16)
    max_entries: int = u32(20)
    value_size: int = u32(24)


@dataclass(frozen=True, slots=True)
class Node:
    """A node: ``values`` are blocks of nodes, or where it is a ``leaf``, what the tree is for, packed one by one."""

    leaf: bool
    keys: tuple[int, ...]
    values: bytes
    room: int = 0
    """How many entries it could have."""

    def children(self) -> tuple[int, ...]:
        """Return the blocks of the nodes below, one for each key."""
        return struct.unpack(f"<{len(self.keys)}Q", self.values)


@dataclass(frozen=True, slots=True)
class Details:
    """A thin device as its pool knows it, which does not know its size.

    ``transaction`` is the pool's when it was made; ``created`` and ``snapshotted`` are the pool's ``time`` when it
    was, and when it last had a snapshot taken, or was taken as one.
    """

    identity: int
    mapped_blocks: int
    transaction: int
    created: int
    snapshotted: int


DETAILS: Final = struct.Struct("<QQII")


def checksum(block: Buffer, salt: int) -> int:
    """Return the checksum of a block, which its first four bytes are to be."""
    return crc32c_raw(0xFFFFFFFF, bytes(block[4:])) ^ salt


def parse_superblock(data: Buffer, block: int = 0) -> Superblock:
    """Return the superblock that the bytes of that block are.

    Raises NotThisFormat where they are none, Corrupt, Unsupported.
    """
    if len(data) < BLOCK:
        raise NotThisFormat(f"thin pool: expected metadata of {BLOCK} bytes or more, found {len(data)}")
    found = Superblock.parse(data)
    offset = block * BLOCK
    if found.magic != MAGIC:
        raise NotThisFormat(f"thin pool: superblock: expected magic {MAGIC}, found {found.magic}", offset=offset)
    _check_block(data, found.checksum, found.block, block, SUPERBLOCK_SALT, "superblock")
    if found.version not in _VERSIONS:
        raise Unsupported(f"thin pool: expected version {_VERSIONS[0]} or {_VERSIONS[1]}, found {found.version}")
    if found.incompatible:
        raise Unsupported(f"thin pool: expected no incompatible features, found {found.incompatible:#x}")
    if found.metadata_block_sectors * SECTOR != BLOCK:
        size = found.metadata_block_sectors * SECTOR
        raise Unsupported(f"thin pool: expected metadata blocks of {BLOCK} bytes, found {size}", offset=offset + 340)
    if _wrong_data_block(found.data_block):
        raise Corrupt(f"thin pool: data blocks: {_EXPECTED_BLOCK}, found {found.data_block}", offset=offset + 336)
    if not 1 < found.metadata_blocks <= MAX_BLOCKS:
        raise Corrupt(
            f"thin pool: expected 2 to {MAX_BLOCKS} blocks of metadata, found {found.metadata_blocks}",
            offset=offset + 344,
        )
    # Which blocks a metadata snapshot can refer to is not in it.
    blocks = max(found.metadata_blocks, found.metadata.blocks) if block == 0 else MAX_BLOCKS
    for name, root, least in (
        ("held", found.held_root, 0),
        ("mapping", found.mapping_root, 1),
        ("details", found.details_root, 1),
    ):
        if not least <= root < blocks:
            raise Corrupt(
                f"thin pool: {name} root: expected a block from {least} to {blocks - 1}, found {root}",
                offset=offset,
            )
    return found


def parse_node(data: Buffer, block: int, value_size: int) -> Node:
    """Return the node that the bytes of that block are, of a tree whose values have ``value_size`` bytes.

    Its keys ascend. Raises Corrupt.
    """
    found = NodeHeader.parse(data)
    _check_block(data, found.checksum, found.block, block, NODE_SALT, "node")
    offset = block * BLOCK
    if found.flags not in (_INTERNAL, _LEAF):
        raise Corrupt(f"thin pool: node: expected one of flags 1 and 2, found {found.flags:#x}", offset=offset + 4)
    leaf = found.flags == _LEAF
    width = value_size if leaf else 8
    if found.value_size != width:
        raise Corrupt(
            f"thin pool: node: expected values of {width} bytes, found {found.value_size}", offset=offset + 24
        )
    room = (BLOCK - NodeHeader.SIZE) // (8 + width)
    if not found.entries <= found.max_entries <= room:
        raise Corrupt(
            f"thin pool: node: expected {room} entries or fewer, found {found.entries} of {found.max_entries}",
            offset=offset + 16,
        )
    keys = struct.unpack_from(f"<{found.entries}Q", data, NodeHeader.SIZE)
    if any(map(operator.ge, keys, keys[1:])):
        raise Corrupt("thin pool: node: expected keys that ascend", offset=offset + NodeHeader.SIZE)
    start = NodeHeader.SIZE + 8 * found.max_entries
    return Node(leaf, keys, bytes(data[start : start + width * found.entries]), found.max_entries)


def _check_block(data: Buffer, told: int, number: int, block: int, salt: int, what: str) -> None:
    found = checksum(data[:BLOCK], salt)
    if found != told:
        raise Corrupt(f"thin pool: {what}: expected checksum {told:#010x}, found {found:#010x}", offset=block * BLOCK)
    if number != block:
        raise Corrupt(f"thin pool: {what}: expected that of block {block}, found {number}", offset=block * BLOCK + 8)


# -- sizes -----------------------------------------------------------------------------------------------------------

_EXPECTED_BLOCK: Final = "expected a multiple of 64 KiB up to 1 GiB"


def _wrong_data_block(size: int) -> bool:
    return not MIN_DATA_BLOCK <= size <= MAX_DATA_BLOCK or bool(size % MIN_DATA_BLOCK)


def check_block(size: int) -> int:
    """Return a size in bytes that a pool's blocks can have. Raises UsageError."""
    if _wrong_data_block(size):
        raise UsageError(f"thin pool: block size: {_EXPECTED_BLOCK}, found {size}")
    return size


def metadata_size(data: int, block: int) -> int:
    """Return the bytes of metadata for ``data`` bytes in blocks of ``block`` bytes, by the kernel's formula.

    That is 48 bytes a block, 2 MiB at least, and no more than a kernel uses, which is 255 * 16320 blocks of 4 KiB;
    many snapshots that differ need more. Raises UsageError for sizes that no pool can have.
    """
    check_block(block)
    if data < block:
        raise UsageError(f"thin pool: expected a block of {block} bytes or more for data, found {data}")
    wanted = align_up(_BYTES_PER_DATA_BLOCK * ceil_div(data, block), BLOCK)
    return min(max(wanted, MIN_METADATA), MAX_BLOCKS * BLOCK)
