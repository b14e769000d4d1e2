"""A new VHD image, empty: its options and its layout.

Knows: what lies where. Refuses to know: what comes to be written.
"""

from __future__ import annotations

from dataclasses import dataclass

from blockwright.codec.identity import derive_uuid
from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.errors import UsageError
from blockwright.format.vhd.layout import (
    CREATOR,
    DEFAULT_BLOCK,
    DYNAMIC,
    FIXED,
    MAX_SIZE,
    NOWHERE,
    DynamicHeader,
    Footer,
    geometry,
    pack_footer,
    pack_header,
)
from blockwright.units import SECTOR, KiB, MiB, align_up, ceil_div

_HEADER = SECTOR
_TABLE = _HEADER + DynamicHeader.SIZE


@dataclass(frozen=True, slots=True)
class Options:
    """What a new image is like. ``fixed`` has the file be as large as the disk from the start."""

    fixed: bool = False
    block_size: int = DEFAULT_BLOCK

    def check(self) -> None:
        """Raise UsageError for a size of blocks that no reader takes."""
        size = self.block_size
        if size & (size - 1) or not 512 * KiB <= size <= 2 * MiB:
            raise UsageError(f"vhd block size: expected 512 KiB, 1 MiB or 2 MiB, found {size}")


def create(file: BlockDevice, size: int, options: Options, name: str = "") -> None:
    """Make ``file`` an image of a disk of ``size`` bytes that reads as zeros; ``name`` makes its UUID its own.

    What the file held is lost. The size is the current size, not the geometry's. Raises UsageError.
    """
    options.check()
    if not 0 < size <= MAX_SIZE:
        raise UsageError(f"vhd: expected a disk of 1 to {MAX_SIZE} bytes, found {size}")
    cylinders, heads, sectors = geometry(size)
    seed = f"vhd {size} {options.block_size} {options.fixed} {name}".encode("utf-8", "surrogateescape")
    footer = Footer(
        data_offset=NOWHERE if options.fixed else _HEADER,
        creator=CREATOR,
        creator_os=b"Wi2k",
        creator_version=0x0005_0003,
        original_size=size,
        current_size=size,
        cylinders=cylinders,
        heads=heads,
        sectors=sectors,
        kind=FIXED if options.fixed else DYNAMIC,
        uuid=derive_uuid(seed, "image").bytes,
    )
    packed = pack_footer(footer)
    entries = ceil_div(size, options.block_size)
    end = size if options.fixed else align_up(_TABLE + 4 * entries, SECTOR)
    if isinstance(file, ResizableDevice):
        file.resize(0)
        file.resize(end + SECTOR)
    elif options.fixed and file.size == end + SECTOR:
        file.zero(0, file.size)
    else:
        raise UsageError(f"vhd: expected a file that can grow, or one of {end + SECTOR} bytes for a fixed image")
    if not options.fixed:
        header = DynamicHeader(table_offset=_TABLE, entries=entries, block_size=options.block_size)
        file.write(0, packed, pack_header(header), b"\xff" * (end - _TABLE))
    file.write(end, packed)
