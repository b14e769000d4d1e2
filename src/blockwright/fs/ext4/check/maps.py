"""An inode's block map judged entry by entry: extents and indirect blocks, and the clusters they claim.

Knows: bounds and order of both maps, and what counts as a cluster of the inode.
Refuses to know: the inode's size and other fields, and what the blocks hold.

Source: Linux 6.1, Documentation/filesystems/ext4 (ifork, bigalloc, checksums).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from blockwright.codec.checksum import crc32c_raw
from blockwright.fs.ext4.check.state import State
from blockwright.fs.ext4.inode import S_IFDIR, S_IFREG, Inode
from blockwright.fs.ext4.layout import (
    EXTENT_HEADER,
    EXTENT_INDEX,
    EXTENT_LEAF,
    EXTENT_MAGIC,
    MAX_EXTENT_BLOCKS,
    Incompat,
    InodeFlag,
    ReservedInode,
)
from blockwright.fs.ext4.mapping import Run

_POINTERS: Final = Struct("<15I").unpack
_HEADER: Final = EXTENT_HEADER.unpack_from
_DIRECT: Final = 12
_DOUBLE: Final = 2
_SPARE_ENTRIES: Final = 2
"""Entries that a node may have less than fit it."""
_MAX_DIRECTORY_LOG: Final = 21
"""Log of a directory's limit of 2 GiB in KiB, without large_dir."""


class MapWalk:
    """Walks one inode's map: reports, claims, and counts.

    ``clusters`` claimed, ``last_block`` and ``last_written`` logical blocks or -1, ``runs`` of a directory.
    """

    def __init__(self, state: State, inode: Inode, seen: set[int]) -> None:
        self.state = state
        self.inode = inode
        self.seen = seen
        self.is_directory = inode.kind == S_IFDIR
        self.clusters = 0
        self.last_block = -1
        self.last_written = -1
        self.runs: list[Run] = []
        geo = state.volume.geometry
        self.first = geo.first_data_block
        self.end = geo.blocks_count
        self.ratio = geo.cluster_blocks
        self._previous = 0
        self._next_logical = 0
        self._seed: int | None = None
        self._unpack = Struct(f"<{state.volume.block_size // 4}I").unpack

    def report(self, rule: str, message: str, offset: int | None = None) -> None:
        """Report about this inode."""
        self.state.report("map." + rule, f"inode {self.inode.number}: {message}", offset)

    def walk(self) -> None:
        """Walk the whole map, whichever form it has."""
        if self.inode.flags & InodeFlag.extents and self.state.incompat(Incompat.extent):
            self._extents()
        else:
            self._indirect_map()
            self.last_written = self.last_block

    def _inside(self, block: int) -> bool:
        return max(1, self.first) <= block < self.end

    def _claim(self, block: int, count: int = 1) -> None:
        """Claim the clusters of blocks that lie side by side."""
        start = (block - self.first) // self.ratio
        stop = (block + count - 1 - self.first) // self.ratio + 1
        self.state.claims.add(start, stop - start, self.inode.number)
        self.clusters += stop - start

    # -- extents ---------------------------------------------------------------------------------------------

    def _extents(self) -> None:
        inode = self.inode
        position = inode.position + 0x28
        if not self._header_holds(inode.block, position):
            return
        depth = _HEADER(inode.block)[3]
        most = self._deepest()
        if depth > most:
            self.report("extent-depth", f"extent tree: expected at most {most} levels, found {depth}", position + 6)
            return
        blocks = -(-inode.size // self.state.volume.block_size)
        self._node(inode.block, depth, position, 0, 0, blocks - 1, blocks)

    def _deepest(self) -> int:
        """Return the levels that address 2**32 blocks even when every extent is one block."""
        per_node = (self.state.volume.block_size - 12) // 12
        return 1 + (31 - 2) // (per_node.bit_length() - 1)

    def _header_holds(self, data: bytes, position: int) -> bool:
        magic, entries, most, _depth, _generation = _HEADER(data)
        capacity = (len(data) - 12) // 12
        if magic != EXTENT_MAGIC:
            self.report("extent-header", f"extent tree: expected magic {EXTENT_MAGIC:#x}, found {magic:#x}", position)
        elif not capacity - _SPARE_ENTRIES <= most <= capacity or entries > most:
            self.report(
                "extent-header",
                f"extent tree: expected {capacity} entries at most, found {entries} of {most}",
                position + 2,
            )
        else:
            return True
        return False

    def _node(self, data: bytes, depth: int, position: int, low: int, high: int, eof: int, end: int) -> None:
        """Judge a node whose extents lie in [low, high], or anywhere where ``high`` is 0; ``end`` bounds the last."""
        entries = _HEADER(data)[1]
        if depth == 0:
            for at in range(12, 12 + 12 * entries, 12):
                low = self._leaf_entry(data, at, position + at, low, high, eof)
            return
        for at in range(12, 12 + 12 * entries, 12):
            logical, block_low, block_high, _unused = EXTENT_INDEX.unpack_from(data, at)
            following = EXTENT_INDEX.unpack_from(data, at + 12)[0] if at < 12 * entries else end
            last = logical + (following - logical & 0xFFFFFFFF) - 1
            block = block_high << 32 | block_low
            if not self._entry_holds(logical, last, block, low, high, eof, position + at, written=True):
                continue
            self._child(block, depth - 1, logical, last, eof, following, position + at)

    def _entry_holds(
        self, logical: int, last: int, block: int, low: int, high: int, eof: int, position: int, *, written: bool
    ) -> bool:
        if not self._inside(block):
            self.report("extent-start", f"extent: expected a block below {self.end}, found {block}", position)
        elif logical < low:
            self.report("extent-order", f"extent: expected logical block {low} or more, found {logical}", position)
        elif high and last > high and not (last > eof and (not written or self.inode.flags & InodeFlag.verity)):
            self.report("extent-bounds", f"extent: expected its end at block {high} at most, found {last}", position)
        else:
            return True
        return False

    def _child(self, block: int, depth: int, logical: int, last: int, eof: int, end: int, position: int) -> None:
        volume = self.state.volume
        if block in self.seen:
            self.report("extent-loop", f"extent tree: expected block {block} once, found it again", position)
            return
        self.seen.add(block)
        data = volume.blocks(block, 1, "extent block")
        below = block * volume.block_size
        if not self._header_holds(data, below):
            return
        _magic, entries, most, found_depth, _generation = _HEADER(data)
        if found_depth != depth:
            self.report("extent-depth", f"extent tree: expected level {depth}, found {found_depth}", below + 6)
            return
        if volume.has_checksums:
            self._verify(data, 12 + 12 * most, below)
        if not entries:
            self.report("extent-header", "extent tree: expected entries below an index, found none", below + 2)
            return
        first = EXTENT_LEAF.unpack_from(data, 12)[0]
        if first != logical:
            self.report("extent-index", f"extent tree: expected a start at block {first}, found {logical}", position)
        self._node(data, depth, below, first, last, eof, end)
        self._claim(block)

    def _verify(self, data: bytes, tail: int, position: int) -> None:
        if self._seed is None:
            self._seed = self.state.volume.inode_seed(self.inode)
        expected = crc32c_raw(self._seed, data[:tail])
        found = int.from_bytes(data[tail : tail + 4], "little")
        if found != expected:
            self.report(
                "extent-checksum", f"extent block: expected {expected:#010x}, found {found:#010x}", position + tail
            )

    def _leaf_entry(self, data: bytes, at: int, position: int, low: int, high: int, eof: int) -> int:
        """Judge and claim one extent; return where the next may begin."""
        logical, length, block_high, block_low = EXTENT_LEAF.unpack_from(data, at)
        block = block_high << 32 | block_low
        written = length <= MAX_EXTENT_BLOCKS
        count = length if written else length - MAX_EXTENT_BLOCKS
        last = logical + count - 1
        if not self._entry_holds(logical, last, block, low, high, eof, position, written=written):
            return low
        if not count or block + count > self.end:
            self.report(
                "extent-length", f"extent: expected 1 to {self.end - block} blocks, found {count}", position + 4
            )
            return low
        if self.is_directory and not self._directory_extent_holds(logical, count, position, written=written):
            return low
        if logical < self._next_logical:
            self.report(
                "extent-overlap", f"extent: expected block {self._next_logical} or more, found {logical}", position
            )
            return low
        self._next_logical = last + 1
        self._claim_extent(logical, block, count)
        if self.is_directory:
            self.runs.append(Run(logical, count, block, written=True))
        elif written:
            self.last_written = last
        self.last_block = last
        self._previous = block + count - 1
        return int(last)

    def _directory_extent_holds(self, logical: int, count: int, position: int, *, written: bool) -> bool:
        if logical + count > 1 << _MAX_DIRECTORY_LOG - self.state.volume.superblock.s_log_block_size:
            self.report(
                "directory-size", f"directory: expected at most 2 GiB, found block {logical + count}", position
            )
            return False
        if not written:
            self.report("directory-unwritten", "directory: expected written blocks, found others", position)
        if logical > self.last_block + 1:
            self.report(
                "directory-hole", f"directory: expected block {self.last_block + 1}, found {logical}", position
            )
        return True

    def _claim_extent(self, logical: int, block: int, count: int) -> None:
        ratio = self.ratio
        if ratio == 1:
            self._claim(block, count)
            return
        if logical % ratio != block % ratio or self._splits_cluster(logical, block):
            self.report("cluster", f"extent: expected block {logical} aligned as its disk block, found it at {block}")
            self._claim(block, count)
        start = block
        if self._previous and block // ratio == self._previous // ratio:
            start = (block // ratio + 1) * ratio
        if start < block + count:
            self._claim(start, block + count - start)

    def _splits_cluster(self, logical: int, block: int) -> bool:
        """Whether one cluster of the file lies in two clusters of the disk."""
        ratio = self.ratio
        same = self._previous and logical % ratio and logical // ratio == self.last_block // ratio
        return bool(same and block // ratio != self._previous // ratio)

    # -- indirect blocks -------------------------------------------------------------------------------------

    def _indirect_map(self) -> None:
        pointers = _POINTERS(self.inode.block)
        position = self.inode.position + 0x28
        for index in range(_DIRECT):
            if pointers[index]:
                self._data(pointers[index], index, position + 4 * index)
        fan_out = self.state.volume.block_size // 4
        logical, span = _DIRECT, fan_out
        for level in (1, 2, 3):
            self._indirect(pointers[_DIRECT - 1 + level], level, logical, position + 4 * (_DIRECT - 1 + level))
            logical += span
            span *= fan_out

    def _data(self, block: int, logical: int, position: int) -> None:
        if self.is_directory:
            most = 1 << _MAX_DIRECTORY_LOG - self.state.volume.superblock.s_log_block_size
            if logical > most and not self.state.incompat(Incompat.large_dir):
                self.report("directory-size", f"directory: expected at most {most} blocks, found {logical}", position)
                return
        elif self.inode.kind != S_IFREG and logical and self.inode.number >= self.state.volume.superblock.first_ino:
            self.report("symlink-size", f"expected one block, found block {logical} too", position)
            return
        if not self._inside(block):
            self.report("pointer", f"block {logical}: expected a block below {self.end}, found {block}", position)
            return
        if self.inode.number == ReservedInode.resize:
            self.clusters += 1
        elif self.inode.number == ReservedInode.bad_blocks and self.state.tables.contains(block):
            self._bad_table(block)
        elif self._joins_cluster(block, logical):
            if self._splits_cluster(logical, block) or logical % self.ratio != block % self.ratio:
                self.report("cluster", f"block {logical}: expected it aligned as its disk block, found it at {block}")
        else:
            self._claim(block)
        self.last_block = logical
        self._previous = block
        if self.is_directory:
            self._add_run(logical, block)

    def _bad_table(self, block: int) -> None:
        """Report a bad block among tables, but where inodes were never used and where descriptors may grow."""
        state = self.state
        geo = state.volume.geometry
        for start, count in geo.overhead(geo.group_of(block)):
            if count > geo.descriptor_blocks and start + geo.descriptor_blocks <= block < start + count:
                return
        if not state.in_unused_inodes(block):
            self.report("bad-block", f"expected tables without one, found {block}", block * geo.block_size)

    def _joins_cluster(self, block: int, logical: int) -> bool:
        ratio = self.ratio
        if ratio == 1 or not self._previous or block // ratio != self._previous // ratio:
            return False
        return block % ratio == logical % ratio

    def _add_run(self, logical: int, block: int) -> None:
        if self.runs:
            last = self.runs[-1]
            if last.logical + last.blocks == logical and last.physical + last.blocks == block:
                self.runs[-1] = last._replace(blocks=last.blocks + 1)
                return
        self.runs.append(Run(logical, 1, block, written=True))

    def _indirect(self, block: int, level: int, logical: int, position: int) -> None:
        if not block:
            return
        if not self._inside(block):
            self.report("pointer", f"indirect block: expected a block below {self.end}, found {block}", position)
            return
        if self.inode.number == ReservedInode.resize:
            # Only its double indirect block is its own; the others are the groups', and were judged before.
            if level == _DOUBLE:
                self._claim(block)
            else:
                self.clusters += 1
        else:
            self._claim(block)
            self._previous = block
        if block in self.seen and (self.inode.number != ReservedInode.resize or level > 1):
            self.report("pointer-loop", f"indirect block: expected block {block} once, found it again", position)
            return
        self.seen.add(block)
        volume = self.state.volume
        fan_out = volume.block_size // 4
        pointers = self._unpack(volume.blocks(block, 1, "indirect block"))
        base = block * volume.block_size
        span = fan_out ** (level - 1)
        for index, pointer in enumerate(pointers):
            if pointer:
                if level == 1:
                    self._data(pointer, logical + index, base + 4 * index)
                else:
                    self._indirect(pointer, level - 1, logical + index * span, base + 4 * index)
