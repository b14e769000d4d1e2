"""VHDX images as disks to read and write.

Data is flushed first. Then what changes of the block table goes to the log, is flushed, goes to its place, and is
flushed; each entry is its own tail, since what came before it is in place. The log's first entry is there before a
header names the log, and the log is named empty when the image is closed.

A block that is partly the parent's is filled from it, where no reader looks yet, before its state says so; so no
bitmap is ever written.

Knows: states of blocks, headers, order. Refuses to know: entries of the log as bytes.
"""

from __future__ import annotations

from typing import Final

from blockwright.codec.identity import derive_uuid
from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, UsageError
from blockwright.format.blocks import BlockImage, State, bits_of
from blockwright.format.describe import Description
from blockwright.format.vhdx import layout
from blockwright.format.vhdx.image import Image
from blockwright.format.vhdx.layout import (
    BAT,
    FULL,
    HEADERS,
    KEEP,
    MAX_SIZE,
    NOT_PRESENT,
    OFFSET,
    PARTIAL,
    SPEC,
    STATE,
)
from blockwright.format.vhdx.log import SECTOR, entry_room, pack_entry
from blockwright.units import MiB, align_down, align_up

_PER_SECTOR: Final = SECTOR // 8
_NO_LOG: Final = bytes(16)
_MAX_BITS: Final = 8 * MiB


class VhdxDevice(BlockImage):
    """The disk in a VHDX image; ``file`` is as it is once its log is replayed."""

    def __init__(
        self, file: BlockDevice, image: Image, below: BlockDevice | None, *, writable: bool, owns: bool = True
    ) -> None:
        parameters = image.parameters
        super().__init__(file, below, parameters.size, parameters.block, writable=writable, owns=owns)
        self._parameters = parameters
        self._header = image.header
        self._current = image.current
        self._bat = image.regions[BAT]
        self._table = image.table
        self._ratio = parameters.ratio
        self._dirty: set[int] = set()  # sectors of the block table
        self._bits: dict[int, bytes] = {}
        self._sequence = 1
        self._position = 0

    @property
    def data_guid(self) -> bytes:
        """The id that changes when the disk's bytes do."""
        return self._header.data_guid

    def describe(self) -> Description:
        found = self._parameters
        kind = "differencing" if found.parent is not None else "fixed" if found.flags & KEEP else "dynamic"
        details = (
            ("subformat", kind),
            ("block size", str(found.block)),
            ("sector size", f"{found.sector}, physical {found.physical}"),
        )
        return Description("vhdx", self._host.size, details)

    # -- the map ---------------------------------------------------------------------------------------------

    def _slot(self, index: int) -> int:
        return index + index // self._ratio

    def _state(self, index: int) -> tuple[State, int]:
        entry = self._table[self._slot(index)]
        state = entry & STATE
        if state == FULL:
            return State.FULL, entry & OFFSET
        if state == NOT_PRESENT:
            return State.ABSENT, 0
        if state == PARTIAL and self._below is not None:
            return State.PARTIAL, entry & OFFSET
        return State.ZERO, 0

    def _own_sectors(self, index: int) -> tuple[int, bytes]:
        sector = self._parameters.sector
        found = self._bits.get(index)
        if found is None:
            chunk, within = divmod(index, self._ratio)
            entry = self._table[chunk * (self._ratio + 1) + self._ratio]
            length = self._block // sector // 8
            if entry & STATE != FULL:
                raise Corrupt(
                    f"vhdx block {index}: expected bits of its sectors, found none",
                    offset=self._bat.offset + 8 * self._slot(index),
                    spec=SPEC,
                )
            found = self._host.read((entry & OFFSET) + within * length, length)
            if len(self._bits) * length > _MAX_BITS:
                self._bits.clear()
            self._bits[index] = found
        return sector, bits_of(found, high_first=False)

    # -- writing ---------------------------------------------------------------------------------------------

    def _reserve(self, index: int) -> int:
        start = align_up(self._host.size, MiB)
        self._make_room(start, start + self._block)
        return start

    def _refer(self, index: int, host: int) -> None:
        slot = self._slot(index)
        self._table[slot] = host | FULL
        self._dirty.add(slot // _PER_SECTOR)

    def _is_dirty(self) -> bool:
        return bool(self._dirty)

    def _begin(self) -> None:
        """Change the ids of the file and its data, and name a log that has an entry."""
        header = self._header
        seed = header.file_guid + header.data_guid + header.sequence.to_bytes(8, "little")
        guid = derive_uuid(seed, "vhdx log").bytes_le
        self._log([], guid)
        self._put_headers(
            file_guid=derive_uuid(seed, "vhdx file").bytes_le,
            data_guid=derive_uuid(seed, "vhdx data").bytes_le,
            log_guid=guid,
        )

    def _put_headers(self, **values: bytes) -> None:
        """Write both headers, the one that is not in force first."""
        for _ in HEADERS:
            header = self._header.replace(sequence=self._header.sequence + 1, signature=b"head", **values)
            number = 1 - self._current
            self._host.write(HEADERS[number], layout.sealed(header.pack()))
            self._host.flush()
            self._header, self._current = header, number

    def _log(self, sectors: list[tuple[int, bytes]], guid: bytes) -> None:
        """Write an entry to the log, durably."""
        header = self._header
        entry = pack_entry(
            sectors,
            position=self._position,
            sequence=self._sequence,
            guid=guid,
            file_size=align_down(self._host.size, MiB),
        )
        first = min(len(entry), header.log_length - self._position)
        self._host.write(header.log_offset + self._position, entry[:first])
        if first < len(entry):
            self._host.write(header.log_offset, entry[first:])
        self._host.flush()
        self._position = (self._position + len(entry)) % header.log_length
        self._sequence += 1

    def _change(self, sectors: list[tuple[int, bytes]]) -> None:
        """Have sectors of the file hold these bytes, all of them or none of them, through the log."""
        self._log(sectors, self._header.log_guid)
        for offset, data in sectors:
            self._host.write(offset, data)
        self._host.flush()

    def _store(self) -> None:
        room = entry_room(self._header.log_length)
        waiting = sorted(self._dirty)
        for first in range(0, len(waiting), room):
            part = waiting[first : first + room]
            self._change([(self._bat.offset + each * SECTOR, self._table_sector(each)) for each in part])
            self._dirty.difference_update(part)

    def _table_sector(self, number: int) -> bytes:
        data = layout.entry_bytes(self._table[number * _PER_SECTOR : (number + 1) * _PER_SECTOR])
        return data.ljust(SECTOR, b"\0")

    def _settle(self) -> None:
        super()._settle()
        if self._header.log_guid != _NO_LOG:
            self._host.flush()
            self._put_headers(log_guid=_NO_LOG)

    def _grow(self, size: int) -> None:
        parameters = self._parameters
        entries = layout.table_entries(size, parameters.block, parameters.sector)
        if size > MAX_SIZE or size % parameters.sector:
            raise UsageError(
                f"vhdx: expected a disk of whole sectors of {parameters.sector} bytes and at most {MAX_SIZE}, found "
                f"{size}"
            )
        if 8 * entries > self._bat.length:
            raise UsageError(f"vhdx: the block table has room for {self._bat.length // 8} blocks: convert the image")
        added = entries - len(self._table)
        if added > 0:
            first = len(self._table) // _PER_SECTOR
            self._table.frombytes(bytes(8 * added))
            self._dirty.update(range(first, (entries - 1) // _PER_SECTOR + 1))
            self._store()
        at = align_down(parameters.size_offset, SECTOR)
        sector = bytearray(self._host.read(at, SECTOR))
        within = parameters.size_offset - at
        sector[within : within + 8] = size.to_bytes(8, "little")
        self._change([(at, bytes(sector))])
