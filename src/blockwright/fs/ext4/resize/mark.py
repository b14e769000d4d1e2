"""A mark in a superblock's unused bytes that says whose work is half done where there is no journal to say it.

Knows: how a superblock is packed, with the mark and without. Refuses to know: what is being done.
"""

from __future__ import annotations

from typing import Final

from blockwright.codec.checksum import crc32c_raw
from blockwright.fs.ext4.edit.superblock import keep_sum
from blockwright.fs.ext4.layout import RoCompat, Superblock, superblock_checksum

MARK_OFFSET: Final = 0x1F4
"""The end of s_last_error_func, the name of a function of the kernel: in the sector that has s_state."""
MARK_SIZE: Final = 12
_NAME: Final = b"bw-size\0"


def mark_of(superblock: Superblock) -> bytes:
    """Return the mark of a file system that is being resized.

    It holds as long as nobody else has mounted or checked the file system.
    """
    facts = (superblock.s_mnt_count, superblock.s_mtime, superblock.s_wtime, superblock.s_lastcheck)
    text = superblock.s_uuid + b"".join(fact.to_bytes(4, "little") for fact in facts)
    return _NAME + crc32c_raw(0xFFFFFFFF, text).to_bytes(4, "little")


def is_marked(superblock: Superblock, data: bytes) -> bool:
    """Whether a superblock's bytes carry its mark."""
    return data[MARK_OFFSET : MARK_OFFSET + MARK_SIZE] == mark_of(superblock)


def pack_home(superblock: Superblock, stored: bytes, *, marked: bool = False) -> bytes:
    """Return the primary superblock's 1024 bytes, whose checksum holds while only one sector of them is written.

    Bytes that no field names stay as ``stored``, but for an old mark.
    """
    data = bytearray(stored)
    superblock.pack_into(data)
    if marked:
        data[MARK_OFFSET : MARK_OFFSET + MARK_SIZE] = mark_of(superblock)
    elif data[MARK_OFFSET : MARK_OFFSET + len(_NAME)] == _NAME:
        data[MARK_OFFSET : MARK_OFFSET + MARK_SIZE] = bytes(MARK_SIZE)
    if superblock.s_feature_ro_compat & RoCompat.metadata_csum:
        return keep_sum(stored, data)
    return bytes(data)


def pack_copy(superblock: Superblock) -> bytes:
    """Return the 1024 bytes of a backup, with its checksum."""
    data = bytearray(superblock.pack())
    if superblock.s_feature_ro_compat & RoCompat.metadata_csum:
        data[0x3FC:] = superblock_checksum(data).to_bytes(4, "little")
    return bytes(data)
