"""One transaction as the journal holds it, and the journal's superblock that says whether it counts.

The log is empty between transactions: each is brought home before the next begins. So none ever needs a revocation,
for the log never holds an older content of a block that has become somebody's data.

Knows: the form of descriptors, tags and commit blocks, of every version. Refuses to know: the order of writes.

Source: Linux 6.1, Documentation/filesystems/ext4/journal.rst.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Final

from blockwright.codec.checksum import crc32c_raw
from blockwright.codec.record import Buffer
from blockwright.epoch import now_ns
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.journal import COMPAT_CHECKSUM, Journal, crc32_be
from blockwright.fs.ext4.layout import (
    JBD2_COMMIT,
    JBD2_DESCRIPTOR,
    JBD2_MAGIC,
    JBD2_SUPERBLOCK_V1,
    JOURNAL_HEADER,
    JournalIncompat,
    JournalTagFlag,
)
from blockwright.units import SECTOR, MiB

_MAGIC: Final = JBD2_MAGIC.to_bytes(4, "big")
_COMMIT: Final = Struct(">BB2xI28x QI")
_CRC32: Final = 1
"""h_chksum_type of a commit block with a CRC-32 of the transaction."""
_SUMMED: Final = 1024
_UUID: Final = 16
_CHUNK: Final = MiB


class LogWriter:
    """Writes transactions into a journal whose log is empty. Raises Corrupt where the log leaves the journal."""

    def __init__(self, transaction: Transaction, journal: Journal) -> None:
        journal.check_log()
        self._transaction = transaction
        self._journal = journal
        self._size = transaction.volume.block_size
        self._checked = journal.has_checksums
        self._wide = bool(journal.incompat & JournalIncompat.bit64)
        room = self._size - JOURNAL_HEADER.size - (4 if self._checked else 0) - _UUID
        self._tags_per_block = room // journal.tag_bytes()
        self._blocks = journal.last - journal.first
        self.sequence = journal.superblock.s_sequence
        self._stored = bytearray(journal.block(0)[:_SUMMED])

    @property
    def most(self) -> int:
        """Blocks of the largest transaction that fits: each descriptor takes one of its own, the commit another."""
        return max(0, (self._blocks - 3) * self._tags_per_block // (self._tags_per_block + 1))

    def write_body(self, blocks: Mapping[int, Buffer]) -> bytes:
        """Write descriptors and blocks into the log; return the commit block that makes them count."""
        place = self._journal.first
        crc = 0xFFFFFFFF
        legacy = bool(self._journal.compat & COMPAT_CHECKSUM)
        out: list[tuple[int, bytes]] = []
        numbers = sorted(blocks)
        for at in range(0, len(numbers), self._tags_per_block):
            part = numbers[at : at + self._tags_per_block]
            bodies = [_escaped(blocks[number]) for number in part]
            descriptor = self._descriptor(part, bodies)
            for data in (descriptor, *(body for body, _ in bodies)):
                out.append((self._journal.place(place), data))
                crc = crc32_be(crc, data) if legacy else crc
                place += 1
            if len(out) * self._size >= _CHUNK:
                self._write(out)
                out.clear()
        self._write(out)
        self._commit_place = self._journal.place(place)
        return self._commit(crc if legacy else None)

    def write_commit(self, commit: bytes) -> None:
        """Write the commit block behind what ``write_body`` wrote."""
        self._transaction.write_home(self._commit_place * self._size, commit)

    def write_superblock(self, *, counts: bool) -> None:
        """Have the journal's superblock say whether the log holds a transaction, within one sector."""
        start = self._journal.first if counts else 0
        self._stored[0x18:0x20] = self.sequence.to_bytes(4, "big") + start.to_bytes(4, "big")
        if self._checked:
            self._stored[0xFC:0x100] = bytes(4)
            checksum = crc32c_raw(0xFFFFFFFF, bytes(self._stored))
            self._stored[0xFC:0x100] = checksum.to_bytes(4, "big")
        self._transaction.write_home(self._journal.position, self._stored[:SECTOR])

    def advance(self) -> None:
        """Use the next sequence number: what the log holds of this one never counts again."""
        self.sequence = self.sequence + 1 & 0xFFFFFFFF

    # -- parts -----------------------------------------------------------------------------------------------

    def _write(self, out: list[tuple[int, bytes]]) -> None:
        """Write blocks, those side by side together."""
        for first, parts in _side_by_side(out):
            self._transaction.write_home(first * self._size, b"".join(parts))

    def _header(self, kind: int) -> bytes:
        return JOURNAL_HEADER.pack(JBD2_MAGIC, kind, self.sequence)

    def _descriptor(self, numbers: list[int], bodies: list[tuple[bytes, bool]]) -> bytes:
        journal = self._journal
        uuid = bytes(_UUID) if journal.superblock.h_blocktype == JBD2_SUPERBLOCK_V1 else journal.superblock.s_uuid
        start = crc32c_raw(journal.seed, self.sequence.to_bytes(4, "big"))
        parts = [self._header(JBD2_DESCRIPTOR)]
        for index, (number, (body, escaped)) in enumerate(zip(numbers, bodies, strict=True)):
            flags = (
                JournalTagFlag.same_uuid * (index > 0)
                | JournalTagFlag.last * (index == len(numbers) - 1)
                | JournalTagFlag.escape * escaped
            )
            checksum = crc32c_raw(start, body) if self._checked else 0
            parts.append(self._tag(number, int(flags), checksum))
            if not index:
                parts.append(uuid)
        block = b"".join(parts).ljust(self._size, b"\0")
        if self._checked:
            block = block[:-4] + crc32c_raw(journal.seed, block[:-4] + bytes(4)).to_bytes(4, "big")
        return block

    def _tag(self, number: int, flags: int, checksum: int) -> bytes:
        low, high, incompat = number & 0xFFFFFFFF, number >> 32, self._journal.incompat
        if high and not self._wide:
            raise self._transaction.volume.unsupported(f"journal: block {number} needs 64 bits, which it has not")
        if incompat & JournalIncompat.csum_v3:
            return b"".join(value.to_bytes(4, "big") for value in (low, flags, high, checksum))
        tag = low.to_bytes(4, "big") + (checksum & 0xFFFF).to_bytes(2, "big") + flags.to_bytes(2, "big")
        if self._wide:
            tag += high.to_bytes(4, "big")
        return tag.ljust(self._journal.tag_bytes(), b"\0")

    def _commit(self, crc: int | None) -> bytes:
        legacy = (0, 0, 0) if crc is None else (_CRC32, 4, crc)
        block = (self._header(JBD2_COMMIT) + _COMMIT.pack(*legacy, *divmod(now_ns(), 1_000_000_000))).ljust(
            self._size, b"\0"
        )
        if self._checked:
            checksum = crc32c_raw(self._journal.seed, block)
            block = block[:16] + checksum.to_bytes(4, "big") + block[20:]
        return block


def _escaped(data: Buffer) -> tuple[bytes, bool]:
    """Return a block as it is logged, and whether it would look like the journal's own."""
    body = bytes(data)
    return (bytes(4) + body[4:], True) if body[:4] == _MAGIC else (body, False)


def _side_by_side(out: list[tuple[int, bytes]]) -> Iterator[tuple[int, list[bytes]]]:
    first, parts = -1, list[bytes]()
    for place, data in out:
        if parts and place == first + len(parts):
            parts.append(data)
            continue
        if parts:
            yield first, parts
        first, parts = place, [data]
    if parts:
        yield first, parts
