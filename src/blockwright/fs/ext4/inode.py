"""An inode as it is read: its fields joined, scaled and cut to what its size really holds.

Knows: which fields an inode of a given size has, and how it is summed.
Refuses to know: where inodes lie, and what their blocks hold.

Source: Linux 6.1, Documentation/filesystems/ext4 (inodes, ifork, checksums).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from blockwright.codec.checksum import crc32c_raw
from blockwright.fs.ext4.layout import GOOD_OLD_INODE_SIZE, InodeFlag, decode_time

_SMALL: Final = Struct("<HHIIIIIHHIII60sIIIIHHHHH2x").unpack_from
_EXTRA: Final = Struct("<HH").unpack_from
_TIME: Final = Struct("<I").unpack_from

S_IFMT: Final = 0o170000
S_IFREG: Final = 0o100000
S_IFDIR: Final = 0o040000
S_IFLNK: Final = 0o120000
S_IFCHR: Final = 0o020000
S_IFBLK: Final = 0o060000
S_IFIFO: Final = 0o010000
S_IFSOCK: Final = 0o140000

FAST_SYMLINK: Final = 60
"""Bytes of i_block: a shorter target lies there."""

KINDS: Final = (0, S_IFREG, S_IFDIR, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK)
"""A directory entry's file type byte to the type bits of a mode."""


class Inode:
    """One inode. Sizes in bytes; ``blocks`` as stored, in units that ``flags`` and the file system say.

    ``raw`` holds all of the inode's bytes, ``position`` where they lie on the device.
    """

    __slots__ = (
        "block",
        "blocks",
        "dtime",
        "extra_isize",
        "file_acl",
        "flags",
        "generation",
        "gid",
        "links",
        "mode",
        "number",
        "position",
        "raw",
        "size",
        "stored_checksum",
        "uid",
        "version",
    )
    block: bytes
    blocks: int
    dtime: int
    file_acl: int
    flags: int
    generation: int
    gid: int
    links: int
    mode: int
    size: int
    stored_checksum: int
    uid: int
    version: int

    def __init__(self, number: int, raw: bytes, position: int) -> None:
        """Read the fields; ``raw`` holds at least 128 bytes. Never fails."""
        (
            mode,
            uid,
            size_lo,
            _atime,
            _ctime,
            _mtime,
            self.dtime,
            gid,
            self.links,
            blocks_lo,
            self.flags,
            self.version,
            self.block,
            self.generation,
            acl_lo,
            size_high,
            _faddr,
            blocks_high,
            acl_high,
            uid_high,
            gid_high,
            checksum_lo,
        ) = _SMALL(raw)
        self.number = number
        self.raw = raw
        self.position = position
        self.mode = mode
        self.uid = uid_high << 16 | uid
        self.gid = gid_high << 16 | gid
        self.size = size_high << 32 | size_lo
        self.blocks = blocks_high << 32 | blocks_lo
        self.file_acl = acl_high << 32 | acl_lo
        self.extra_isize = 0
        self.stored_checksum = checksum_lo
        if len(raw) > GOOD_OLD_INODE_SIZE:
            self.extra_isize, checksum_hi = _EXTRA(raw, GOOD_OLD_INODE_SIZE)
            if self.extra_isize >= 4:
                self.stored_checksum |= checksum_hi << 16

    @property
    def kind(self) -> int:
        """The type bits of the mode."""
        return self.mode & S_IFMT

    @property
    def fast_symlink(self) -> bool:
        """Whether a symbolic link's target lies in ``block``."""
        return self.size < FAST_SYMLINK and not self.flags & (InodeFlag.extents | InodeFlag.inline_data)

    def _extra(self, offset: int) -> int | None:
        """Return the 32-bit field at ``offset`` behind the small inode, or None where the inode has none."""
        end = GOOD_OLD_INODE_SIZE + self.extra_isize
        if offset + 4 > end or offset + 4 > len(self.raw):
            return None
        return int(_TIME(self.raw, offset)[0])

    def _time(self, offset: int, extra_offset: int) -> int:
        return decode_time(_TIME(self.raw, offset)[0], self._extra(extra_offset) or 0)

    @property
    def atime_ns(self) -> int:
        """The time of the last access."""
        return self._time(0x8, 0x8C)

    @property
    def ctime_ns(self) -> int:
        """The time of the last change of the inode."""
        return self._time(0xC, 0x84)

    @property
    def mtime_ns(self) -> int:
        """The time of the last change of the content."""
        return self._time(0x10, 0x88)

    @property
    def crtime_ns(self) -> int | None:
        """The time of creation, or None in an inode without room for it."""
        seconds = self._extra(0x90)
        return None if seconds is None else decode_time(seconds, self._extra(0x94) or 0)

    @property
    def projid(self) -> int | None:
        """The project, or None in an inode without room for it."""
        return self._extra(0x9C)

    def device_number(self) -> tuple[int, int]:
        """Return (major, minor) of a device: the old 16-bit form in i_block[0], else the new one in i_block[1]."""
        old, new = int.from_bytes(self.block[:4], "little"), int.from_bytes(self.block[4:8], "little")
        if old:
            return old >> 8 & 0xFF, old & 0xFF
        return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00

    def checksum(self, seed: int) -> int:
        """Return the checksum that the inode must store: 32 bits, or 16 in an inode without the high half."""
        raw = self.raw
        start = crc32c_raw(seed, self.number.to_bytes(4, "little") + self.generation.to_bytes(4, "little"))
        if len(raw) > GOOD_OLD_INODE_SIZE and self.extra_isize >= 4:
            return crc32c_raw(start, b"".join((raw[:0x7C], b"\0\0", raw[0x7E:0x82], b"\0\0", raw[0x84:])))
        return crc32c_raw(start, b"".join((raw[:0x7C], b"\0\0", raw[0x7E:]))) & 0xFFFF

    def checksum_holds(self, seed: int) -> bool:
        """Whether the stored checksum is right, or the inode was never written (all zeros)."""
        return self.stored_checksum == self.checksum(seed) or not any(self.raw)
