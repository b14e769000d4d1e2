"""A directory's block while it is changed: entries put in, taken out, and laid out anew.

Knows: records, their room, and the checksum that closes a block. Refuses to know: which block a name belongs to.

Source: Linux 6.1, Documentation/filesystems/ext4 (directory, checksums).
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

from blockwright.fs.ext4.directory import block_checksum, long_length
from blockwright.fs.ext4.layout import DIR_ENTRY, DIR_TAIL, DIR_TAIL_SIZE, DIR_TAIL_TYPE, FileType
from blockwright.units import KiB

DOTS: Final = (b".", b"..")
_HEAD: Final = DIR_ENTRY.size
_LENGTH: Final = Struct("<H")
_INODE: Final = Struct("<I")
_unpack: Final = DIR_ENTRY.unpack_from


class Record(NamedTuple):
    """An entry that is in use."""

    name: bytes
    inode: int
    file_type: int

    @property
    def size(self) -> int:
        """The bytes that it needs."""
        return entry_size(len(self.name))


def entry_size(name_length: int) -> int:
    """Return the bytes that an entry of a name needs."""
    return _HEAD + name_length + 3 & ~3


class BlockFormat(NamedTuple):
    """What all directory blocks of a file system share."""

    size: int
    summed: bool

    @property
    def end(self) -> int:
        """The byte behind the entries."""
        return self.size - DIR_TAIL_SIZE if self.summed else self.size

    def length(self, value: int) -> int:
        """Return a record's length from its field."""
        return long_length(value, self.size) if self.size >= 64 * KiB else value

    def field(self, length: int) -> int:
        """Return the field that says a record's length."""
        if self.size < 64 * KiB or length < 64 * KiB - 1:
            return length
        return 0xFFFF

    def has_tail(self, block: bytes | bytearray) -> bool:
        """Whether the block closes as one with a checksum must."""
        zero, length, none, kind, _sum = DIR_TAIL.unpack_from(block, self.size - DIR_TAIL_SIZE)
        return (zero, length, none, kind) == (0, DIR_TAIL_SIZE, 0, DIR_TAIL_TYPE)

    def close(self, block: bytearray, seed: int) -> None:
        """Put the checksum into a block where the file system has one."""
        if self.summed:
            at = self.size - DIR_TAIL_SIZE
            DIR_TAIL.pack_into(block, at, 0, DIR_TAIL_SIZE, 0, DIR_TAIL_TYPE, 0)
            DIR_TAIL.pack_into(block, at, 0, DIR_TAIL_SIZE, 0, DIR_TAIL_TYPE, block_checksum(bytes(block), seed))

    # -- single entries ----------------------------------------------------------------------------------------
    # Blocks were judged by ``entries_in`` when they were read: every record lies within its block.

    def place_for(self, block: bytes | bytearray, need: int, start: int = 0) -> int | None:
        """Return where the first entry from byte ``start`` on lies that has ``need`` bytes to spare, or None."""
        end, at = self.end, start
        big = self.size >= 64 * KiB
        while at + _HEAD <= end:
            inode, length, name_length, _kind = _unpack(block, at)
            if big:
                length = long_length(length, self.size)
            used = (_HEAD + name_length + 3 & ~3) if inode else 0
            if length - used >= need and at + length <= end:
                return at
            if length < _HEAD:
                return None
            at += length
        return None

    def insert(self, block: bytearray, at: int, record: Record) -> int:
        """Put a record into the room that the entry at ``at`` has to spare; return where it lies."""
        inode, length, name_length, _kind = _unpack(block, at)
        length = self.length(length)
        used = (_HEAD + name_length + 3 & ~3) if inode else 0
        if used:
            _LENGTH.pack_into(block, at + 4, self.field(used))
        self._write(block, at + used, record, length - used)
        return at + used

    def _write(self, block: bytearray, at: int, record: Record, length: int) -> None:
        name = record.name
        DIR_ENTRY.pack_into(block, at, record.inode, self.field(length), len(name), record.file_type)
        block[at + _HEAD : at + _HEAD + len(name)] = name

    def find(self, block: bytes | bytearray, name: bytes) -> tuple[int, int] | None:
        """Return (byte of the entry before it or -1, byte of the entry) of a name, or None."""
        if name not in block:
            return None
        end, at, before = self.end, 0, -1
        while at + _HEAD <= end:
            inode, length, name_length, _kind = _unpack(block, at)
            if inode and name_length == len(name) and block[at + _HEAD : at + _HEAD + name_length] == name:
                return before, at
            length = self.length(length)
            if length < _HEAD:
                return None
            before, at = at, at + length
        return None

    def remove(self, block: bytearray, before: int, at: int) -> None:
        """Take the entry at ``at`` out: the one before it gets its room, or it is marked as unused."""
        _inode, length, _name, _kind = _unpack(block, at)
        length = self.length(length)
        if before < 0:
            _INODE.pack_into(block, at, 0)
            return
        room = at - before + length
        _LENGTH.pack_into(block, before + 4, self.field(room))
        block[at : at + min(length, _HEAD + 255)] = bytes(min(length, _HEAD + 255))

    def point(self, block: bytearray, at: int, inode: int) -> None:
        """Have the entry at ``at`` stand for another inode."""
        _INODE.pack_into(block, at, inode)

    # -- whole blocks ------------------------------------------------------------------------------------------

    def lay_out(self, block: bytearray, records: Iterable[Record]) -> None:
        """Fill a block with records, which fit, one behind the other; the last gets the room that is left."""
        block[:] = bytes(len(block))
        at, last, end = 0, -1, self.end
        for record in records:
            self._write(block, at, record, record.size)
            last, at = at, at + record.size
        if last < 0:
            DIR_ENTRY.pack_into(block, 0, 0, self.field(end), 0, 0)
        else:
            _LENGTH.pack_into(block, last + 4, self.field(end - last))


def dots(own: int, parent: int, *, typed: bool) -> list[Record]:
    """Return the entries that every directory begins with."""
    kind = FileType.directory if typed else 0
    return [Record(b".", own, kind), Record(b"..", parent, kind)]
