"""The master boot record's bytes, and those of an extended boot record, which has the same form.

There is no standard; this is what every system reads (UEFI 2.10 section 5.2.1 describes the record itself).

Knows: fields. Refuses to know: where records lie, and what their numbers count from.
"""

from __future__ import annotations

from typing import Final

from blockwright.codec.record import Buffer, Record, raw, u8, u16, u32

SIGNATURE: Final = 0xAA55
PARTITIONS: Final = 446
"""Where the four entries begin."""
COUNT: Final = 4
DISK_SIGNATURE: Final = 440

EMPTY: Final = 0x00
PROTECTIVE: Final = 0xEE
EXTENDED: Final = (0x05, 0x0F, 0x85)
"""Types that hold a chain of logical partitions: CHS, LBA, and Linux's own."""
ACTIVE: Final = 0x80
BOOT_CODE: Final = 440
"""Bytes in front that a BIOS runs; the disk signature follows."""
MAX_LOGICAL: Final = 252
"""Logical partitions that are read and written: Linux numbers 255 partitions of a disk at most."""
MAX_SECTORS: Final = 0xFFFFFFFF
"""The largest start and the largest size, in sectors, that an entry can say."""
_BEYOND: Final = b"\xfe\xff\xff"
"""What stands for an address in heads and cylinders that has no room there."""


class Entry(Record, size=16):
    """One of the four partitions of a record. Starts and sizes count in the disk's sectors."""

    boot_indicator: int = u8(0)
    starting_chs: bytes = raw(1, 3)
    os_type: int = u8(4)
    ending_chs: bytes = raw(5, 3)
    starting_lba: int = u32(8)
    size_in_lba: int = u32(12)

    @property
    def is_extended(self) -> bool:
        """Whether the entry holds, or leads to, logical partitions."""
        return self.os_type in EXTENDED and self.size_in_lba > 0

    @property
    def is_data(self) -> bool:
        """Whether the entry is a partition of its own."""
        return self.os_type not in (EMPTY, *EXTENDED) and self.size_in_lba > 0


class Signature(Record, size=512):
    """What makes a sector a boot record, and the number that tells this disk from others."""

    disk_signature: int = u32(DISK_SIGNATURE)
    signature: int = u16(510, SIGNATURE)


def chs(lba: int) -> bytes | None:
    """Return the sector's address in 255 heads and 63 sectors a track, None where that has no room for it."""
    cylinder, rest = divmod(lba, 255 * 63)
    if cylinder > 1023:
        return None
    head, sector = divmod(rest, 63)
    return bytes((head, sector + 1 | cylinder >> 2 & 0xC0, cylinder & 0xFF))


def entry_at(start: int, size: int, os_type: int, *, base: int = 0, active: bool = False) -> Entry:
    """Return the entry of ``size`` sectors from ``start`` on, counted from sector ``base`` in its linear address."""
    return Entry(
        boot_indicator=ACTIVE if active else 0,
        starting_chs=chs(start) or _BEYOND,
        os_type=os_type,
        ending_chs=chs(start + size - 1) or _BEYOND,
        starting_lba=start - base,
        size_in_lba=size,
    )


def entries(sector: Buffer) -> list[Entry]:
    """Return the four entries of a record."""
    return [Entry.parse(sector, PARTITIONS + 16 * index) for index in range(COUNT)]


def is_signed(sector: Buffer) -> bool:
    """Whether the sector ends, after 512 bytes, as a boot record does."""
    return bool(Signature.parse(sector).signature == SIGNATURE)
