"""The superblock while it is changed, and how it is written so that no power cut leaves half of it.

It is two sectors, with what changes in the first and the checksum in the second. A disk writes whole sectors and no
more, so the checksum is made to stay what it is: four bytes of the first sector that mean nothing are chosen so
that the sum comes out the same. Then only the first sector is written.

Knows: fields, and the arithmetic of that. Refuses to know: when it is to be written.

Source: Linux 6.1, Documentation/filesystems/ext4/super.rst. CRC-32C is linear: what flipping a bit does to the sum
does not depend on the other bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from blockwright.codec.checksum import crc32c_raw
from blockwright.errors import UsageError
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.layout import (
    SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE,
    Incompat,
    RoCompat,
    Superblock,
    superblock_checksum,
)
from blockwright.units import SECTOR

_SUMMED: Final = 0x3FC
_FREE: Final = 0x1C4
"""The end of s_first_error_func, a string of 32 bytes that names a function of the kernel, if it is set at all."""


class LiveSuperblock:
    """The superblock's fields as they are in the transaction, and the bytes that it has on the device."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        volume = transaction.volume
        self.fields = volume.superblock
        self.block = volume.geometry.super_block
        self._offset = SUPERBLOCK_OFFSET % volume.block_size
        self._summed = bool(self.fields.s_feature_ro_compat & RoCompat.metadata_csum)
        self.changed = False
        self._stored = volume.read_bytes(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE)

    def set(self, **values: Any) -> None:
        """Change fields; taken back with the operation."""
        fields = self.fields
        before = {name: getattr(fields, name) for name in values}
        changed = self.changed

        def restore() -> None:
            vars(fields).update(before)
            self.changed = changed

        self._transaction.undo(restore)
        vars(fields).update(values)
        self.changed = True

    def add_free(self, blocks: int, inodes: int) -> None:
        """Count blocks and inodes that were freed, or allocated where they are negative.

        Who finds the file system need not find its counts true: the groups' are what counts, and these only sum up.
        """
        fields = self.fields
        self.set_free_blocks(min(max(fields.free_blocks_count + blocks, 0), fields.blocks_count))
        if inodes:
            self.set(s_free_inodes_count=min(max(fields.s_free_inodes_count + inodes, 0), fields.s_inodes_count))

    def set_free_blocks(self, count: int) -> None:
        """Have so many blocks counted as free."""
        self.set(s_free_blocks_count_lo=count & 0xFFFFFFFF, s_free_blocks_count_hi=count >> 32)

    def need(self, *, compat: int = 0, ro_compat: int = 0) -> None:
        """Have features on that what is being changed needs. Raises UsageError where there are no features yet."""
        fields = self.fields
        if not (compat & ~fields.s_feature_compat or ro_compat & ~fields.s_feature_ro_compat):
            return
        if not fields.s_rev_level:
            raise UsageError("edit: expected a file system of revision 1, since the change needs a feature, found 0")
        self.set(
            s_feature_compat=fields.s_feature_compat | compat,
            s_feature_ro_compat=fields.s_feature_ro_compat | ro_compat,
        )

    def put(self) -> None:
        """Put the fields into the transaction's block."""
        size = self._transaction.volume.block_size
        around = bytearray(self._transaction.volume.read_bytes(self.block * size, size))
        data = self._transaction.adopt(self.block, around)
        data[self._offset : self._offset + SUPERBLOCK_SIZE] = self._packed(self.fields)
        self.changed = False

    def write(self, **values: Any) -> None:
        """Change fields on the device at once, and nothing else of what is there."""
        self._write(self._packed(Superblock.parse(self._stored).replace(**values)))
        vars(self.fields).update(values)

    def write_home(self) -> None:
        """Write the transaction's block to its place."""
        self._write(bytes(self._transaction.blocks[self.block][self._offset : self._offset + SUPERBLOCK_SIZE]))

    def replay(self, block: bytes) -> None:
        """Write a superblock that the journal has; it keeps saying that the journal is to be looked at."""
        fields = Superblock.parse(block, self._offset)
        fields.s_feature_incompat |= Incompat.needs_recovery
        self._write(self._packed(fields, block[self._offset : self._offset + SUPERBLOCK_SIZE]))

    def _write(self, packed: bytes) -> None:
        part = packed if packed[SECTOR:] != self._stored[SECTOR:] else packed[:SECTOR]
        self._transaction.write_home(SUPERBLOCK_OFFSET, part)
        self._stored = packed
        self._transaction.volume.forget(self.block)

    def _packed(self, fields: Superblock, around: bytes | None = None) -> bytes:
        """Return the 1024 bytes that fields make, with the checksum that is on the device where that can be.

        What no field names comes from ``around``, which is what is on the device if it is not given.
        """
        data = bytearray(self._stored if around is None else around)
        fields.pack_into(data)
        return keep_sum(self._stored, data) if self._summed else bytes(data)


def keep_sum(stored: bytes, wanted: bytes | bytearray) -> bytes:
    """Return what is wanted of a superblock, with a checksum that also holds while only one sector of it is written.

    The sum of the first sector is made to stay what it is, so that each sector goes with the old and the new other.
    """
    data = bytearray(wanted[:SECTOR]) + stored[SECTOR:]
    _keep_sum(data, int.from_bytes(stored[_SUMMED:], "little"))
    if wanted[SECTOR:_SUMMED] != stored[SECTOR:_SUMMED]:
        data[SECTOR:_SUMMED] = wanted[SECTOR:_SUMMED]
        data[_SUMMED:] = superblock_checksum(data).to_bytes(4, "little")
    return bytes(data)


def _keep_sum(data: bytearray, wanted: int) -> None:
    """Choose the four free bytes so that the checksum is ``wanted``."""
    data[_FREE : _FREE + 4] = bytes(4)
    missing = crc32c_raw(0xFFFFFFFF, bytes(data[:_SUMMED])) ^ wanted
    value = 0
    for bit, column in enumerate(_inverse()):
        if missing >> bit & 1:
            value ^= column
    data[_FREE : _FREE + 4] = value.to_bytes(4, "little")


@lru_cache(maxsize=1)
def _inverse() -> list[int]:
    """Return, for each bit of the sum, the bits to flip in the free bytes so that only that one changes.

    Gauss and Jordan's elimination over bits: each row is what a free bit does to the sum, and which bits were mixed.
    """
    rows = []
    nothing = crc32c_raw(0, bytes(_SUMMED))
    for bit in range(32):
        probe = bytearray(_SUMMED)
        probe[_FREE : _FREE + 4] = (1 << bit).to_bytes(4, "little")
        rows.append([crc32c_raw(0, bytes(probe)) ^ nothing, 1 << bit])
    for bit in range(32):
        pivot = next(index for index in range(bit, 32) if rows[index][0] >> bit & 1)
        rows[bit], rows[pivot] = rows[pivot], rows[bit]
        for index in range(32):
            if index != bit and rows[index][0] >> bit & 1:
                rows[index][0] ^= rows[bit][0]
                rows[index][1] ^= rows[bit][1]
    return [mixed for _sum, mixed in rows]
