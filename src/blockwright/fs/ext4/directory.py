"""Directories: their entries block by block, from blocks or from within the inode.

Knows: the entry format, its bounds, and how directory blocks are summed.
Refuses to know: the order of hashes, and what the entries' inodes hold.

Source: Linux 6.1, Documentation/filesystems/ext4 (directory, inlinedata, checksums).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc32c_raw
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.layout import (
    DIR_ENTRY,
    DIR_TAIL_SIZE,
    DIR_TAIL_TYPE,
    DX_COUNT_LIMIT,
    DX_ROOT_INFO_OFFSET,
    InodeFlag,
)
from blockwright.fs.ext4.mapping import block_runs
from blockwright.fs.ext4.volume import Volume
from blockwright.units import KiB

MAX_BLOCKS_AT_ONCE: Final = 64
"""Directory blocks that are read together."""
MAX_DIRECTORY_SIZE: Final = 1 << 40
"""Bytes of a directory; the kernel's own limits are below that."""
_ENTRY: Final = DIR_ENTRY.unpack_from
_SPEC: Final = "ext4 directory"


class Name(NamedTuple):
    """An entry in use: the name, its inode, and the file type byte (0 where the file system stores none)."""

    name: bytes
    inode: int
    file_type: int


class Budget:
    """Blocks that directories may have in all: no more than the file system, for they share none."""

    __slots__ = ("_left", "_volume")

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._left = volume.geometry.blocks_count

    def spend(self, inode: Inode, blocks: int) -> None:
        """Take blocks for a directory. Raises Corrupt where there are more than the file system has."""
        self._left -= blocks
        if self._left < 0:
            most = self._volume.geometry.blocks_count
            raise self._volume.corrupt(f"directory {inode.number}: expected at most {most} blocks, found more")


def directory_blocks(volume: Volume, inode: Inode, budget: Budget | None = None) -> Iterator[tuple[int, int, bytes]]:
    """Yield (logical block, byte of the device, bytes) of each block of a directory; holes are left out.

    Checksums are verified. Raises Corrupt, also for a size that is no whole number of blocks, and where the blocks
    are more than the ``budget``, which by default is for this directory alone.
    """
    budget = Budget(volume) if budget is None else budget
    block_size = volume.block_size
    if inode.size % block_size or inode.size > MAX_DIRECTORY_SIZE:
        raise volume.corrupt(
            f"directory {inode.number}: size: expected a multiple of {block_size}, found {inode.size}",
            inode.position + 4,
        )
    seed = volume.inode_seed(inode) if volume.has_checksums and volume.verify else None
    last = inode.size // block_size
    for run in block_runs(volume, inode):
        done, count = 0, min(run.blocks, last - run.logical)
        while run.written and done < count:
            part = min(count - done, MAX_BLOCKS_AT_ONCE)
            budget.spend(inode, part)
            data = volume.blocks(run.physical + done, part, f"directory {inode.number}")
            for index in range(part):
                block = data[index * block_size : (index + 1) * block_size]
                position = (run.physical + done + index) * block_size
                if seed is not None:
                    verify_block(volume, inode, block, position, seed)
                yield run.logical + done + index, position, block
            done += part


def entries_in(volume: Volume, inode: Inode, block: bytes, position: int, start: int = 0) -> list[Name]:
    """Return the entries in use of a block, or of an inline directory's part, from byte ``start`` on.

    Raises Corrupt where an entry runs out of the block, into the next one, or names an inode that cannot be.
    """
    found: list[Name] = []
    end, most, large = len(block), volume.geometry.inodes_count, volume.block_size >= 64 * KiB
    at = start
    unpack, append = _ENTRY, found.append
    while at + 8 <= end:
        number, length, name_length, file_type = unpack(block, at)
        if large:
            length = long_length(length, volume.block_size)
        stop = at + 8 + name_length
        if length < 8 or length & 3 or stop > at + length or at + length > end:
            raise volume.corrupt(
                f"directory {inode.number}: entry: expected {8 + name_length} to {end - at} bytes, found {length}",
                position + at,
                _SPEC,
            )
        if number:
            if number > most:
                raise volume.corrupt(
                    f"directory {inode.number}: entry: expected an inode up to {most}, found {number}",
                    position + at,
                    _SPEC,
                )
            if name_length:
                append(Name(block[at + 8 : stop], number, file_type))
        at += length
    return found


def long_length(length: int, block_size: int) -> int:
    """Return the record length that a field stands for in blocks of 64 KiB, whose own length does not fit it."""
    if length in (0, 0xFFFF):
        return block_size
    return length & 0xFFFC | (length & 3) << 16


def index_offset(block: bytes, block_size: int) -> int | None:
    """Return where a block's count and limit lie when it is a node of a hash tree (32 or 8), else None.

    A node looks like one unused entry over the whole block; the root holds ``.`` and ``..`` and then its own
    record of eight bytes.
    """
    number, length, name_length, _type = _ENTRY(block, 0)
    full = 0 if block_size >= 64 * KiB else block_size
    if number == 0 and name_length == 0 and length in {full, 0xFFFF if full == 0 else full}:
        return 8
    if length == 12 and len(block) >= 40:
        _number, rest, _name_length, _type = _ENTRY(block, 12)
        covers = long_length(rest, block_size) if full == 0 else rest
        reserved = block[DX_ROOT_INFO_OFFSET : DX_ROOT_INFO_OFFSET + 4]
        if covers == block_size - 12 and reserved == b"\0\0\0\0" and block[DX_ROOT_INFO_OFFSET + 5] == 8:
            return 32
    return None


def has_tail(block: bytes) -> bool:
    """Whether the block closes with a checksum entry."""
    tail = block[-DIR_TAIL_SIZE:-4]
    return tail == b"\0\0\0\0\x0c\0\0" + bytes((DIR_TAIL_TYPE,))


def block_checksum(block: bytes, seed: int) -> int:
    """Return the checksum of a block of entries; ``seed`` is that of its inode."""
    return crc32c_raw(seed, block[:-DIR_TAIL_SIZE])


def index_checksum(block: bytes, seed: int, offset: int) -> int | None:
    """Return the checksum of a hash tree node whose count and limit lie at ``offset``, None without room for it."""
    limit, count, _block = DX_COUNT_LIMIT.unpack_from(block, offset)
    tail = offset + 8 * limit
    if count > limit or tail + 8 > len(block):
        return None
    return crc32c_raw(seed, block[: offset + 8 * count] + block[tail : tail + 4] + b"\0\0\0\0")


def stored_index_checksum(block: bytes, offset: int) -> int:
    """Return the checksum that a hash tree node stores behind its last possible entry."""
    limit = DX_COUNT_LIMIT.unpack_from(block, offset)[0]
    tail = offset + 8 * limit + 4
    return int.from_bytes(block[tail : tail + 4], "little")


def verify_block(volume: Volume, inode: Inode, block: bytes, position: int, seed: int) -> None:
    """Raise Corrupt unless the checksum of a directory's block holds."""
    expected: int | None = None
    found = -1
    offset = index_offset(block, volume.block_size)
    # A node of a hash tree first: behind its last pair it may still hold the tail of the leaf it once was.
    if offset is not None:
        expected = index_checksum(block, seed, offset)
        found = -1 if expected is None else stored_index_checksum(block, offset)
    elif has_tail(block):
        expected, found = block_checksum(block, seed), int.from_bytes(block[-4:], "little")
    if expected is None:
        raise volume.corrupt(f"directory {inode.number}: block: expected a checksum, found no place for it", position)
    if expected != found:
        raise volume.corrupt(
            f"directory {inode.number}: block: checksum: expected {expected:#010x}, found {found:#010x}", position
        )


def inline_entries(volume: Volume, inode: Inode, rest: bytes) -> list[Name]:
    """Return the entries of a directory that lies in its inode; ``rest`` is the value of system.data.

    The first four bytes of i_block are the parent's number; ``.`` and ``..`` are not stored.
    """
    assert inode.flags & InodeFlag.inline_data, "inline directory: the inode has none"
    found = entries_in(volume, inode, inode.block, inode.position + 0x28, 4)
    if rest:
        found += entries_in(volume, inode, rest, inode.position)
    return found
