"""Inodes as they are written, one behind the other, each with its checksum.

Knows: where each field goes. Refuses to know: nodes, and how blocks were found for them.

Source: Linux 6.1, Documentation/filesystems/ext4 (inodes, checksums).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from blockwright.codec.checksum import crc32c_raw
from blockwright.fs.ext4.form import EXTRA_INODE_SIZE, Form
from blockwright.fs.ext4.layout import GOOD_OLD_INODE_SIZE, encode_time
from blockwright.fs.ext4.plan_xattr import NO_BODY

NO_ATTRIBUTES: Final = (NO_BODY, 0)

SECTOR: Final = 512

_NUMBER_SIZE: Final = 8
_INODE: Final = Struct(
    "<I4x"  # number and generation, which the checksum covers first
    "HHIIII4xHHII4x60s"  # mode, uid, size, atime, ctime, mtime, gid, links, blocks, flags, block
    "4xII4xHHHH4x"  # generation, file_acl, size_high, faddr, blocks_high, file_acl_high, uid_high, gid_high, checksum
    "H2xIIIII8x96s"  # extra_isize, checksum_hi, ctime, mtime, atime extra, crtime and extra, version, project
)
_CHECKSUM: Final = Struct("<HHHH")
_CHECKSUM_OFFSET: Final = 0x7C
"""Low half of the checksum, two reserved bytes, i_extra_isize, high half."""
_OLD_LATEST: Final = 0x7FFFFFFF
_OLD_EARLIEST: Final = -0x80000000
"""Seconds that an inode of 128 bytes can hold."""


class InodeTable:
    """The inodes 1 to ``count``; those never put are zeros, as unused inodes must be."""

    __slots__ = ("_data", "_old", "_seed", "_size", "_summed", "_time", "_time_ns")

    def __init__(self, count: int, form: Form, seed: int) -> None:
        self._size = form.inode_size
        self._old = form.inode_size == GOOD_OLD_INODE_SIZE
        self._summed = form.metadata_csum
        self._data = bytearray(count * form.inode_size)
        self._seed = seed
        self._time_ns = 0
        self._time = (0, 0)

    def put(
        self,
        number: int,
        mode: int,
        owner: tuple[int, int],
        links: int,
        size: int,
        time_ns: int,
        flags: int,
        data: tuple[bytes, int],
        attributes: tuple[bytes, int] = NO_ATTRIBUTES,
    ) -> None:
        """Write an inode, all four of its times being ``time_ns``.

        ``data`` is i_block, 60 bytes, and how many bytes all blocks of the inode take; ``attributes`` the 96 bytes
        behind the fields, and the attribute block or 0.
        """
        if time_ns != self._time_ns:
            self._set_time(time_ns)
        (low, extra), (uid, gid) = self._time, owner
        (i_block, allocated), (body, attribute_block) = data, attributes
        sectors = allocated // SECTOR
        packed = _INODE.pack(
            number,
            mode,
            uid & 0xFFFF,
            size & 0xFFFFFFFF,
            low,
            low,
            low,
            gid & 0xFFFF,
            links,
            sectors & 0xFFFFFFFF,
            flags,
            i_block,
            attribute_block & 0xFFFFFFFF,
            size >> 32,
            sectors >> 32,
            attribute_block >> 32,
            uid >> 16,
            gid >> 16,
            EXTRA_INODE_SIZE,
            extra,
            extra,
            extra,
            low,
            extra,
            body,
        )
        at = (number - 1) * self._size
        if self._old:
            packed = packed[: _NUMBER_SIZE + GOOD_OLD_INODE_SIZE]
        self._data[at : at + self._size] = packed[_NUMBER_SIZE:]
        if self._summed:
            checksum = crc32c_raw(self._seed, packed)
            place = at + _CHECKSUM_OFFSET
            if self._old:
                self._data[place : place + 2] = (checksum & 0xFFFF).to_bytes(2, "little")
            else:
                _CHECKSUM.pack_into(self._data, place, checksum & 0xFFFF, 0, EXTRA_INODE_SIZE, checksum >> 16)

    def _set_time(self, time_ns: int) -> None:
        """Have ``_time`` as the fields say it."""
        self._time_ns = time_ns
        seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
        if 0 <= seconds < 1 << 31:  # no epoch bits, and no call
            self._time = seconds, nanoseconds << 2
        elif self._old:
            self._time = max(_OLD_EARLIEST, min(seconds, _OLD_LATEST)) & 0xFFFFFFFF, 0
        else:
            self._time = encode_time(time_ns)

    def __len__(self) -> int:
        """Return the table's bytes."""
        return len(self._data)

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Fill ``buffer`` from the table: it is a source of segments itself, not copied once more."""
        buffer[:] = memoryview(self._data)[offset : offset + len(buffer)]


def device_number(major: int, minor: int) -> bytes:
    """Return i_block of a device: the old 16-bit number where it fits, otherwise the new one in the next word."""
    if major < 256 and minor < 256:
        return (major << 8 | minor).to_bytes(4, "little") + bytes(56)
    number = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
    return bytes(4) + number.to_bytes(4, "little") + bytes(52)
