"""The persistent bitmaps of an image: which are there, and which ranges of the disk they mark.

Knows: the bitmap directory and tables. Refuses to know: what a mark means to whoever keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blockwright.codec.record import Record, u8, u16, u32, u64
from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, LimitExceeded
from blockwright.format.qcow2.device import read_entries
from blockwright.format.qcow2.layout import (
    AUTOCLEAR_BITMAPS,
    SPEC,
    ExtensionType,
    ImageHeader,
    check_run,
)
from blockwright.units import MiB, align_up, ceil_div

MAX_BITMAPS: Final = 65535
MAX_DIRECTORY: Final = 64 * MiB
MAX_TABLE_ENTRIES: Final = 1 << 22
IN_USE: Final = 1
"""The bitmap was not stored when the image was closed, and says nothing."""
AUTO: Final = 2
"""Changes are recorded."""
_EXTRA_COMPATIBLE: Final = 4
DIRTY: Final = 1
"""The one type of bitmaps: what changed."""
TABLE_OFFSET: Final = 0x00FF_FFFF_FFFF_FE00
ALL_ONES: Final = 1
_SOME: Final = re.compile(rb"[^\0]{1,64}", re.DOTALL)
"""Bytes with bits in them, few enough that numbers of them are cheap to shift; whoever reads joins what touches."""


class BitmapsExtension(Record, size=24, byte_order=">"):
    """The header extension that says where the directory is."""

    count: int = u32(0)
    reserved: int = u32(4)
    directory_size: int = u64(8)
    directory_offset: int = u64(16)


class DirectoryEntry(Record, size=24, byte_order=">"):
    """The fixed part of an entry; extra data and the name follow, padded to 8 bytes."""

    table_offset: int = u64(0)
    table_size: int = u32(8)
    flags: int = u32(12)
    type: int = u8(16)
    granularity_bits: int = u8(17)
    name_size: int = u16(18)
    extra_size: int = u32(20)


@dataclass(frozen=True, slots=True)
class Bitmap:
    """One bitmap: a bit for each ``granularity`` bytes of the disk. ``consistent`` says that it can be used."""

    name: str
    granularity: int
    flags: int
    table_offset: int
    table_size: int
    valid: bool
    type: int = DIRTY
    extra: bytes = b""
    at: int = 0
    """Where the entry lies in the file."""

    @property
    def consistent(self) -> bool:
        """Whether the marks are what they were meant to be."""
        known = self.type == DIRTY and (not self.extra or bool(self.flags & _EXTRA_COMPATIBLE))
        return self.valid and known and not self.flags & IN_USE

    def pack(self) -> bytes:
        """Return the directory's entry."""
        name = self.name.encode("utf-8", "surrogateescape")
        entry = DirectoryEntry(
            table_offset=self.table_offset,
            table_size=self.table_size,
            flags=self.flags,
            type=self.type,
            granularity_bits=self.granularity.bit_length() - 1,
            name_size=len(name),
            extra_size=len(self.extra),
        )
        packed = entry.pack() + self.extra + name
        return packed.ljust(align_up(len(packed), 8), b"\0")


def read_bitmaps(file: BlockDevice, image: ImageHeader) -> list[Bitmap]:
    """Return the bitmaps of an image. Raises Corrupt, LimitExceeded, OSError."""
    data = image.extension(ExtensionType.BITMAPS)
    if data is None:
        return []
    if len(data) < BitmapsExtension.SIZE:
        raise Corrupt(f"qcow2 bitmaps: expected an extension of 24 bytes, found {len(data)}", spec=SPEC)
    where = BitmapsExtension.parse(data)
    if where.count > MAX_BITMAPS or where.directory_size > MAX_DIRECTORY:
        raise LimitExceeded(f"qcow2 bitmaps: {where.count} bitmaps in {where.directory_size} bytes are too many")
    check_run(where.directory_offset, where.directory_size, image.geometry, file.size, "bitmap directory", 0)
    length = max(0, min(where.directory_size, file.size - where.directory_offset))
    directory = file.read(where.directory_offset, length)
    valid = bool(image.record.autoclear_features & AUTOCLEAR_BITMAPS)
    found, position = [], 0
    for number in range(where.count):
        bitmap, position = _entry(directory, position, number, where.directory_offset, valid=valid)
        entries = ceil_div(ceil_div(ceil_div(image.record.size, bitmap.granularity), 8), image.geometry.cluster)
        if bitmap.table_size > max(MAX_TABLE_ENTRIES, entries):
            raise LimitExceeded(
                f"qcow2 bitmap {number}: expected a table of {entries} entries, found {bitmap.table_size}"
            )
        check_run(
            bitmap.table_offset, bitmap.table_size * 8, image.geometry, file.size, f"table of bitmap {number}", 0
        )
        found.append(bitmap)
    return found


def _entry(directory: bytes, position: int, number: int, start: int, *, valid: bool) -> tuple[Bitmap, int]:
    if position + DirectoryEntry.SIZE > len(directory):
        raise Corrupt(
            f"qcow2 bitmap {number}: expected to lie within the directory", offset=start + position, spec=SPEC
        )
    entry = DirectoryEntry.parse(directory, position)
    name_at = position + DirectoryEntry.SIZE + entry.extra_size
    end = name_at + entry.name_size
    if end > len(directory) or entry.granularity_bits > 31 or entry.granularity_bits < 9:
        raise Corrupt(f"qcow2 bitmap {number}: its directory entry does not hold", offset=start + position, spec=SPEC)
    name = directory[name_at:end].decode("utf-8", "surrogateescape")
    granularity = 1 << entry.granularity_bits
    return Bitmap(
        name,
        granularity,
        entry.flags,
        entry.table_offset,
        entry.table_size,
        valid,
        entry.type,
        directory[position + DirectoryEntry.SIZE : name_at],
        start + position,
    ), align_up(end, 8)


def bitmap_ranges(file: BlockDevice, image: ImageHeader, bitmap: Bitmap) -> Iterator[tuple[int, int]]:
    """Yield ascending (offset, length) of the disk that the bitmap marks, neighbours joined."""
    size, cluster = image.record.size, image.geometry.cluster
    covered = cluster * 8 * bitmap.granularity
    start = end = 0
    for number, entry in enumerate(read_entries(file, bitmap.table_offset, bitmap.table_size)):
        base = number * covered
        offset = entry & TABLE_OFFSET
        if base >= size or (not offset and not entry & ALL_ONES):
            continue
        for low, high in _marked(file, offset, cluster) if offset else ((0, cluster * 8),):
            first, last = base + low * bitmap.granularity, min(size, base + high * bitmap.granularity)
            if first >= size:
                break
            if first > end:
                if end > start:
                    yield start, end - start
                start = first
            end = last
    if end > start:
        yield start, end - start


def _marked(file: BlockDevice, offset: int, cluster: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of set bits in a cluster of a bitmap, the least significant bit of a byte first."""
    if offset >= file.size:
        raise Corrupt("qcow2 bitmap: expected its data within the file", offset=offset, spec=SPEC)
    data = file.read(offset, min(cluster, file.size - offset))
    for match in _SOME.finditer(data):
        position, bits = match.start() * 8, int.from_bytes(match[0], "little")
        while bits:
            zeros = (bits & -bits).bit_length() - 1
            bits >>= zeros
            ones = (~bits & (bits + 1)).bit_length() - 1
            yield position + zeros, position + zeros + ones
            bits >>= ones
            position += zeros + ones
