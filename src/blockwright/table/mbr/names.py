"""Names for the types of partitions in a master boot record: one byte, by convention.

Knows: the ones in use. Refuses to know: what anyone does with a partition of a type.
"""

from __future__ import annotations

from typing import Final

_TYPES: Final = {
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
    0xFD: "raid",
}


def type_name(os_type: int) -> str:
    """Return the type's name, or its number where it has none here."""
    return _TYPES.get(os_type, f"0x{os_type:02x}")
