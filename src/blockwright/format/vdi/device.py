"""A VDI image as a disk to read and write.

The count of blocks in the header goes to the disk before the map does: others put new blocks behind that many, so a
power cut between the two costs blocks that nothing refers to. Such blocks are used first, the next time.

Knows: the map. Refuses to know: how a new image is laid out.
"""

from __future__ import annotations

from array import array

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, NoSpace, ReadOnly, UsageError
from blockwright.format.blocks import BlockImage, State
from blockwright.format.describe import Description
from blockwright.format.vdi.layout import (
    FREE,
    MAX_BLOCKS,
    SPEC,
    STATIC,
    ZERO,
    Header,
    entries,
    entry_bytes,
    parse_header,
)
from blockwright.units import SECTOR, ceil_div

_PER_SECTOR = SECTOR // 4


class VdiDevice(BlockImage):
    """The disk in a VDI image."""

    def __init__(
        self, file: BlockDevice, header: Header, table: array[int], *, writable: bool, owns: bool = True
    ) -> None:
        super().__init__(file, None, header.disk_size, header.block_size, writable=writable, owns=owns)
        self._header = header
        self._table = table
        self._dirty: set[int] = set()  # sectors of the map
        self._next, self._gaps = _unused(table) if writable else (0, [])

    def describe(self) -> Description:
        kind = "static" if self._header.kind == STATIC else "dynamic"
        details = (("subformat", kind), ("version", "1.1"), ("block size", str(self._block)))
        return Description("vdi", self._host.size, details)

    def _state(self, index: int) -> tuple[State, int]:
        entry = self._table[index]
        if entry == FREE:
            return State.ABSENT, 0
        if entry == ZERO:
            return State.ZERO, 0
        return State.FULL, self._header.data_offset + entry * self._block

    def _reserve(self, index: int) -> int:
        number = self._gaps[-1] if self._gaps else self._next
        if number >= ZERO:
            raise NoSpace(f"vdi: expected at most {ZERO} blocks, found them all used")
        host = self._header.data_offset + number * self._block
        self._make_room(host, host + self._block)
        if self._gaps:
            self._gaps.pop()
        else:
            self._next = number + 1
        return host

    def _refer(self, index: int, host: int) -> None:
        self._table[index] = (host - self._header.data_offset) // self._block
        self._dirty.add(index // _PER_SECTOR)

    def _is_dirty(self) -> bool:
        return bool(self._dirty)

    def _store(self) -> None:
        if self._header.allocated != self._next:
            self._put_header(allocated=self._next)
        start, host = self._header.map_offset, self._host
        for sector in sorted(self._dirty):
            part = self._table[sector * _PER_SECTOR : (sector + 1) * _PER_SECTOR]
            host.write(start + sector * SECTOR, entry_bytes(part))
        host.flush()
        self._dirty.clear()

    def _put_header(self, **values: int) -> None:
        header = self._header.replace(**values)
        sector = bytearray(self._host.read(0, SECTOR))
        header.pack_into(sector)
        self._host.write(0, sector)
        self._host.flush()
        self._header = header

    def _grow(self, size: int) -> None:
        header = self._header
        blocks = ceil_div(size, self._block)
        room = min(MAX_BLOCKS, (header.data_offset - header.map_offset) // 4)
        if blocks > room:
            raise UsageError(
                f"vdi: the map has room for a disk of {room * self._block} bytes, found {size}: convert it"
            )
        added = blocks - header.blocks
        if added > 0:
            table = self._table + array("I", [FREE]) * added
            self._host.write(header.map_offset, entry_bytes(table))
            self._host.flush()
            self._table = table
        self._put_header(disk_size=size, blocks=max(blocks, header.blocks))


def _unused(table: array[int]) -> tuple[int, list[int]]:
    """Return the number of the first block behind all that are used, and those between that are not, the first last.

    Raises Corrupt where two share one.
    """
    used = [entry for entry in table if entry < ZERO]
    places = set(used)
    if len(places) < len(used):
        raise Corrupt("vdi: expected blocks apart, found two at one place: check it", spec=SPEC)
    end = max(places, default=-1) + 1
    if end == len(used):
        return end, []
    return end, [number for number in range(end - 1, -1, -1) if number not in places]


def read_table(file: BlockDevice, header: Header) -> array[int]:
    """Return the block map."""
    return entries(file.read(header.map_offset, 4 * header.blocks))


def read_header(file: BlockDevice) -> Header:
    """Return the header. Raises FormatError."""
    return parse_header(file.read(0, min(Header.SIZE, file.size)), file.size)


def open_vdi(file: BlockDevice, *, writable: bool = False, owns: bool = True) -> VdiDevice:
    """Return the disk in ``file``, which it owns from then on unless ``owns`` is False; after an exception the caller
    still does.

    Raises FormatError, ReadOnly.
    """
    if writable and not file.traits.writable:
        raise ReadOnly("vdi: expected a file to write to, found one that is read-only")
    header = read_header(file)
    table = read_table(file, header)
    _check_entries(file, header, table)
    return VdiDevice(file, header, table, writable=writable, owns=owns)


def _check_entries(file: BlockDevice, header: Header, table: array[int]) -> None:
    """Raise Corrupt for a block that begins behind the file's end."""
    room = max(0, ceil_div(file.size - header.data_offset, header.block_size))
    most = max((entry for entry in table if entry < ZERO), default=-1)
    if most >= room:
        index = table.index(most)
        raise Corrupt(
            f"vdi block {index}: expected one of the {room} blocks in the file, found {most}",
            offset=header.map_offset + 4 * index,
            spec=SPEC,
        )
