"""What is told by its marks and not read: other file systems, and what holds one.

Knows: where the marks lie. Refuses to know: whether what lies behind them holds.

Sources: each one's own description of its first blocks; for ISO 9660, ECMA-119, section 8; for LUKS, its on-disk
formats 1.1 and 2; for LVM2, LVM2's lib/label/label.h; for RAID, Linux, include/uapi/linux/raid/md_p.h.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice


class _Mark(NamedTuple):
    """Bytes that lie at one place of what is called ``name``."""

    name: str
    offset: int
    magic: bytes


_MARKS: Final = (
    _Mark("luks", 0, b"LUKS\xba\xbe"),
    _Mark("bitlocker", 3, b"-FVE-FS-"),
    *(_Mark("lvm2", sector * 512 + 24, b"LVM2 001") for sector in range(4)),
    *(_Mark("raid", place, b"\xfc\x4e\x2b\xa9") for place in (0, 4096)),
    _Mark("bcache", 4096 + 24, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),
    _Mark("verity", 0, b"verity\0\0"),
    _Mark("swap", 4096 - 10, b"SWAPSPACE2"),
    _Mark("xfs", 0, b"XFSB"),
    _Mark("btrfs", (64 << 10) + 64, b"_BHRfS_M"),
    _Mark("bcachefs", 4096 + 24, bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef")),
    _Mark("ntfs", 3, b"NTFS    "),
    _Mark("refs", 3, b"ReFS\0\0\0\0"),
    _Mark("exfat", 3, b"EXFAT   "),
    _Mark("f2fs", 1024, b"\x10\x20\xf5\xf2"),
    _Mark("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    _Mark("squashfs", 0, b"hsqs"),
    _Mark("hfsplus", 1024, b"H+\0\4"),
    _Mark("hfsplus", 1024, b"HX\0\5"),
    _Mark("apfs", 32, b"NXSB"),
    _Mark("iso9660", (32 << 10) + 1, b"CD001\1"),
)
"""Containers come first, since what they hold may lie behind their mark. A member of a RAID whose mark is at its end
is told as what it holds."""
_LENGTH: Final = max(mark.offset + len(mark.magic) for mark in _MARKS)


def identify(device: BlockDevice) -> str:
    """Return what the device holds by its marks, such as ``xfs`` or ``luks``; empty where none is known."""
    head = device.read(0, min(device.size, _LENGTH))
    return next((mark.name for mark in _MARKS if head.startswith(mark.magic, mark.offset)), "")
