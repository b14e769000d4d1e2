"""The journal of an ext3 or ext4 file system as a log: its superblock, transactions, tags and revocations.

Knows: the jbd2 format, versions 1 and 2, and where the log ends.
Refuses to know: what the logged blocks mean, and how they are put over the file system (``replay``).

Source: Linux 6.1, Documentation/filesystems/ext4/journal.rst.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc32c_raw
from blockwright.fs.ext4.layout import (
    JBD2_COMMIT,
    JBD2_DESCRIPTOR,
    JBD2_MAGIC,
    JBD2_REVOKE,
    JBD2_SUPERBLOCK_V1,
    JBD2_SUPERBLOCK_V2,
    JOURNAL_HEADER,
    JournalIncompat,
    JournalSuperblock,
    JournalTagFlag,
)
from blockwright.fs.ext4.mapping import Run
from blockwright.fs.ext4.volume import Volume

COMPAT_CHECKSUM: Final = 0x1
"""s_feature_compat of the journal: commit blocks carry a CRC-32 of their transaction."""
CHECKSUM_CRC32C: Final = 4
KNOWN_INCOMPAT: Final = int(
    JournalIncompat.revoke
    | JournalIncompat.bit64
    | JournalIncompat.async_commit
    | JournalIncompat.csum_v2
    | JournalIncompat.csum_v3
    | JournalIncompat.fast_commit
)
DEFAULT_FAST_COMMIT_BLOCKS: Final = 256
MIN_BLOCKS: Final = 1024
"""Blocks that a journal has at least, without those for fast commits."""
_TAG: Final = Struct(">IHHI").unpack_from
_TAG_SHORT: Final = Struct(">IHH").unpack_from
_TAG3: Final = Struct(">IIII").unpack_from
_COMMIT: Final = Struct(">III BB2x I28x QI").unpack_from
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_SPEC: Final = "ext4 journal"


class Tag(NamedTuple):
    """A logged block: where it belongs, where it lies in the journal, and the checksum it must have there."""

    block: int
    place: int
    escaped: bool
    checksum: int


class Commit(NamedTuple):
    """The end of a transaction."""

    checksum_type: int
    checksum_size: int
    checksum: int
    seconds: int
    nanoseconds: int


def crc32_be(value: int, data: bytes) -> int:
    """Return the CRC-32 that takes the most significant bit first, continued from ``value``, never inverted.

    That is the common CRC-32 with the bits of every byte and of the register the other way round.
    """
    start = int(f"{value:032b}"[::-1], 2) ^ 0xFFFFFFFF
    result = zlib.crc32(data.translate(_REVERSED), start) ^ 0xFFFFFFFF
    return int(f"{result:032b}"[::-1], 2)


class Journal:
    """A journal that lies in an inode's ``runs``; its superblock is read and bounded.

    ``first`` is the first block of the log, ``last`` the one behind its end, ``end`` that behind the fast commits,
    ``available`` that behind the inode's last.
    Raises Corrupt, Unsupported.
    """

    def __init__(self, volume: Volume, runs: list[Run]) -> None:
        self.volume = volume
        self._runs = runs
        self._starts = [run.logical for run in runs]
        raw = self.block(0)
        self.superblock = JournalSuperblock.parse(raw)
        self.position = self.place(0) * volume.block_size
        superblock = self.superblock
        if superblock.h_magic != JBD2_MAGIC or superblock.h_blocktype not in (JBD2_SUPERBLOCK_V1, JBD2_SUPERBLOCK_V2):
            raise self._corrupt(
                f"superblock: expected magic {JBD2_MAGIC:#x} and type 3 or 4, "
                f"found {superblock.h_magic:#x} and {superblock.h_blocktype}"
            )
        version2 = superblock.h_blocktype == JBD2_SUPERBLOCK_V2
        self.incompat = superblock.s_feature_incompat if version2 else 0
        self.compat = superblock.s_feature_compat if version2 else 0
        if self.incompat & ~KNOWN_INCOMPAT:
            raise volume.unsupported(
                f"journal: unknown features {self.incompat & ~KNOWN_INCOMPAT:#x}", self.position + 0x28
            )
        self.seed = crc32c_raw(0xFFFFFFFF, superblock.s_uuid)
        self.has_checksums = bool(self.incompat & (JournalIncompat.csum_v2 | JournalIncompat.csum_v3))
        self._check_bounds()
        if self.has_checksums:
            self._check_sums(raw)

    def _corrupt(self, message: str, block: int = 0) -> Exception:
        return self.volume.corrupt(f"journal: {message}", self.place(block) * self.volume.block_size, _SPEC)

    def _check_bounds(self) -> None:
        superblock = self.superblock
        if superblock.s_blocksize != self.volume.block_size:
            raise self._corrupt(f"block size: expected {self.volume.block_size}, found {superblock.s_blocksize}")
        self.available = self._runs[-1].logical + self._runs[-1].blocks
        self.end = superblock.s_maxlen
        self.last = self.end
        if self.end > self.available:
            raise self._corrupt(f"length: expected at most {self.available} blocks, found {self.end}")
        if self.incompat & JournalIncompat.fast_commit:
            self.last -= superblock.s_num_fc_blks or DEFAULT_FAST_COMMIT_BLOCKS
            if self.last < MIN_BLOCKS:
                raise self._corrupt(f"fast commits: expected {MIN_BLOCKS} blocks beside them, found {self.last}")
        self.first = superblock.s_first

    def check_log(self) -> None:
        """Raise Corrupt unless the log's first block and its start lie in the journal."""
        superblock = self.superblock
        if not 1 <= self.first < self.last:
            raise self._corrupt(f"first block: expected 1 to {self.last - 1}, found {self.first}")
        if superblock.s_start and not self.first <= superblock.s_start < self.last:
            raise self._corrupt(f"start: expected {self.first} to {self.last - 1}, found {superblock.s_start}")

    def _check_sums(self, raw: bytes) -> None:
        both = int(JournalIncompat.csum_v2 | JournalIncompat.csum_v3)
        if self.incompat & both == both or self.compat & COMPAT_CHECKSUM:
            raise self._corrupt("checksums: expected one version of them, found several")
        if self.superblock.s_checksum_type != CHECKSUM_CRC32C:
            raise self._corrupt(f"checksum type: expected 4 (crc32c), found {self.superblock.s_checksum_type}")
        expected = crc32c_raw(0xFFFFFFFF, raw[:0xFC] + b"\0\0\0\0" + raw[0x100:0x400])
        if self.volume.verify and self.superblock.s_checksum != expected:
            raise self._corrupt(f"checksum: expected {expected:#010x}, found {self.superblock.s_checksum:#010x}")

    # -- blocks ----------------------------------------------------------------------------------------------

    def place(self, logical: int) -> int:
        """Return the block of the file system that holds block ``logical`` of the journal."""
        index = bisect_right(self._starts, logical) - 1
        if index >= 0:
            run = self._runs[index]
            if logical < run.logical + run.blocks:
                return run.physical + logical - run.logical
        raise self.volume.corrupt(f"journal: expected block {logical} to be mapped, found a hole")

    def block(self, logical: int) -> bytes:
        """Return block ``logical`` of the journal."""
        return self.volume.blocks(self.place(logical), 1, "journal")

    def after(self, logical: int, count: int = 1) -> int:
        """Return the block of the log that is ``count`` behind ``logical``; the log is a ring."""
        logical += count
        return self.first + (logical - self.first) % (self.last - self.first)

    def header(self, block: bytes) -> tuple[int, int] | None:
        """Return (type, sequence) of a block of the log's own, or None for anything else."""
        magic, kind, sequence = JOURNAL_HEADER.unpack_from(block)
        return (kind, sequence) if magic == JBD2_MAGIC else None

    # -- parts of a transaction ------------------------------------------------------------------------------

    def tail_holds(self, block: bytes) -> bool:
        """Whether the checksum that closes a descriptor or revocation block is right, or none is kept."""
        if not self.has_checksums:
            return True
        return crc32c_raw(self.seed, block[:-4] + b"\0\0\0\0") == int.from_bytes(block[-4:], "big")

    def tag_bytes(self) -> int:
        """Return the bytes of a descriptor's tag, without a UUID."""
        if self.incompat & JournalIncompat.csum_v3:
            return 16
        size = 14 if self.incompat & JournalIncompat.csum_v2 else 12
        return size if self.incompat & JournalIncompat.bit64 else size - 4

    def tags(self, block: bytes, place: int) -> Iterator[Tag]:
        """Yield the tags of the descriptor that lies at ``place``; the logged blocks follow it in the ring."""
        size, end = self.tag_bytes(), len(block) - (4 if self.has_checksums else 0)
        wide, version3 = self.incompat & JournalIncompat.bit64, self.incompat & JournalIncompat.csum_v3
        at = JOURNAL_HEADER.size
        while at + size <= end:
            high = 0
            if version3:
                low, flags, high, checksum = _TAG3(block, at)
            elif wide:
                low, checksum, flags, high = _TAG(block, at)
            else:
                low, checksum, flags = _TAG_SHORT(block, at)
            place = self.after(place)
            at += size if flags & JournalTagFlag.same_uuid else size + 16
            yield Tag(high << 32 | low if wide else low, place, bool(flags & JournalTagFlag.escape), checksum)
            if flags & JournalTagFlag.last:
                return

    def data_holds(self, tag: Tag, sequence: int, data: bytes) -> bool:
        """Whether a logged block has the checksum that its tag says, or none is kept."""
        if not self.has_checksums:
            return True
        found = crc32c_raw(crc32c_raw(self.seed, sequence.to_bytes(4, "big")), data)
        return tag.checksum == (found if self.incompat & JournalIncompat.csum_v3 else found & 0xFFFF)

    def commit(self, block: bytes) -> Commit:
        """Return what a commit block says."""
        _magic, _kind, _sequence, *rest = _COMMIT(block)
        return Commit(*rest)

    def commit_holds(self, block: bytes) -> bool:
        """Whether a commit block's own checksum is right, or none is kept."""
        if not self.has_checksums:
            return True
        return crc32c_raw(self.seed, block[:16] + b"\0\0\0\0" + block[20:]) == int.from_bytes(block[16:20], "big")

    def revoked(self, block: bytes) -> list[int]:
        """Return the blocks that a revocation block names."""
        used = int.from_bytes(block[12:16], "big")
        end = len(block) - (4 if self.has_checksums else 0)
        if not 16 <= used <= end:
            raise self.volume.corrupt(f"journal: revocation: expected 16 to {end} bytes, found {used}", None, _SPEC)
        width = 8 if self.incompat & JournalIncompat.bit64 else 4
        return [int.from_bytes(block[at : at + width], "big") for at in range(16, used - width + 1, width)]


__all__ = ["JBD2_COMMIT", "JBD2_DESCRIPTOR", "JBD2_REVOKE", "Commit", "Journal", "Tag", "crc32_be"]
