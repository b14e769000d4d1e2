"""Which blocks hold an inode's bytes: extent trees of any depth, and indirect blocks.

Knows: both maps, their bounds and checksums. Refuses to know: what the bytes are.

Source: Linux 6.1, Documentation/filesystems/ext4 (ifork, checksums).
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc32c_raw
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.layout import (
    EXTENT_HEADER,
    EXTENT_INDEX,
    EXTENT_LEAF,
    EXTENT_MAGIC,
    MAX_EXTENT_BLOCKS,
    MAX_EXTENT_DEPTH,
    InodeFlag,
)
from blockwright.fs.ext4.volume import Volume

MAX_LOGICAL: Final = 1 << 32
"""Blocks that a file can have: ee_block has 32 bits."""
MAX_RUNS: Final = 1 << 22
"""Runs of one file that are kept in memory, half a gigabyte of them; real files have thousands."""
_DIRECT: Final = 12
_POINTERS: Final = Struct("<15I").unpack
_HEADER: Final = EXTENT_HEADER.unpack_from
_SPEC_EXTENT: Final = "ext4 ifork, Extent Tree"
_SPEC_INDIRECT: Final = "ext4 ifork, Direct/Indirect Block Addressing"


class Run(NamedTuple):
    """``blocks`` blocks of a file from ``logical`` on lie from block ``physical`` on.

    ``written`` is False for an uninitialised extent: allocated, and reads as zeros.
    """

    logical: int
    blocks: int
    physical: int
    written: bool


def block_runs(volume: Volume, inode: Inode) -> list[Run]:
    """Return an inode's runs, ascending and without overlap; what lies between them are holes.

    Raises Corrupt for a map that breaks a rule, leaves the file system or meets one of its blocks twice.
    The time is bounded by the file system's blocks.
    """
    if inode.flags & InodeFlag.inline_data.real:
        return []
    if inode.flags & InodeFlag.extents.real:
        return _ExtentWalk(volume, inode).runs()
    return _IndirectWalk(volume, inode).runs()


def map_blocks(volume: Volume, inode: Inode) -> tuple[list[Run], set[int]]:
    """Return what ``block_runs`` does, and the blocks that the map itself takes outside of the inode."""
    if inode.flags & InodeFlag.inline_data:
        return [], set()
    walk = _ExtentWalk(volume, inode) if inode.flags & InodeFlag.extents else _IndirectWalk(volume, inode)
    return walk.runs(), walk.seen


class _Collector:
    """Appends runs, joining what is adjacent in the file and on the disk."""

    def __init__(self, volume: Volume, inode: Inode) -> None:
        self.volume = volume
        self.inode = inode
        self.found: list[Run] = []

    def add(self, logical: int, count: int, physical: int, *, written: bool) -> None:
        found = self.found
        if found:
            last = found[-1]
            joined = last.written == written and last.logical + last.blocks == logical
            if joined and last.physical + last.blocks == physical:
                found[-1] = Run(last.logical, last.blocks + count, last.physical, written)
                return
            if len(found) >= MAX_RUNS:
                raise self.volume.unsupported(
                    f"inode {self.inode.number}: block map: expected at most {MAX_RUNS} runs, found more"
                )
        found.append(Run(logical, count, physical, written))


class _ExtentWalk(_Collector):
    """Walks an extent tree without recursion deeper than MAX_EXTENT_DEPTH, and meets each block once."""

    def __init__(self, volume: Volume, inode: Inode) -> None:
        super().__init__(volume, inode)
        self.seen: set[int] = set()
        self.next_logical = 0
        self.seed: int | None = None

    def runs(self) -> list[Run]:
        inode = self.inode
        depth = _HEADER(inode.block)[3]
        if depth > MAX_EXTENT_DEPTH:
            raise self._corrupt(f"depth: expected at most {MAX_EXTENT_DEPTH}, found {depth}", inode.position + 0x28)
        self._node(inode.block, depth, inode.position + 0x28, MAX_LOGICAL)
        return self.found

    def _corrupt(self, message: str, position: int) -> Exception:
        return self.volume.corrupt(f"inode {self.inode.number}: extent tree: {message}", position, _SPEC_EXTENT)

    def _node(self, data: bytes, depth: int, position: int, end: int) -> None:
        magic, entries, most, found_depth, _generation = _HEADER(data)
        capacity = len(data) // 12 - 1
        if magic != EXTENT_MAGIC:
            raise self._corrupt(f"magic: expected {EXTENT_MAGIC:#x}, found {magic:#x}", position)
        if found_depth != depth:
            raise self._corrupt(f"depth: expected {depth}, found {found_depth}", position + 6)
        if not entries <= most <= capacity:
            raise self._corrupt(
                f"entries: expected at most {min(most, capacity)}, found {entries} of {most}", position + 2
            )
        if depth == 0:
            self._leaf(data, entries, position, end)
        else:
            self._index(data, entries, depth, position, end)

    def _leaf(self, data: bytes, entries: int, position: int, end: int) -> None:
        volume = self.volume
        first, last = max(1, volume.geometry.first_data_block), volume.geometry.blocks_count
        unpack = EXTENT_LEAF.unpack_from
        following = self.next_logical
        for at in range(12, 12 + 12 * entries, 12):
            logical, length, high, low = unpack(data, at)
            physical = high << 32 | low
            written = length <= MAX_EXTENT_BLOCKS
            count = length if written else length - MAX_EXTENT_BLOCKS
            if logical < following or logical + count > end or not count:
                raise self._corrupt(
                    f"extent: expected blocks from {following} to {end - 1}, found {count} from {logical} on",
                    position + at,
                )
            if physical < first or physical + count > last:
                raise self._corrupt(
                    f"extent: expected disk blocks from {first} to {last - 1}, found {count} from {physical} on",
                    position + at,
                )
            following = logical + count
            self.add(logical, count, physical, written=written)
        self.next_logical = following

    def _index(self, data: bytes, entries: int, depth: int, position: int, end: int) -> None:
        unpack = EXTENT_INDEX.unpack_from
        volume = self.volume
        previous = -1
        for at in range(12, 12 + 12 * entries, 12):
            logical, low, high, _unused = unpack(data, at)
            least = max(previous + 1, self.next_logical)
            if not least <= logical < end:
                raise self._corrupt(
                    f"index: expected blocks from {least} to {end - 1}, found {logical}",
                    position + at,
                )
            previous = logical
            below = unpack(data, at + 12)[0] if at < 12 * entries else end
            block = high << 32 | low
            if block in self.seen:
                raise self._corrupt(f"index: expected each block once, found {block} again", position + at)
            self.seen.add(block)
            child = volume.block(block, f"inode {self.inode.number}: extent block")
            if volume.has_checksums and volume.verify:
                self._verify(child, block)
            self.next_logical = logical
            self._node(child, depth - 1, block * volume.block_size, min(end, below))

    def _verify(self, data: bytes, block: int) -> None:
        if self.seed is None:
            self.seed = self.volume.inode_seed(self.inode)
        tail = 12 + 12 * _HEADER(data)[2]
        position = block * self.volume.block_size
        if tail + 4 > len(data):
            raise self._corrupt(f"checksum: expected it below byte {len(data)}, found it at {tail}", position)
        found = int.from_bytes(data[tail : tail + 4], "little")
        expected = crc32c_raw(self.seed, data[:tail])
        if found != expected:
            raise self._corrupt(f"checksum: expected {expected:#010x}, found {found:#010x}", position + tail)


class _IndirectWalk(_Collector):
    """Walks direct pointers and one to three levels of indirect blocks, as far as the inode's size."""

    def __init__(self, volume: Volume, inode: Inode) -> None:
        super().__init__(volume, inode)
        self.seen: set[int] = set()
        self.fan_out = volume.block_size // 4
        self.unpack = Struct(f"<{self.fan_out}I").unpack
        self.end = -(-inode.size // volume.block_size)

    def runs(self) -> list[Run]:
        inode = self.inode
        pointers = _POINTERS(inode.block)
        self._pointers(pointers[:_DIRECT], 0, inode.position + 0x28)
        logical, span = _DIRECT, self.fan_out
        for level in (1, 2, 3):
            if logical >= self.end:
                break
            self._indirect(pointers[_DIRECT - 1 + level], level, logical, inode.position + 0x28 + 4 * (11 + level))
            logical += span
            span *= self.fan_out
        return self.found

    def _corrupt(self, message: str, position: int) -> Exception:
        return self.volume.corrupt(f"inode {self.inode.number}: block map: {message}", position, _SPEC_INDIRECT)

    def _pointers(self, pointers: tuple[int, ...], logical: int, position: int) -> None:
        geo = self.volume.geometry
        first, last = max(1, geo.first_data_block), geo.blocks_count
        if logical + len(pointers) > self.end:
            pointers = pointers[: max(0, self.end - logical)]
        for index, block in enumerate(pointers):
            if not block:
                continue
            if not first <= block < last:
                raise self._corrupt(
                    f"expected disk blocks from {first} to {last - 1}, found {block}", position + 4 * index
                )
            self.add(logical + index, 1, block, written=True)

    def _indirect(self, block: int, level: int, logical: int, position: int) -> None:
        if not block or logical >= self.end:
            return
        if block in self.seen:
            raise self._corrupt(f"expected each indirect block once, found {block} again", position)
        self.seen.add(block)
        data = self.volume.block(block, f"inode {self.inode.number}: indirect block")
        pointers = self.unpack(data)
        position = block * self.volume.block_size
        if level == 1:
            self._pointers(pointers, logical, position)
            return
        span = self.fan_out ** (level - 1)
        for index, pointer in enumerate(pointers):
            if pointer:
                self._indirect(pointer, level - 1, logical + index * span, position + 4 * index)
