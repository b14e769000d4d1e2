"""Names for the types of partitions in a master boot record: one byte, by convention.

Knows: the ones in use. Refuses to know: what anyone does with a partition of a type.
"""

from __future__ import annotations

import re
from typing import Final

from blockwright.errors import UsageError

TYPES: Final = {
    0x01: "fat12",
    0x04: "fat16-small",
    0x05: "extended",
    0x06: "fat16",
    0x07: "ntfs-exfat",
    0x0B: "fat32",
    0x0C: "fat32-lba",
    0x0E: "fat16-lba",
    0x0F: "extended-lba",
    0x27: "windows-recovery",
    0x41: "prep",
    0x82: "swap",
    0x83: "linux",
    0x85: "linux-extended",
    0x8E: "lvm",
    0xA5: "freebsd",
    0xA6: "openbsd",
    0xA9: "netbsd",
    0xAF: "hfs",
    0xDA: "data",
    0xEA: "xbootldr",
    0xEE: "gpt-protective",
    0xEF: "esp",
    0xE8: "luks",
    0xFD: "raid",
}
"""Names by partition type."""

_NUMBERS: Final = {name: number for number, name in TYPES.items()} | {
    "efi": 0xEF,
    "ntfs": 0x07,
    "exfat": 0x07,
    "linux-generic": 0x83,
}
_NUMBER: Final = re.compile(r"(?:0x)?([0-9a-f]{1,2})", re.IGNORECASE)


def parse_type(text: str) -> int:
    """Return the type that ``text`` names (``linux``, ``fat32-lba``), or any as ``0x83``. Raises UsageError."""
    found = _NUMBERS.get(text.lower())
    if found is not None:
        return found
    match = _NUMBER.fullmatch(text)
    if match is None or int(match[1], 16) == 0:
        raise UsageError(f"partition type {text[:64]!r}: expected 0x01 to 0xff or one of {', '.join(_NUMBERS)}")
    return int(match[1], 16)


def type_name(os_type: int) -> str:
    """Return the type's name, or its number where it has none here."""
    return TYPES.get(os_type, f"0x{os_type:02x}")
