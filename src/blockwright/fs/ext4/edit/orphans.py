"""Orphans: inodes that lost their last name, or were being cut, when the file system was left in the middle of it.

They hang on a list from the superblock, through the field that otherwise tells when an inode was deleted, or stand
in a file of their own.

Knows: both, and what is to be done with what is on them. Refuses to know: how an inode is freed.

Source: Linux 6.1, Documentation/filesystems/ext4 (orphan, super).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from struct import Struct

from blockwright.codec.checksum import crc32c_raw
from blockwright.errors import UsageError
from blockwright.fs.ext4.edit.inodes import Draft
from blockwright.fs.ext4.edit.nodes import Nodes
from blockwright.fs.ext4.edit.parts import Parts
from blockwright.fs.ext4.inode import S_IFREG
from blockwright.fs.ext4.layout import ORPHAN_MAGIC, ORPHAN_TAIL, Compat, RoCompat

Once = Callable[[Callable[[], None]], None]
"""Does something whole or not at all."""


class Orphans:
    """The orphans of a file system."""

    def __init__(self, parts: Parts, nodes: Nodes, piece: int) -> None:
        """``piece`` bounds the groups and runs of blocks that one operation frees."""
        self._piece = piece
        self._parts = parts
        self._nodes = nodes
        self._volume = parts.volume

    def finish(self, once: Once, now_ns: int) -> None:
        """Free or cut every orphan, each as one operation. Raises Corrupt."""
        seen: set[int] = set()
        superblock = self._parts.superblock
        while superblock.fields.s_last_orphan:
            number = superblock.fields.s_last_orphan
            if number in seen:
                raise self._volume.corrupt(f"orphans: expected each inode once, found {number} again")
            seen.add(number)
            self._shorten(number, once)
            once(partial(self._finish_listed, number, now_ns))
        if superblock.fields.s_feature_ro_compat & RoCompat.orphan_present:
            self._finish_file(once, now_ns)

    def _shorten(self, number: int, once: Once) -> None:
        """Cut a body piece by piece, from its end, until what is left to free fits one operation."""
        left = True

        def cut() -> None:
            nonlocal left
            draft = self._load(number)
            left = self._nodes.cut_piece(draft, self._piece)
            if left:
                self._parts.inodes.save(draft)

        while left:
            once(cut)

    def _finish_listed(self, number: int, now_ns: int) -> None:
        draft = self._load(number)
        self._parts.superblock.set(s_last_orphan=draft.fields.i_dtime)
        draft.fields.i_dtime = 0
        self._finish(draft, now_ns)

    def _load(self, number: int) -> Draft:
        if number < self._parts.superblock.fields.first_ino:
            raise self._volume.corrupt(f"orphans: expected an inode that is not reserved, found {number}")
        return self._parts.inodes.load_any(number)

    def _finish(self, draft: Draft, now_ns: int) -> None:
        if not draft.fields.i_links_count:
            self._nodes.free(draft, now_ns)
            return
        if draft.kind == S_IFREG:
            self._nodes.trim(draft)
        self._parts.inodes.save(draft)

    # -- the orphan file -------------------------------------------------------------------------------------

    def _finish_file(self, once: Once, now_ns: int) -> None:
        superblock = self._parts.superblock
        if not superblock.fields.s_feature_compat & Compat.orphan_file:
            raise UsageError(
                "edit: expected an orphan file, since orphans are on record, found none: run e2fsck first"
            )
        holder = self._parts.inodes.load(superblock.fields.s_orphan_file_inum)
        for place in self._blocks(holder):
            data = self._volume.block(place, "orphan file")
            words = Struct(f"<{(len(data) - ORPHAN_TAIL.size) // 4}I")
            self._verify(holder, place, data)
            for index, number in enumerate(words.unpack_from(data)):
                if number:
                    self._shorten(number, once)
                    once(partial(self._finish_entry, holder, place, index, number, now_ns))
        features = superblock.fields.s_feature_ro_compat
        once(lambda: superblock.set(s_feature_ro_compat=features & ~RoCompat.orphan_present))

    def _blocks(self, holder: Draft) -> Iterator[int]:
        for run in self._parts.maps.runs(holder):
            yield from range(run.physical, run.physical + run.blocks)

    def _finish_entry(self, holder: Draft, place: int, index: int, number: int, now_ns: int) -> None:
        block = self._parts.transaction.modify(place, "orphan file")
        block[4 * index : 4 * index + 4] = bytes(4)
        if self._volume.has_checksums:
            tail = len(block) - ORPHAN_TAIL.size
            ORPHAN_TAIL.pack_into(block, tail, ORPHAN_MAGIC, self._checksum(holder, place, bytes(block)))
        self._finish(self._load(number), now_ns)

    def _verify(self, holder: Draft, place: int, data: bytes) -> None:
        magic, stored = ORPHAN_TAIL.unpack_from(data, len(data) - ORPHAN_TAIL.size)
        if magic != ORPHAN_MAGIC:
            raise self._volume.corrupt(f"orphan file: magic: expected {ORPHAN_MAGIC:#x}, found {magic:#x}")
        if self._volume.has_checksums and stored != self._checksum(holder, place, data):
            raise self._volume.corrupt(f"orphan file: block {place}: expected its checksum to hold, found another")

    def _checksum(self, holder: Draft, place: int, data: bytes) -> int:
        seed = crc32c_raw(self._parts.inodes.seed(holder), place.to_bytes(8, "little"))
        return crc32c_raw(seed, data[: len(data) - ORPHAN_TAIL.size])
