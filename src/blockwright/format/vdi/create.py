"""A new VDI image, empty: its options and its layout.

Knows: what lies where. Refuses to know: what comes to be written.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from blockwright.codec.identity import derive_uuid
from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.errors import UsageError
from blockwright.format.vdi.layout import (
    DEFAULT_BLOCK,
    DYNAMIC,
    FREE,
    MAX_BLOCK,
    MAX_BLOCKS,
    STATIC,
    TEXT,
    Header,
    entry_bytes,
)
from blockwright.units import SECTOR, MiB, align_up, ceil_div


@dataclass(frozen=True, slots=True)
class Options:
    """What a new image is like. ``fixed`` has the file hold every block from the start: VDI calls it static."""

    fixed: bool = False
    block_size: int = DEFAULT_BLOCK

    def check(self) -> None:
        """Raise UsageError for a size of blocks that no reader takes."""
        size = self.block_size
        if size & (size - 1) or not MiB <= size <= MAX_BLOCK:
            raise UsageError(f"vdi block size: expected a power of two from 1 MiB to 256 MiB, found {size}")


def create(file: BlockDevice, size: int, options: Options, name: str = "") -> None:
    """Make ``file`` an image of a disk of ``size`` bytes that reads as zeros; ``name`` makes its UUIDs its own.

    What the file held is lost. The data begins at a whole MiB, so the map has room to grow. Raises UsageError.
    """
    options.check()
    block = options.block_size
    blocks = ceil_div(size, block)
    if not 0 < blocks <= MAX_BLOCKS:
        raise UsageError(f"vdi: expected a disk of 1 to {MAX_BLOCKS * block} bytes, found {size}")
    seed = f"vdi {size} {block} {options.fixed} {name}".encode("utf-8", "surrogateescape")
    data = align_up(SECTOR + 4 * blocks, MiB)
    header = Header(
        text=TEXT,
        kind=STATIC if options.fixed else DYNAMIC,
        map_offset=SECTOR,
        data_offset=data,
        disk_size=size,
        block_size=block,
        blocks=blocks,
        allocated=blocks if options.fixed else 0,
        uuid=derive_uuid(seed, "image").bytes_le,
        snapshot_uuid=derive_uuid(seed, "last snapshot").bytes_le,
    )
    length = data + (blocks * block if options.fixed else 0)
    if isinstance(file, ResizableDevice):
        file.resize(0)
        file.resize(length)
    else:
        file.zero(0, length)
    table = array("I", range(blocks)) if options.fixed else array("I", [FREE]) * blocks
    file.write(SECTOR, entry_bytes(table))
    file.write(0, header.pack())
