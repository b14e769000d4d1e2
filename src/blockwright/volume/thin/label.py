"""What stands at the beginning of a device that is split into the metadata and the data of a pool.

The label is one sector, so that a write of it is whole or has not been; it says which of two areas has the metadata.

Knows: bytes. Refuses to know: the device. Source: this package alone reads and writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

from blockwright.codec.checksum import crc32c
from blockwright.codec.record import Record, raw, u32, u64
from blockwright.errors import Corrupt, NoSpace, NotThisFormat, Unsupported
from blockwright.system.linux.thin import metadata_size
from blockwright.units import SECTOR, MiB, align_down, align_up

MAGIC: Final = b"blockwright-pool"
VERSION: Final = 1
UNIT: Final = MiB
"""What every part begins at a multiple of; the label has the first one for itself."""
_SUM: Final = 20


class LabelRecord(Record, size=SECTOR):
    """The sector: all numbers little-endian, ``checksum`` the CRC-32C of the sector with zeros in its place."""

    magic: bytes = raw(0, 16)
    version: int = u32(16, VERSION)
    checksum: int = u32(_SUM)
    key: int = u64(24)
    active: int = u32(32)
    block: int = u32(36)
    metadata: int = u64(40)
    data_start: int = u64(48)
    name: bytes = raw(64, 64)


@dataclass(frozen=True, slots=True)
class Label:
    """A split: two areas of ``metadata`` bytes from the first ``UNIT`` on, data from ``data_start`` to the end.

    ``key`` tells the pool from any other, ``active`` is the area in use, ``block`` the bytes of a block of data.
    """

    name: str
    key: int
    block: int
    metadata: int
    data_start: int
    active: int = 0

    @classmethod
    def of(cls, name: str, key: int, size: int, block: int, metadata: int | None = None) -> Self:
        """Return how a device of ``size`` bytes is split. Raises NoSpace where too little is left for data."""
        wanted = metadata_size(max(size, block), block) if metadata is None else metadata
        area = align_up(wanted, UNIT)
        start = UNIT + 2 * area
        if size < start + block:
            raise NoSpace(f"pool {name}: expected a device of {start + block} bytes or more, found {size}")
        return cls(name, key, block, area, start)

    def data_size(self, device: int) -> int:
        """Return the bytes for data on a device of ``device`` bytes."""
        return align_down(max(0, device - self.data_start), self.block)

    def start_of(self, area: int) -> int:
        """Return where an area begins."""
        return UNIT + area * self.metadata

    @property
    def swapped(self) -> Self:
        """The same with the other area in use."""
        return replace(self, active=1 - self.active)

    def pack(self) -> bytes:
        """Return the sector."""
        record = LabelRecord(
            magic=MAGIC,
            key=self.key,
            active=self.active,
            block=self.block,
            metadata=self.metadata,
            data_start=self.data_start,
            name=self.name.encode(),
        )
        data = bytearray(record.pack())
        data[_SUM : _SUM + 4] = crc32c(bytes(data)).to_bytes(4, "little")
        return bytes(data)


def parse_label(data: bytes, size: int) -> Label:
    """Return the label at the beginning of ``data``, on a device of ``size`` bytes.

    Raises NotThisFormat where there is none, Corrupt, Unsupported for one of a later version.
    """
    if len(data) < SECTOR or data[: len(MAGIC)] != MAGIC:
        raise NotThisFormat("pool: expected a device that is split for a pool, found no label")
    found = LabelRecord.parse(data)
    plain = data[:_SUM] + bytes(4) + data[_SUM + 4 : SECTOR]
    if crc32c(plain) != found.checksum:
        raise Corrupt(f"pool: label: expected checksum {crc32c(plain):#010x}, found {found.checksum:#010x}", offset=0)
    if found.version != VERSION:
        raise Unsupported(f"pool: label: expected version {VERSION}, found {found.version}")
    try:
        name = found.name.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        raise Corrupt("pool: label: expected a name of ASCII", offset=64) from None
    wrong = found.block < 1 or found.metadata < 1 or found.metadata % UNIT or found.active > 1
    if wrong or found.data_start != UNIT + 2 * found.metadata or found.data_start + found.block > size:
        raise Corrupt(f"pool: label: expected parts within {size} bytes, found {found}", offset=0)
    return Label(name, found.key, found.block, found.metadata, found.data_start, found.active)
