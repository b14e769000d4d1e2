"""A new VHDX image, empty: its options and its layout.

Knows: what lies where. Refuses to know: what comes to be written.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from blockwright.codec.identity import derive_uuid
from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.errors import UsageError
from blockwright.format.vhdx import layout
from blockwright.format.vhdx.layout import (
    BAT,
    DISK_ID,
    DISK_SIZE,
    FULL,
    HEADERS,
    IS_DISK,
    KEEP,
    LOGICAL,
    MAX_BAT,
    MAX_BLOCK,
    MAX_SIZE,
    METADATA,
    MIN_BLOCK,
    PARAMETERS,
    PHYSICAL,
    REGION_TABLES,
    REQUIRED,
    TABLE_BYTES,
    Header,
    MetadataEntry,
    MetadataHeader,
    RegionEntry,
    TableHeader,
)
from blockwright.units import GiB, MiB, TiB, align_up, ceil_div

_LOG, _METADATA, _BAT = MiB, 2 * MiB, 3 * MiB
CREATOR = "blockwright"


@dataclass(frozen=True, slots=True)
class Options:
    """What a new image is like. ``fixed`` has the file hold every block from the start; sizes are bytes.

    Without ``block_size`` it follows from the disk's size, so that the block table stays small.
    """

    fixed: bool = False
    block_size: int | None = None
    sector_size: int = 512

    def check(self) -> None:
        """Raise UsageError for sizes that the format has not."""
        size = self.block_size
        if size is not None and (size & (size - 1) or not MIN_BLOCK <= size <= MAX_BLOCK):
            raise UsageError(f"vhdx block size: expected a power of two from 1 MiB to 256 MiB, found {size}")
        if self.sector_size not in (512, 4096):
            raise UsageError(f"vhdx sector size: expected 512 or 4096, found {self.sector_size}")

    def block_for(self, size: int) -> int:
        """Return the size of a block of a disk of ``size`` bytes."""
        if self.block_size is not None:
            return self.block_size
        return next((block * MiB for limit, block in ((32 * GiB, 8), (TiB, 32)) if size <= limit), 64 * MiB)


def create(file: BlockDevice, size: int, options: Options, name: str = "") -> None:
    """Make ``file`` an image of a disk of ``size`` bytes that reads as zeros; ``name`` makes its ids its own.

    What the file held is lost. Raises UsageError.
    """
    options.check()
    block, sector = options.block_for(size), options.sector_size
    if not 0 < size <= MAX_SIZE or size % sector:
        raise UsageError(f"vhdx: expected a disk of 1 to {MAX_SIZE} bytes in sectors of {sector} bytes, found {size}")
    entries = layout.table_entries(size, block, sector)
    if 8 * entries > MAX_BAT:
        most = MAX_BAT // 8 * block
        raise UsageError(f"vhdx: blocks of {block} bytes make a disk of at most {most} bytes, found {size}")
    bat_length = align_up(8 * entries, MiB)
    data = _BAT + bat_length
    blocks = ceil_div(size, block)
    end = data + (blocks * block if options.fixed else 0)
    if isinstance(file, ResizableDevice):
        file.resize(0)
        file.resize(end)
    else:
        file.zero(0, end)
    seed = f"vhdx {size} {block} {sector} {options.fixed} {name}".encode("utf-8", "surrogateescape")
    file.write(0, layout.MAGIC, CREATOR.encode("utf-16-le"))
    if options.fixed:
        file.write(_BAT, _full_table(blocks, block, entries, data, layout.CHUNK_SECTORS * sector // block))
    file.write(_METADATA, _metadata(size, block, options, derive_uuid(seed, "disk").bytes_le))
    regions = _regions(bat_length)
    header = Header(
        signature=b"head",
        file_guid=derive_uuid(seed, "file").bytes_le,
        data_guid=derive_uuid(seed, "data").bytes_le,
        log_length=MiB,
        log_offset=_LOG,
    )
    for number in range(2):
        file.write(REGION_TABLES[number], regions)
        file.write(HEADERS[number], layout.sealed(header.replace(sequence=number + 1).pack()))


def _full_table(blocks: int, block: int, entries: int, data: int, ratio: int) -> bytes:
    table = array("Q", bytes(8 * entries))
    for index in range(blocks):
        table[index + index // ratio] = data + index * block | FULL
    return layout.entry_bytes(table)


def _regions(bat_length: int) -> bytes:
    found = (
        TableHeader(signature=b"regi", count=2).pack()
        + RegionEntry(guid=BAT, offset=_BAT, length=bat_length, required=1).pack()
        + RegionEntry(guid=METADATA, offset=_METADATA, length=MiB, required=1).pack()
    )
    return layout.sealed(found.ljust(TABLE_BYTES, b"\0"))


def _metadata(size: int, block: int, options: Options, disk: bytes) -> bytes:
    """Return the beginning of the metadata region: its table, and the items one behind the other."""
    parameters = block.to_bytes(4, "little") + (KEEP if options.fixed else 0).to_bytes(4, "little")
    items = (
        (PARAMETERS, parameters, REQUIRED),
        (DISK_SIZE, size.to_bytes(8, "little"), REQUIRED | IS_DISK),
        (DISK_ID, disk, REQUIRED | IS_DISK),
        (LOGICAL, options.sector_size.to_bytes(4, "little"), REQUIRED | IS_DISK),
        (PHYSICAL, (4096).to_bytes(4, "little"), REQUIRED | IS_DISK),
    )
    table = MetadataHeader(signature=b"metadata", count=len(items)).pack()
    values = b""
    for guid, value, flags in items:
        entry = MetadataEntry(guid=guid, offset=TABLE_BYTES + len(values), length=len(value), flags=flags)
        table += entry.pack()
        values += value
    return table.ljust(TABLE_BYTES, b"\0") + values
