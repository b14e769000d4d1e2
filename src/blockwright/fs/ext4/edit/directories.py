"""Directories while they are changed: names added, removed and pointed elsewhere, whatever form the directory has.

A directory of one block that overflows becomes a hash tree where the file system has them; one that lies in its
inode is moved to a block by its first change.

Knows: the three forms, and when one becomes another. Refuses to know: inodes but the directory's own.

Source: Linux 6.1, Documentation/filesystems/ext4 (directory, inlinedata).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

from blockwright.epoch import now_ns
from blockwright.errors import NoSpace, UsageError
from blockwright.fs.ext4.directory import directory_blocks, entries_in, index_offset, inline_entries, verify_block
from blockwright.fs.ext4.edit.blockmap import BlockMap
from blockwright.fs.ext4.edit.entries import DOTS, BlockFormat, Record, dots
from blockwright.fs.ext4.edit.index import HashTree, make_root
from blockwright.fs.ext4.edit.inodes import Draft, InodeTable
from blockwright.fs.ext4.edit.space import Space
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.edit.xattrs import Attributes
from blockwright.fs.ext4.inode import S_IFDIR
from blockwright.fs.ext4.layout import Compat, HashVersion, Incompat, InodeFlag, SuperFlag
from blockwright.fs.ext4.lookup import MAX_INDEX_LEVELS, blocks_for, find_folded, fold
from blockwright.fs.ext4.mapping import Run
from blockwright.fs.ext4.plan_directory import DirectoryFormat, indexed_image, pack_entry
from blockwright.fs.ext4.xattr_read import inline_tail
from blockwright.units import KiB, MiB

MAX_KEPT: Final = 1024
"""Directories whose maps are kept in memory."""
MAX_SIZE: Final = 1 << 31
"""Bytes of a directory without large_dir: i_size_high is not counted."""
STRICT: Final = 0x1
"""The bit of s_encoding_flags that refuses names in case-insensitive directories that are no UTF-8."""
OFTEN: Final = 8
"""Questions about a directory behind which its names are kept in memory."""
MAX_NAMED: Final = 16
"""Directories whose names are kept."""
MAX_NAMES_SIZE: Final = MiB
"""Bytes of a directory whose names are kept."""


class _Kept:
    """What is known of a directory between two changes."""

    __slots__ = ("last", "needed", "room", "runs")

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs
        self.last: dict[int, int] = {}
        """By block, where the entry lies that was put in last: what is free is mostly behind it."""
        self.room = 0
        self.needed = 0
        """Blocks before ``room`` have no place for a record of ``needed`` bytes."""


class Directories:
    """The directories of a file system. The caller saves the drafts."""

    def __init__(
        self, transaction: Transaction, space: Space, inodes: InodeTable, maps: BlockMap, attributes: Attributes
    ) -> None:
        self.transaction = transaction
        self.volume = transaction.volume
        self.space = space
        self.inodes = inodes
        self.maps = maps
        self._attributes = attributes
        fields = self.volume.superblock
        self.format = BlockFormat(self.volume.block_size, self.volume.has_checksums)
        self._typed = bool(fields.s_feature_incompat & Incompat.filetype)
        self._indexes = bool(fields.s_feature_compat & Compat.dir_index)
        self._strict = bool(fields.s_encoding_flags & STRICT)
        self.large = bool(fields.s_feature_incompat & Incompat.large_dir)
        self._kept: dict[int, _Kept] = {}
        self._names: dict[int, dict[bytes, int]] = {}
        self._asked: dict[int, int] = {}

    # -- what is kept ----------------------------------------------------------------------------------------

    def kept(self, draft: Draft) -> _Kept:
        """Return what is known of a directory."""
        found = self._kept.get(draft.number)
        if found is None:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            found = self._kept[draft.number] = _Kept(self.maps.runs(draft))
        return found

    def names(self, number: int) -> dict[bytes, int] | None:
        """Return the names of a directory that is asked about again and again, and their inodes; None otherwise."""
        found = self._names.get(number)
        if found is not None:
            return found
        asked = self._asked[number] = self._asked.get(number, 0) + 1
        if asked != OFTEN:
            return None
        inode = self.volume.inode(number)
        special = inode.flags & (InodeFlag.inline_data | InodeFlag.casefold | InodeFlag.encrypt)
        if inode.kind != S_IFDIR or special or inode.size > MAX_NAMES_SIZE:
            return None
        if len(self._names) >= MAX_NAMED:
            self._names.clear()
        found = {}
        for _, position, block in directory_blocks(self.volume, inode):
            found.update((name, entry) for name, entry, _ in entries_in(self.volume, inode, block, position))
        self._names[number] = found
        return found

    def forget(self, number: int | None = None) -> None:
        """Drop what is known of one directory, or of all."""
        if number is None:
            self._kept.clear()
            self._names.clear()
            self._asked.clear()
        else:
            self._kept.pop(number, None)
            self._names.pop(number, None)
            self._asked.pop(number, None)

    # -- changes ---------------------------------------------------------------------------------------------

    def make(self, draft: Draft, parent: int) -> None:
        """Give a new directory its first block."""
        self.maps.start(draft)
        blocks = _Blocks(self, draft)
        _, block = blocks.append()
        self.format.lay_out(block, dots(draft.number, parent, typed=self._typed))
        self.format.close(block, blocks.seed)

    def add(self, draft: Draft, name: bytes, inode: int, file_type: int) -> None:
        """Put a name into a directory, which does not have it. Raises NoSpace, UsageError."""
        self.add_many(draft, [Record(name, inode, file_type)])

    def add_many(self, draft: Draft, records: Sequence[Record]) -> None:
        """Put names into a directory, which has none of them. Raises NoSpace, UsageError."""
        if self._strict and draft.has(InodeFlag.casefold):
            for record in records:
                if fold(record.name) is None:
                    raise UsageError(
                        f"name {ascii(record.name)[2:66]!r}: expected UTF-8, which the directory is strict about"
                    )
        if not self._typed:
            records = [record._replace(file_type=0) for record in records]
        if draft.number in self._names:
            self._names[draft.number].update((record.name, record.inode) for record in records)
        self._to_blocks(draft)
        blocks = _Blocks(self, draft)
        if draft.has(InodeFlag.index):
            self._tree(draft, blocks).add_many(records)
            return
        if len(records) > 1 and blocks.count == 1:
            records = self._add_to_block(draft, blocks, records)
        for index, record in enumerate(records):
            if self._add_linear(blocks, record):
                continue
            if blocks.count == 1 and self._indexes:
                self._make_tree(draft, blocks)
                self._tree(draft, blocks).add_many(records[index:])
                return
            _, block = blocks.append()
            self.format.lay_out(block, [record])
            self.format.close(block, blocks.seed)

    def _add_to_block(self, draft: Draft, blocks: _Blocks, records: Sequence[Record]) -> Sequence[Record]:
        """Put names into a directory of one block, laid out anew as a block or a tree; return those left over."""
        every = [*blocks.records(0), *records]
        if sum(record.size for record in every) <= self.format.end:
            block = blocks.modify(0)
            blocks.forget(0)
            self.format.lay_out(block, every)
            self.format.close(block, blocks.seed)
            return ()
        version = self.volume.superblock.s_def_hash_version
        plain = self.format.size < 64 * KiB and not draft.has(InodeFlag.casefold) and version <= HashVersion.tea
        if not (self._indexes and self._typed and plain):
            return records
        self._check_dots(draft, blocks, every)
        blocks.replace_all(self._tree_of(draft, every, version, blocks.seed))
        draft.fields.i_flags |= InodeFlag.index.real
        return ()

    def _tree_of(self, draft: Draft, records: Sequence[Record], version: int, seed: int) -> bytes:
        """Return the blocks of a hash tree that holds all of a directory's names."""
        superblock = self.volume.superblock
        form = DirectoryFormat(
            self.format.size,
            superblock.s_hash_seed,
            self.format.summed,
            MAX_INDEX_LEVELS if self.large else MAX_INDEX_LEVELS - 1,
            version,
            bool(superblock.s_flags & SuperFlag.unsigned_hash),
        )
        (parent,) = (record.inode for record in records if record.name == DOTS[1])
        names = [record for record in records if record.name not in DOTS]
        packed = [pack_entry(record.inode, record.name, record.file_type) for record in names]
        return indexed_image(form, draft.number, parent, [record.name for record in names], packed, seed).head

    def remove(self, draft: Draft, name: bytes) -> None:
        """Take a name out of a directory. Raises Corrupt where it is not there."""
        self._to_blocks(draft)
        number, before, at = self._find(draft, name)
        block = self.transaction.modify(number, f"directory {draft.number}")
        self.format.remove(block, before, at)
        self.format.close(block, self.inodes.seed(draft))
        self._names.get(draft.number, {}).pop(name, None)
        kept = self.kept(draft)
        kept.room = 0
        kept.last.clear()

    def set_parent(self, draft: Draft, parent: int) -> None:
        """Have ``..`` of a directory stand for another."""
        self._to_blocks(draft)
        self._names.pop(draft.number, None)
        blocks = _Blocks(self, draft)
        data = blocks.read(0)
        indexed = index_offset(data, self.format.size) is not None
        if data[12 + 6] != len(DOTS[1]) or data[20:22] != DOTS[1]:
            raise self.volume.corrupt(
                f"directory {draft.number}: expected its second entry to be '..', found another"
            )
        block = blocks.modify(0)
        self.format.point(block, 12, parent)
        if not indexed:
            self.format.close(block, blocks.seed)
        else:
            self._tree(draft, blocks).store_root()

    # -- forms -----------------------------------------------------------------------------------------------

    def _tree(self, draft: Draft, blocks: _Blocks) -> HashTree:
        if not self._indexes:
            raise self.volume.unsupported(
                f"directory {draft.number}: has an index, and the file system is without dir_index", draft.position
            )
        levels = MAX_INDEX_LEVELS if self.large else MAX_INDEX_LEVELS - 1
        folded = draft.has(InodeFlag.casefold)
        return HashTree(self.volume, self.format, blocks, max_levels=levels, fold=_folded if folded else _as_it_is)

    def _add_linear(self, blocks: _Blocks, record: Record) -> bool:
        kept = blocks.kept
        if record.size < kept.needed or not kept.room:
            kept.room, kept.needed = 0, record.size
        for logical in range(kept.room, blocks.count):
            if blocks.insert(logical, record):
                return True
            if record.size == kept.needed:
                kept.room = logical + 1
        return False

    def _make_tree(self, draft: Draft, blocks: _Blocks) -> None:
        """Turn a directory of one block into a root and a leaf."""
        found, parent = self._check_dots(draft, blocks, blocks.records(0))
        _, leaf = blocks.append()
        self.format.lay_out(leaf, found)
        self.format.close(leaf, blocks.seed)
        version = self.volume.superblock.s_def_hash_version
        blocks.forget(0)
        make_root(blocks.modify(0), self.format, version, parent, blocks.seed)
        draft.fields.i_flags |= InodeFlag.index.real

    def _check_dots(self, draft: Draft, blocks: _Blocks, records: Sequence[Record]) -> tuple[list[Record], Record]:
        """Return a block's names without the dots, and ``..``. Raises Corrupt unless the block begins with these."""
        found = [record for record in records if record.name not in DOTS]
        parents = [record for record in records if record.name == DOTS[1]]
        first = blocks.read(0)
        if len(parents) != 1 or len(found) != len(records) - 2 or first[4:6] != b"\x0c\0" or first[20:22] != DOTS[1]:
            raise self.volume.corrupt(f"directory {draft.number}: expected it to begin with '.' and '..'")
        return found, parents[0]

    def _to_blocks(self, draft: Draft) -> None:
        """Move a directory that lies in its inode to a block."""
        if not draft.has(InodeFlag.inline_data):
            return
        inode = draft.inode()
        names = inline_entries(self.volume, inode, inline_tail(self.volume, inode))
        parent = int.from_bytes(inode.block[:4], "little")
        self._attributes.drop_inline(draft, now_ns())
        draft.fields.i_flags &= ~InodeFlag.inline_data.real
        draft.size = 0
        self.maps.start(draft)
        self.forget(draft.number)
        blocks = _Blocks(self, draft)
        _, block = blocks.append()
        records = dots(draft.number, parent, typed=self._typed)
        records += [Record(*name) for name in names]
        if sum(record.size for record in records) > self.format.end:
            raise NoSpace(f"directory {draft.number}: expected its names to fit a block, found more")
        self.format.lay_out(block, records)
        self.format.close(block, blocks.seed)

    def _find(self, draft: Draft, name: bytes) -> tuple[int, int, int]:
        """Return (block, byte of the entry before or -1, byte of the entry) of a name."""
        inode = draft.inode()
        blocks: Iterator[tuple[int, bytes]]
        if draft.has(InodeFlag.casefold):
            spelled = find_folded(self.volume, inode, name)
            name = name if spelled is None else spelled[0]
            blocks = ((position, block) for _, position, block in directory_blocks(self.volume, inode))
        else:
            blocks = blocks_for(self.volume, inode, name)
        for position, block in blocks:
            found = self.format.find(block, name)
            if found is not None:
                return position // self.volume.block_size, *found
        raise self.volume.corrupt(f"directory {draft.number}: expected a name that was found before, found it gone")


class _Blocks:
    """A directory's blocks by their number within it."""

    def __init__(self, owner: Directories, draft: Draft) -> None:
        self._owner = owner
        self._draft = draft
        self.number = draft.number
        self.seed = owner.inodes.seed(draft)
        self.kept = owner.kept(draft)
        self._inode = draft.inode()
        self._what = f"directory {draft.number}"

    @property
    def count(self) -> int:
        """The directory's blocks."""
        return self._draft.size // self._owner.volume.block_size

    def _place(self, logical: int) -> int:
        runs = self.kept.runs
        index = bisect_right(runs, (logical, 1 << 62)) - 1
        if index >= 0:
            start, count, physical, written = runs[index]
            if logical < start + count and written:
                return physical + logical - start
        raise self._owner.volume.corrupt(f"{self._what}: expected block {logical} to exist, found a hole")

    def read(self, logical: int) -> bytes:
        """Return a block, verified."""
        volume = self._owner.volume
        place = self._place(logical)
        data = volume.block(place, self._what)
        if volume.has_checksums and place not in self._owner.transaction.blocks:
            verify_block(volume, self._inode, data, place * volume.block_size, self.seed)
        return data

    def modify(self, logical: int) -> bytearray:
        """Return a block to be changed in place; it was read before, and so verified."""
        return self._owner.transaction.modify(self._place(logical), self._what)

    def append(self) -> tuple[int, bytearray]:
        """Make the directory a block longer."""
        owner, draft, runs = self._owner, self._draft, self.kept.runs
        size = owner.volume.block_size
        logical = self.count
        if not owner.large and draft.size + size > MAX_SIZE:
            raise UsageError(f"{self._what}: expected at most {MAX_SIZE} bytes without large_dir")
        goal = (
            runs[-1].physical + runs[-1].blocks if runs else owner.space.goal_of(owner.inodes.group_of(draft.number))
        )
        place, _ = owner.space.allocate(goal, 1)
        block = owner.transaction.create(place)
        owner.maps.replace(draft, logical, logical + 1, [Run(logical, 1, place, written=True)], before=runs)
        draft.size += size
        self.kept.runs = _extended(runs, logical, place)
        owner.transaction.undo(owner.forget)
        return logical, block

    def replace_all(self, data: bytes) -> None:
        """Have the directory's only block and new ones behind it hold ``data``."""
        owner, draft = self._owner, self._draft
        size = owner.volume.block_size
        count = len(data) // size
        if not owner.large and len(data) > MAX_SIZE:
            raise UsageError(f"{self._what}: expected at most {MAX_SIZE} bytes without large_dir")
        self.modify(0)[:] = data[:size]
        logical, runs = 1, []
        for start, length in owner.space.allocate_runs(self._place(0) + 1, count - 1):
            runs.append(Run(logical, length, start, written=True))
            for place in range(start, start + length):
                owner.transaction.create(place)[:] = data[logical * size : (logical + 1) * size]
                logical += 1
        owner.maps.replace(draft, 1, count, runs, before=self.kept.runs)
        draft.size = count * size
        owner.forget(draft.number)
        owner.transaction.undo(owner.forget)

    def insert(self, logical: int, record: Record) -> bool:
        """Put a record into a block, and say whether there was room."""
        fmt, last = self._owner.format, self.kept.last
        data = self.read(logical)
        start = last.get(logical, 0)
        at = fmt.place_for(data, record.size, start)
        if at is None and start:
            at = fmt.place_for(data, record.size)
        if at is None:
            return False
        block = self.modify(logical)
        last[logical] = fmt.insert(block, at, record)
        fmt.close(block, self.seed)
        return True

    def forget(self, logical: int) -> None:
        """Know nothing of where a block has room, since it is laid out anew."""
        self.kept.last.pop(logical, None)

    def records(self, logical: int) -> list[Record]:
        """Return the entries of a block that are in use."""
        volume = self._owner.volume
        position = self._place(logical) * volume.block_size
        return [Record(*name) for name in entries_in(volume, self._inode, self.read(logical), position)]


def _extended(runs: list[Run], logical: int, place: int) -> list[Run]:
    last = runs[-1] if runs else None
    if last is not None and last.logical + last.blocks == logical and last.physical + last.blocks == place:
        return [*runs[:-1], Run(last.logical, last.blocks + 1, last.physical, written=True)]
    return [*runs, Run(logical, 1, place, written=True)]


def _as_it_is(name: bytes) -> bytes:
    return name


def _folded(name: bytes) -> bytes:
    """Return what is hashed of a name in a case-insensitive directory; what is no UTF-8 is hashed as it is."""
    found = fold(name)
    return name if found is None else found.encode()
