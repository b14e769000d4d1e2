"""Many new files of one directory made at once: one look for inodes, one for blocks, one pass over the directory.

What comes out is what making one after the other would leave, but for where things lie. It is for regular files that
nothing is remarkable about; ``Batch.suits`` tells them.

Knows: what new plain files share. Refuses to know: how one is made that is not plain.

Source: Linux 6.1, Documentation/filesystems/ext4 (inodes, checksums).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc32c_raw
from blockwright.errors import UsageError
from blockwright.fs.ext4.edit.bodies import CHUNK
from blockwright.fs.ext4.edit.entries import Record
from blockwright.fs.ext4.edit.inodes import encoded_time
from blockwright.fs.ext4.edit.nodes import Nodes, inherited, refuse
from blockwright.fs.ext4.edit.parts import Parts
from blockwright.fs.ext4.inode import S_IFREG
from blockwright.fs.ext4.layout import GOOD_OLD_INODE_SIZE, FileType, Incompat, InodeFlag
from blockwright.fs.ext4.mapping import Run
from blockwright.fs.ext4.plan_maps import ExtentMaps, IndirectMaps
from blockwright.tree.content import Content
from blockwright.tree.node import File, Node
from blockwright.units import SECTOR

MOST: Final = 1024
"""Files that are made at once."""
_EXTRA: Final = 32
_RECORD: Final = struct.Struct(
    "<II"  # number and generation, which the checksum covers first
    "HHIIII4xHHII4x60s"  # mode, uid, size, atime, ctime, mtime, gid, links, blocks, flags, block
    "I4xI4x4xHH4x"  # generation, size_high, uid_high, gid_high; then the checksum's low half
    "H2xIIIII8x"  # extra_isize, the checksum's high half, ctime, mtime, atime extra, crtime and extra
)
_NUMBER: Final = 8
_LOW_SUM: Final = 0x7C
_HIGH_SUM: Final = 0x82
_GENERATION: Final = 0x64
_UNSUITED: Final = int(
    InodeFlag.inline_data | InodeFlag.casefold | InodeFlag.encrypt | InodeFlag.projinherit | InodeFlag.immutable
)
_OLD_EARLIEST, _OLD_LATEST = -(1 << 31), (1 << 31) - 1

Named = tuple[bytes, File]


class _Body(NamedTuple):
    """Where a file's blocks came to lie: i_block, and how many there are with those of its map."""

    i_block: bytes
    blocks: int


class Batch:
    """Makes plain files in a file system."""

    def __init__(self, parts: Parts, nodes: Nodes) -> None:
        self._parts = parts
        self._nodes = nodes
        self._volume = volume = parts.volume
        self._block_size = volume.block_size
        self._old = volume.geometry.inode_size == GOOD_OLD_INODE_SIZE
        incompat = volume.superblock.s_feature_incompat
        extents = bool(incompat & Incompat.extent)
        self._maps = ExtentMaps(self._block_size, None) if extents else IndirectMaps(self._block_size)
        self._able = (self._old or parts.inodes.extra_size == _EXTRA) and (extents or not incompat & Incompat.bit64)

    def takes(self, parent: int) -> bool:
        """Whether files can be made at once in this directory."""
        return self._able and not self._volume.inode(parent).flags & _UNSUITED

    @staticmethod
    def suits(node: Node) -> bool:
        """Whether a node is a short regular file without holes and attributes."""
        if not isinstance(node, File) or node.xattrs:
            return False
        size = node.content.size
        return not size or (size <= CHUNK and list(node.content.runs()) == [(0, size)])

    def create(self, parent: int, files: Sequence[Named], now_ns: int) -> list[int]:
        """Make files that suit under free names; return their inodes. Raises as making one of them does."""
        parts = self._parts
        above = self._nodes.load_directory(parent)
        refuse(above, InodeFlag.immutable, InodeFlag.encrypt)
        numbers = parts.inodes.allocate_files(parent, len(files))
        bodies = self._place(numbers, files)
        flags = inherited(above.flags, S_IFREG) | self._maps.flag
        self._save(numbers, files, bodies, flags, now_ns)
        kind = FileType.regular
        parts.directories.add_many(
            above, [Record(name, number, kind) for number, (name, _) in zip(numbers, files, strict=True)]
        )
        self._nodes.changed(above, now_ns)
        return numbers

    # -- bodies ------------------------------------------------------------------------------------------------

    def _place(self, numbers: Sequence[int], files: Sequence[Named]) -> list[_Body]:
        """Give every file its blocks and write what it holds."""
        parts, size = self._parts, self._block_size
        counts = [-(-file.content.size // size) for _, file in files]
        goal = parts.space.goal_of(parts.inodes.group_of(numbers[0]))
        free = _Pieces(parts.space.allocate_runs(goal, sum(counts)))
        writer = _Gathered(parts)
        bodies = []
        for number, (_, file), count in zip(numbers, files, counts, strict=True):
            runs = list(free.take(count))
            for run in runs:
                writer.add(run, file.content)
            bodies.append(self._map(number, runs, count))
        writer.send()
        return bodies

    def _map(self, number: int, runs: list[Run], count: int) -> _Body:
        """Return the map of a file's blocks, for which others may be allocated."""
        if not runs:
            return _Body(self._maps.empty, 0)
        whole = self._maps.single(runs[0].physical, count) if len(runs) == 1 else None
        if whole is not None:
            return _Body(whole, count)
        parts = self._parts
        draft = parts.inodes.blank(number)  # with the generation that sums start from
        parts.maps.start(draft)
        parts.maps.replace(draft, 0, count, runs, before=())
        return _Body(draft.fields.i_block, draft.fields.i_blocks_lo * SECTOR // self._block_size)

    # -- inodes ------------------------------------------------------------------------------------------------

    def _save(
        self, numbers: Sequence[int], files: Sequence[Named], bodies: Sequence[_Body], flags: int, now_ns: int
    ) -> None:
        """Put the inodes into the transaction's blocks, each block looked up once."""
        volume, block_size = self._volume, self._block_size
        inode_size = volume.geometry.inode_size
        end = GOOD_OLD_INODE_SIZE if self._old else _EXTRA + GOOD_OLD_INODE_SIZE
        rest = bytes(inode_size - end)
        now, now_extra = self._time(now_ns)
        current, block = -1, bytearray()
        for number, (name, file), body in zip(numbers, files, bodies, strict=True):
            place, at = divmod(volume.inode_position(number), block_size)
            if place != current:
                current, block = place, self._parts.transaction.modify(place, f"inode {number}")
            generation = int.from_bytes(block[at + _GENERATION : at + _GENERATION + 4], "little") + 1 & 0xFFFFFFFF
            time, extra = self._time(file.mtime_ns)
            try:
                packed = _RECORD.pack(
                    number,
                    generation,
                    S_IFREG | file.permissions & 0o7777,
                    file.uid & 0xFFFF,
                    file.content.size,
                    time,
                    now,
                    time,
                    file.gid & 0xFFFF,
                    1,
                    body.blocks * block_size // SECTOR,
                    flags,
                    body.i_block,
                    generation,
                    0,
                    file.uid >> 16,
                    file.gid >> 16,
                    _EXTRA,
                    now_extra,
                    extra,
                    extra,
                    now,
                    now_extra,
                )
            except struct.error:
                raise UsageError(
                    f"{ascii(name)[2:-1]}: expected owners of 0 to {(1 << 32) - 1}, found {file.uid}:{file.gid}"
                ) from None
            raw = packed[: _NUMBER + end] + rest
            block[at : at + inode_size] = raw[_NUMBER:]
            if volume.has_checksums:
                checksum = crc32c_raw(volume.seed, raw)
                block[at + _LOW_SUM : at + _LOW_SUM + 2] = (checksum & 0xFFFF).to_bytes(2, "little")
                if not self._old:
                    block[at + _HIGH_SUM : at + _HIGH_SUM + 2] = (checksum >> 16).to_bytes(2, "little")

    def _time(self, time_ns: int) -> tuple[int, int]:
        if self._old:
            return min(max(time_ns // 1_000_000_000, _OLD_EARLIEST), _OLD_LATEST) & 0xFFFFFFFF, 0
        return encoded_time(time_ns)


class _Pieces:
    """Hands out blocks of runs (first block, length), in order."""

    def __init__(self, runs: Sequence[tuple[int, int]]) -> None:
        self._runs = iter(runs)
        self._start = self._left = 0

    def take(self, count: int) -> Iterator[Run]:
        """Yield runs of the next ``count`` blocks, as a file maps them from its beginning."""
        logical = 0
        while logical < count:
            if not self._left:
                self._start, self._left = next(self._runs)
            part = min(self._left, count - logical)
            yield Run(logical, part, self._start, written=True)
            self._start += part
            self._left -= part
            logical += part


class _Gathered:
    """Bodies that lie behind one another, written together."""

    def __init__(self, parts: Parts) -> None:
        self._transaction = parts.transaction
        self._block_size = parts.volume.block_size
        self._view = memoryview(bytearray(2 * CHUNK))
        self._first = self._used = 0

    def add(self, run: Run, content: Content) -> None:
        """Have what ``content`` holds in a run of its blocks, at most a chunk of them, in these blocks."""
        size = self._block_size
        if run.physical * size != self._first * size + self._used or self._used >= CHUNK:
            self.send()
            self._first = run.physical
        offset, length = run.logical * size, run.blocks * size
        data = min(length, content.size - offset)
        low = self._used
        content.read_into(offset, self._view[low : low + data])
        if data < length:
            self._view[low + data : low + length] = bytes(length - data)
        self._used += length

    def send(self) -> None:
        """Write what was gathered."""
        if self._used:
            self._transaction.write_data(self._first, self._view[: self._used])
        self._used = 0
