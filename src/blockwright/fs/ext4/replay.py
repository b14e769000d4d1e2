"""An unclean journal replayed in memory: what the file system holds once its log is applied, nothing written.

Knows: which logged blocks count, and how a device reads with them in place.
Refuses to know: the journal's format (``journal``), and orphans, which reading does not need.

Source: Linux 6.1, Documentation/filesystems/ext4/journal.rst.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.fs.ext4.journal import (
    COMPAT_CHECKSUM,
    JBD2_COMMIT,
    JBD2_DESCRIPTOR,
    JBD2_REVOKE,
    Commit,
    Journal,
    crc32_be,
)
from blockwright.fs.ext4.layout import JBD2_MAGIC, Compat, Incompat, InodeFlag, JournalIncompat
from blockwright.fs.ext4.mapping import block_runs
from blockwright.fs.ext4.patched import PatchedDevice
from blockwright.fs.ext4.volume import Volume

FAST_COMMIT_HEAD: Final = 0x0009
FAST_COMMIT_TAIL: Final = 0x0008
_TLV: Final = Struct("<HH").unpack_from
_START: Final = JBD2_MAGIC.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class Patch:
    """A block whose newest content lies in the journal, at ``place`` of the file system; ``escaped`` where its
    first four bytes, which look like the journal's own, were blanked there.
    """

    place: int
    escaped: bool


def needs_replay(volume: Volume) -> bool:
    """Whether the file system was not unmounted, so that its journal counts."""
    return bool(volume.superblock.s_feature_incompat & Incompat.needs_recovery)


def open_journal(volume: Volume) -> Journal:
    """Return the file system's journal. Raises Unsupported for one on another device, Corrupt for none."""
    superblock = volume.superblock
    if not superblock.s_journal_inum:
        raise volume.unsupported("journal: lies on another device, which is needed to recover the file system")
    inode = volume.inode(superblock.s_journal_inum)
    runs = [] if inode.flags & InodeFlag.inline_data else block_runs(volume, inode)
    if not runs or not inode.links:
        raise volume.corrupt(f"journal: expected blocks in inode {inode.number}, found none", inode.position)
    return Journal(volume, runs)


def patches(volume: Volume) -> dict[int, Patch]:
    """Return the blocks that the journal has newer content of; empty where it was checkpointed.

    Raises Corrupt, and Unsupported where fast commits would have to be replayed too.
    """
    if not volume.superblock.s_feature_compat & Compat.has_journal:
        return {}
    return read_log(open_journal(volume))[0]


def read_log(journal: Journal) -> tuple[dict[int, Patch], int]:
    """Return what ``patches`` does, and the sequence number behind the last transaction."""
    volume = journal.volume
    journal.check_log()
    start = journal.superblock.s_start
    found: dict[int, Patch] = {}
    sequence = journal.superblock.s_sequence
    if start:
        log = _Log(journal)
        sequence = log.find_end()
        found = log.replay(log.revocations())
    if journal.incompat & JournalIncompat.fast_commit and _has_fast_commits(journal, sequence):
        raise volume.unsupported(
            "journal: holds fast commits, which are not replayed; mount it or run e2fsck first",
            journal.place(journal.last + 1) * volume.block_size,
        )
    return found, sequence


def patched(volume: Volume, patch: Patch) -> bytes:
    """Return the content that the journal has of a block."""
    return _logged(volume.device, volume.block_size, patch)


def _logged(device: BlockDevice, size: int, patch: Patch) -> bytes:
    data = device.read(patch.place * size, size)
    return _START + data[4:] if patch.escaped else data


def replayed(volume: Volume) -> BlockDevice:
    """Return the volume's device with the journal's newest blocks in place, which is the device itself if none."""
    found = patches(volume)
    return ReplayedDevice(volume.device, volume.block_size, found) if found else volume.device


class _Log:
    """The transactions from the journal's start to its end."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.start = journal.superblock.s_start
        self.first = journal.superblock.s_sequence
        self.count = 0

    def find_end(self) -> int:
        """Find how many transactions were committed whole; return the sequence number behind the last."""
        journal = self.journal
        place, sequence, crc = self.start, self.first, 0xFFFFFFFF
        doubtful = False
        last_commit: Commit | None = None
        budget = journal.last - journal.first
        legacy = bool(journal.compat & COMPAT_CHECKSUM)
        while budget > 0:
            block = journal.block(place)
            header = journal.header(block)
            if header is None or header[1] != sequence:
                break
            steps = 1
            if header[0] == JBD2_DESCRIPTOR:
                doubtful |= not journal.tail_holds(block)
                tags = list(journal.tags(block, place))
                steps += len(tags)
                if legacy and steps <= budget:
                    crc = crc32_be(crc, block)
                    for tag in tags:
                        crc = crc32_be(crc, journal.block(tag.place))
            elif header[0] == JBD2_COMMIT:
                commit = journal.commit(block)
                if not journal.commit_holds(block) or (legacy and not _legacy_holds(commit, crc)):
                    break
                if doubtful:
                    if last_commit is not None and commit[3:] < last_commit[3:]:
                        break
                    raise journal.volume.corrupt(
                        f"journal: transaction {sequence}: is committed, and a descriptor's checksum does not hold",
                        journal.place(place) * journal.volume.block_size,
                    )
                last_commit, crc = commit, 0xFFFFFFFF
                sequence = sequence + 1 & 0xFFFFFFFF
                self.count += 1
            elif header[0] == JBD2_REVOKE:
                doubtful |= not journal.tail_holds(block)
            else:
                break
            budget -= steps
            place = journal.after(place, steps)
        return sequence

    def _blocks(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield (type, index of the transaction, place, bytes) of the log's own blocks up to its end."""
        journal, place, index = self.journal, self.start, 0
        while index < self.count:
            block = journal.block(place)
            header = journal.header(block)
            assert header is not None, "journal: find_end walked these blocks"
            yield header[0], index, place, block
            steps = 1
            if header[0] == JBD2_DESCRIPTOR:
                steps += sum(1 for _ in journal.tags(block, place))
            elif header[0] == JBD2_COMMIT:
                index += 1
            place = journal.after(place, steps)

    def revocations(self) -> dict[int, int]:
        """Return each revoked block with the last transaction that revokes it."""
        found: dict[int, int] = {}
        for kind, index, _place, block in self._blocks():
            if kind == JBD2_REVOKE:
                found.update(dict.fromkeys(self.journal.revoked(block), index))
        return found

    def replay(self, revoked: dict[int, int]) -> dict[int, Patch]:
        """Return the newest content of each logged block that no later transaction revokes."""
        journal = self.journal
        volume = journal.volume
        found: dict[int, Patch] = {}
        for kind, index, place, block in self._blocks():
            if kind != JBD2_DESCRIPTOR:
                continue
            sequence = self.first + index & 0xFFFFFFFF
            for tag in journal.tags(block, place):
                if revoked.get(tag.block, -1) >= index:
                    continue
                at = journal.place(tag.place)
                if not tag.block < volume.geometry.blocks_count:
                    raise volume.corrupt(
                        f"journal: tag: expected a block below {volume.geometry.blocks_count}, found {tag.block}",
                        journal.place(place) * volume.block_size,
                    )
                if journal.has_checksums and not journal.data_holds(tag, sequence, journal.block(tag.place)):
                    raise volume.corrupt(
                        f"journal: transaction {sequence}: logged block {tag.block}: checksum does not hold",
                        at * volume.block_size,
                    )
                found[tag.block] = Patch(at, tag.escaped)
        return found


def _legacy_holds(commit: Commit, crc: int) -> bool:
    """Whether a commit block's CRC-32 of its transaction is right, or was not kept."""
    kept = (commit.checksum_type, commit.checksum_size, commit.checksum)
    return kept in ((1, 4, crc), (0, 0, 0))


def _has_fast_commits(journal: Journal, sequence: int) -> bool:
    """Whether the fast commit area holds whole commits that follow transaction ``sequence - 1``.

    Linux leaves the area's first block unused: it starts at ``j_last + 1`` (fs/jbd2/journal.c, j_fc_first).
    """
    begun = False
    for place in range(journal.last + 1, journal.end):
        block = journal.block(place)
        at = 0
        while at + 4 <= len(block):
            tag, length = _TLV(block, at)
            value = block[at + 4 : at + 4 + length]
            if tag == FAST_COMMIT_HEAD and len(value) >= 8:
                begun = int.from_bytes(value[4:8], "little") == sequence
            elif tag == FAST_COMMIT_TAIL and begun:
                return True
            elif not 1 <= tag <= FAST_COMMIT_HEAD:
                return False
            if not begun:
                return False
            at += 4 + length
    return False


class ReplayedDevice(PatchedDevice):
    """The inner device with the journal's newest blocks in place."""

    def __init__(self, inner: BlockDevice, block_size: int, found: dict[int, Patch]) -> None:
        super().__init__(inner, block_size)
        self._patches = found
        self._order = sorted(found)

    def _within(self, offset: int, end: int) -> Sequence[int]:
        low = bisect_left(self._order, offset // self.block_size)
        return self._order[low : bisect_left(self._order, -(-end // self.block_size), low)]

    def _content(self, block: int) -> bytes:
        return _logged(self._inner, self.block_size, self._patches[block])
