"""What a VHDX image consists of, read once: the header in force, regions, metadata, the block table.

Knows: which copy counts. Refuses to know: disks and writing.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, FormatError, Unsupported
from blockwright.format.vhdx import layout
from blockwright.format.vhdx.layout import (
    BAT,
    DISK_SIZE,
    HAS_PARENT,
    HEADER_BYTES,
    HEADERS,
    LOGICAL,
    METADATA,
    PARAMETERS,
    PARENT,
    PHYSICAL,
    REGION_TABLES,
    SPEC,
    TABLE_BYTES,
    Header,
    MetadataEntry,
    Parameters,
    RegionEntry,
)
from blockwright.format.vhdx.log import Replay, find_replay

_NO_LOG = bytes(16)


@dataclass(frozen=True, slots=True)
class Image:
    """``current`` says which of the two headers is in force."""

    header: Header
    current: int
    regions: dict[bytes, RegionEntry]
    parameters: Parameters
    table: array[int]


def read_headers(file: BlockDevice) -> tuple[Header, int]:
    """Return the header in force and its number: of those that hold, the one written last. Raises FormatError."""
    layout.check_magic(file.read(0, min(8, file.size)))
    found: list[tuple[Header, int]] = []
    failures: list[FormatError] = []
    for number, offset in enumerate(HEADERS):
        try:
            found.append((layout.parse_header(_read(file, offset, HEADER_BYTES), offset), number))
        except FormatError as error:
            failures.append(error)
    if not found:
        raise failures[0]
    header, current = max(found, key=lambda each: each[0].sequence)
    layout.check_header(header, file.size)
    return header, current


def read_log(file: BlockDevice, header: Header) -> Replay | None:
    """Return what the log says that is not in the file yet, None where it is empty. Raises FormatError."""
    if header.log_guid == _NO_LOG:
        return None
    return find_replay(file.read(header.log_offset, header.log_length), header.log_guid)


def read_image(file: BlockDevice, header: Header, current: int) -> Image:
    """Return the rest; ``file`` is as it is once the log is replayed. Raises FormatError."""
    regions = read_regions(file)
    parameters = _read_parameters(file, regions[METADATA])
    bat = regions[BAT]
    needed = 8 * parameters.entries
    if needed > bat.length:
        raise Corrupt(
            f"vhdx block table: expected a region of at least {needed} bytes, found {bat.length}",
            offset=bat.offset,
            spec=SPEC,
        )
    return Image(header, current, regions, parameters, layout.entries(file.read(bat.offset, needed)))


def read_regions(file: BlockDevice) -> dict[bytes, RegionEntry]:
    """Return the regions by the first table that holds. Raises FormatError."""
    failures: list[FormatError] = []
    for offset in REGION_TABLES:
        try:
            return layout.parse_regions(_read(file, offset, TABLE_BYTES), offset, file.size)
        except Unsupported:
            raise
        except FormatError as error:
            failures.append(error)
    raise failures[0]


def _read_parameters(file: BlockDevice, region: RegionEntry) -> Parameters:
    start = region.offset
    items = layout.parse_items(file.read(start, min(TABLE_BYTES, region.length)), start, region.length)

    def number(guid: bytes, what: str, size: int) -> int:
        entry = items.get(guid)
        if entry is None or entry.length < size:
            raise Corrupt(f"vhdx metadata: expected the {what}, found none", offset=start, spec=SPEC)
        return int.from_bytes(file.read(start + entry.offset, size), "little")

    both = number(PARAMETERS, "file parameters", 8)
    size = number(DISK_SIZE, "size of the disk", 8)
    logical = number(LOGICAL, "size of a logical sector", 4)
    physical = number(PHYSICAL, "size of a physical sector", 4) if PHYSICAL in items else logical
    parent = _read_locator(file, start, items) if both >> 32 & HAS_PARENT else None
    block, flags = both & 0xFFFF_FFFF, both >> 32
    found = Parameters(size, block, logical, physical, flags, start + items[DISK_SIZE].offset, parent)
    layout.check_parameters(found)
    return found


def _read_locator(file: BlockDevice, start: int, items: dict[bytes, MetadataEntry]) -> dict[str, str]:
    entry = items.get(PARENT)
    if entry is None:
        raise Corrupt("vhdx metadata: expected a parent locator, found none", offset=start, spec=SPEC)
    return layout.parse_locator(file.read(start + entry.offset, entry.length))


def _read(file: BlockDevice, offset: int, length: int) -> bytes:
    return file.read(offset, min(length, max(0, file.size - offset))) if offset < file.size else b""
