"""Directories as they are written: one block in plain order, more of them as a hash tree.

An image is kept without the run of zeros that ends most blocks: a head, and the 12 bytes that close the block.

Knows: packed entries in, blocks out. Refuses to know: nodes, and where the blocks go.

Source: Linux 6.1, Documentation/filesystems/ext4 (directory, checksums).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc32c_raw
from blockwright.errors import UsageError
from blockwright.fs.ext4.dirhash import effective_version, hash_names
from blockwright.fs.ext4.layout import (
    DIR_ENTRY,
    DIR_TAIL,
    DIR_TAIL_SIZE,
    DIR_TAIL_TYPE,
    DX_COUNT_LIMIT,
    DX_ENTRY,
    DX_ROOT_INFO,
    DX_TAIL,
    FileType,
    HashVersion,
)
from blockwright.units import ceil_div

PADS: Final = (b"", bytes(3), bytes(2), bytes(1))
"""What brings a name of length n to a multiple of 4, by n & 3."""

DOTS_SIZE: Final = 24
_LEVELS: Final = 2
"""Of index blocks, without large_dir."""
_EMPTY_SHARE: Final = 4
"""A block at least three quarters full is kept whole."""
_MAX_LINEAR: Final = 0x7FFFFFFF
LOST_FOUND_SIZE: Final = 16384
LOST_FOUND_BLOCKS: Final = 12
"""Blocks that lost+found has at most, where they are too small to make 16 KiB."""


class DirectoryImage(NamedTuple):
    """A directory's content: ``blocks`` of them, read as ``head``, zeros, and ``tail`` at the very end.

    ``levels`` of index blocks lead to its leaves, 0 where it has no index.
    """

    blocks: int
    levels: int
    head: bytes
    tail: bytes


class DirectoryFormat(NamedTuple):
    """What all directories of a file system share: block size in bytes, and the 16 bytes that seed the hash.

    ``summed``: blocks end with a checksum. ``levels``: how many of index blocks there may be, 0 for no index.
    ``version`` is the HashVersion that an index has, and ``unsigned`` how its hash takes bytes.
    """

    block_size: int
    hash_seed: bytes
    summed: bool = True
    levels: int = 2
    version: int = HashVersion.half_md4
    unsigned: bool = False

    @property
    def room(self) -> int:
        """Bytes for entries in a block, beside the one that holds the checksum."""
        return self.block_size - DIR_TAIL_SIZE if self.summed else self.block_size

    def tail(self, block: bytes, seed: int) -> bytes:
        """Return what closes a directory block whose other bytes are ``block``; ``seed`` is the inode's."""
        return DIR_TAIL.pack(0, DIR_TAIL_SIZE, 0, DIR_TAIL_TYPE, crc32c_raw(seed, block)) if self.summed else b""


def dots(own: int, parent: int, size: int) -> bytes:
    """Return the entries ``.`` and ``..``, the latter reaching to byte ``size``."""
    directory = FileType.directory
    return (
        DIR_ENTRY.pack(own, 12, 1, directory)
        + b".\0\0\0"
        + DIR_ENTRY.pack(parent, size - 12, 2, directory)
        + b"..\0\0"
    )


def pack_entry(inode: int, name: bytes, file_type: int) -> bytes:
    """Return an entry that is as long as it needs to be."""
    length = len(name)
    return DIR_ENTRY.pack(inode, length + 11 & ~3, length, file_type) + name + PADS[length & 3]


def stretch(entry: bytes, size: int) -> bytes:
    """Return an entry whose rec_len is ``size``."""
    return entry[:4] + size.to_bytes(2, "little") + entry[6:]


def linear_image(
    fmt: DirectoryFormat, own: int, parent: int, entries: bytes, last: bytes, seed: int
) -> DirectoryImage:
    """Return a directory of one block: all ``entries`` but the last, and the ``last``."""
    room = fmt.room
    if last:
        head = dots(own, parent, DOTS_SIZE) + entries
        head += stretch(last, room - len(head))
    else:
        head = dots(own, parent, room)
    end = fmt.tail(head + bytes(room - len(head)), seed)
    if len(head) > fmt.block_size - fmt.block_size // _EMPTY_SHARE:
        return DirectoryImage(1, 0, head.ljust(room, b"\0") + end, b"")
    return DirectoryImage(1, 0, head, end)


def linear_blocks_image(
    fmt: DirectoryFormat, own: int, parent: int, records: Sequence[bytes], seed: int
) -> DirectoryImage:
    """Return a directory of several blocks in plain order, as they are without dir_index. Raises UsageError."""
    blocks = _fill(fmt, records, dots(own, parent, DOTS_SIZE))
    if len(blocks) * fmt.block_size > _MAX_LINEAR:
        raise UsageError(f"directory: expected at most {_MAX_LINEAR} bytes, found {len(blocks) * fmt.block_size}")
    return DirectoryImage(len(blocks), 0, b"".join(block + fmt.tail(block, seed) for block in blocks), b"")


def lost_found_image(fmt: DirectoryFormat, own: int, parent: int, records: list[bytes], seed: int) -> DirectoryImage:
    """Return lost+found: 16 KiB in plain order, with room that e2fsck need not allocate."""
    count = min(LOST_FOUND_SIZE // fmt.block_size, LOST_FOUND_BLOCKS)
    blocks = _fill(fmt, records, dots(own, parent, DOTS_SIZE))
    empty = DIR_ENTRY.pack(0, fmt.room, 0, 0)
    blocks += [empty.ljust(fmt.room, b"\0")] * (count - len(blocks))
    return DirectoryImage(len(blocks), 0, b"".join(block + fmt.tail(block, seed) for block in blocks), b"")


def _fill(fmt: DirectoryFormat, records: Sequence[bytes], start: bytes = b"") -> list[bytes]:
    """Return blocks without their tails, each filled in order until the next record does not fit."""
    room, blocks = fmt.room, []
    parts, used = ([start[:12], start[12:]] if start else []), len(start)
    for record in records:
        if used + len(record) > room:
            blocks.append(_close(parts, used, room))
            parts, used = [], 0
        parts.append(record)
        used += len(record)
    blocks.append(_close(parts, used, room))
    return blocks


def _close(parts: list[bytes], used: int, room: int) -> bytes:
    parts[-1] = stretch(parts[-1], room - used + len(parts[-1]))
    return b"".join(parts).ljust(room, b"\0")


# -- hash trees ------------------------------------------------------------------------------------------------


def indexed_image(
    fmt: DirectoryFormat, own: int, parent: int, names: Sequence[bytes], records: Sequence[bytes], seed: int
) -> DirectoryImage:
    """Return a directory of several blocks as a hash tree: root, index nodes where there are any, leaves.

    ``records`` are the packed entries of ``names``. Leaves are packed full, in the order of hash and minor hash.
    Raises UsageError when the levels of index that there may be do not suffice.
    """
    majors, minors = hash_names(names, effective_version(fmt.version, unsigned=fmt.unsigned), fmt.hash_seed)
    keys = [major << 32 | minor for major, minor in zip(majors, minors, strict=True)]
    order = sorted(range(len(names)), key=keys.__getitem__)
    leaves, starts = _leaves(fmt, records, order, majors)
    root_limit, node_limit = _limits(fmt)
    widths = [len(leaves)]
    while widths[0] > root_limit:
        widths.insert(0, ceil_div(widths[0], node_limit))
    if len(widths) > fmt.levels:
        most = root_limit * node_limit ** (fmt.levels - 1)
        hint = "" if fmt.levels > _LEVELS else " without large_dir"
        raise UsageError(f"directory: expected at most {most} blocks of names{hint}, found {len(leaves)}")
    base = sum(widths[:-1])  # the root is block 0, so this is one less than where the leaves begin
    entries = [(key, 1 + base + i) for i, key in enumerate(starts)]
    index: list[bytes] = []
    for width in reversed(widths[:-1]):
        parts = [entries[i : i + node_limit] for i in range(0, len(entries), node_limit)]
        base -= width
        index[:0] = [_index_node(fmt, part, seed) for part in parts]
        entries = [(part[0][0], 1 + base + i) for i, part in enumerate(parts)]
    blocks = [_index_root(fmt, own, parent, entries, len(widths) - 1, seed), *index]
    blocks += [leaf + fmt.tail(leaf, seed) for leaf in leaves]
    return DirectoryImage(len(blocks), len(widths), b"".join(blocks), b"")


def _limits(fmt: DirectoryFormat) -> tuple[int, int]:
    """Return how many entries a root and another index block have room for."""
    end = DX_TAIL.size if fmt.summed else 0
    return (fmt.block_size - 32 - end) // DX_ENTRY.size, (fmt.block_size - 8 - end) // DX_ENTRY.size


def _leaves(
    fmt: DirectoryFormat, records: Sequence[bytes], order: Sequence[int], majors: Sequence[int]
) -> tuple[list[bytes], list[int]]:
    """Return the leaves without tails, and for each the hash it starts at.

    Bit 0 of that hash says that names of the same hash lie in the leaf before.
    """
    room, leaves, starts = fmt.room, [], [0]
    parts: list[bytes] = []
    used = before = 0
    for index in order:
        record, major = records[index], majors[index]
        used += len(record)
        if used > room:
            leaves.append(_close(parts, used - len(record), room))
            starts.append(major | (major == before))
            parts, used = [], len(record)
        parts.append(record)
        before = major
    leaves.append(_close(parts, used, room))
    return leaves, starts


def _index_root(
    fmt: DirectoryFormat, own: int, parent: int, entries: Sequence[tuple[int, int]], levels: int, seed: int
) -> bytes:
    info = DX_ROOT_INFO.pack(0, fmt.version, DX_ROOT_INFO.size, levels, 0)
    return _index_block(fmt, dots(own, parent, fmt.block_size) + info, entries, seed)


def _index_node(fmt: DirectoryFormat, entries: Sequence[tuple[int, int]], seed: int) -> bytes:
    return _index_block(fmt, DIR_ENTRY.pack(0, fmt.block_size, 0, 0), entries, seed)


def _index_block(fmt: DirectoryFormat, start: bytes, entries: Sequence[tuple[int, int]], seed: int) -> bytes:
    """Return an index block; its first entry has no hash, but the block's limit and count in that place."""
    end = DX_TAIL.size if fmt.summed else 0
    limit = (fmt.block_size - len(start) - end) // DX_ENTRY.size
    first = DX_COUNT_LIMIT.pack(limit, len(entries), entries[0][1])
    block = start + first + b"".join(DX_ENTRY.pack(*entry) for entry in entries[1:])
    if not fmt.summed:
        return block.ljust(fmt.block_size, b"\0")
    checksum = crc32c_raw(seed, block + bytes(DX_TAIL.size))
    return block.ljust(fmt.block_size - DX_TAIL.size, b"\0") + DX_TAIL.pack(0, checksum)
