"""VHD images as disks to read and write.

A new block stands where the footer was. Before it is written the file is longer and has a footer at its new end; and
whatever a power cut leaves of that one, its copy at the beginning of the file holds as well.

A sector's bit counts in differencing images only: in others all of a block is in the file, as QEMU has it, and before
such a block is written to all of its bits are set, as the specification has it.

Knows: footers, bitmaps and the table. Refuses to know: how a new image is laid out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import NoSpace, NotSupported, UsageError
from blockwright.format.blocks import BlockImage, State, bits_of
from blockwright.format.describe import Description
from blockwright.format.mapped import Kind, Place
from blockwright.format.vhd.layout import (
    BY_GEOMETRY,
    DIFFERENCING,
    FREE,
    MAX_GEOMETRY,
    MAX_SIZE,
    DynamicHeader,
    Footer,
    bitmap_bytes,
    entry_bytes,
    geometry,
    pack_footer,
    pack_header,
)
from blockwright.units import SECTOR, KiB, MiB, align_up, ceil_div

_PER_SECTOR: Final = SECTOR // 4
_ALIGNMENT: Final = 4 * KiB
_MAX_BITMAPS: Final = 8 * MiB
"""Bytes of bitmaps that are kept in memory."""


@dataclass(frozen=True, slots=True)
class Image:
    """What an image consists of: a footer, which one holds, and where the dynamic header stands, if there is one."""

    footer: Footer
    header: DynamicHeader | None
    end: int
    """Where the footer at the end stands, or belongs."""


class FixedVhd(BlockImage):
    """A fixed image: the disk, and a footer behind it."""

    def __init__(self, file: BlockDevice, footer: Footer, *, writable: bool, owns: bool = True) -> None:
        super().__init__(file, None, footer.size, footer.size, writable=writable, owns=owns)
        self._footer = footer

    @property
    def footer(self) -> Footer:
        """The footer."""
        return self._footer

    def describe(self) -> Description:
        return _description("fixed", self._host, self._footer, ())

    def resolve(self, offset: int, end: int) -> Iterator[Place]:
        yield Place(Kind.DATA, end - offset, offset)

    def _state(self, index: int) -> tuple[State, int]:
        return State.FULL, 0

    def _reserve(self, index: int) -> int:
        raise NotSupported("vhd: a fixed image has all of its blocks")

    def _refer(self, index: int, host: int) -> None:
        raise NotSupported("vhd: a fixed image has all of its blocks")

    def _is_dirty(self) -> bool:
        return False

    def _store(self) -> None:
        """Do nothing: there is no table."""

    def _grow(self, size: int) -> None:
        raise UsageError(
            "vhd: a fixed image has one footer, which a power cut would cost: convert it to a larger one"
        )


class DynamicVhd(BlockImage):
    """A dynamic image, or a differencing one over ``below``."""

    def __init__(
        self,
        file: BlockDevice,
        image: Image,
        table: array[int],
        below: BlockDevice | None,
        *,
        writable: bool,
        owns: bool = True,
    ) -> None:
        assert image.header is not None, "the caller looked"
        footer, header = image.footer, image.header
        super().__init__(file, below, footer.size, header.block_size, writable=writable, owns=owns)
        self._footer = footer
        self._header = header
        self._table = table
        self._bitmap = bitmap_bytes(header.block_size)
        self._full = b"\xff" * self._bitmap
        self._end = image.end
        self._dirty: set[int] = set()  # sectors of the table
        self._bitmaps: dict[int, bytes] = {}
        self._filled: set[int] = set()  # blocks whose bitmaps differ from the disk's
        self._marked: set[int] = set()  # blocks whose bits are all set

    @property
    def footer(self) -> Footer:
        """The footer."""
        return self._footer

    def describe(self) -> Description:
        kind = "differencing" if self._footer.kind == DIFFERENCING else "dynamic"
        return _description(kind, self._host, self._footer, (("block size", str(self._block)),))

    # -- the map ---------------------------------------------------------------------------------------------

    def _state(self, index: int) -> tuple[State, int]:
        entry = self._table[index]
        if entry == FREE:
            return State.ABSENT, 0
        host = entry * SECTOR + self._bitmap
        if self._below is None or index in self._marked or self._bits(index) == self._full:
            return State.FULL, host
        return State.PARTIAL, host

    def _bits(self, index: int) -> bytes:
        """Return the bitmap of a block that is in the file, with what stands for no sector set."""
        found = self._bitmaps.get(index)
        if found is None:
            used = ceil_div(self._block // SECTOR, 8)
            read = self._host.read(self._table[index] * SECTOR, used)
            found = read + self._full[used:]
            with self._lock:
                if len(self._bitmaps) * self._bitmap > _MAX_BITMAPS:
                    self._bitmaps.clear()
                if index not in self._marked:
                    self._bitmaps[index] = found
        return found

    def _own_sectors(self, index: int) -> tuple[int, bytes]:
        bits = self._full if index in self._marked else self._bits(index)
        return SECTOR, bits_of(bits, high_first=True)[: self._block // SECTOR]

    # -- writing ---------------------------------------------------------------------------------------------

    def _prepare(self, index: int) -> None:
        """Set all bits of a block, once: a reader that goes by them must find what is written."""
        if index in self._marked:
            return
        with self._lock:
            if index not in self._marked:
                if self._bits(index) != self._full:
                    self._host.write(self._table[index] * SECTOR, self._full)
                self._bitmaps.pop(index, None)
                self._marked.add(index)

    def _reserve(self, index: int) -> int:
        start = align_up(self._end + self._bitmap, _ALIGNMENT)
        end = start + self._block
        if (start - self._bitmap) // SECTOR >= FREE:
            raise NoSpace(f"vhd: expected a file of at most {FREE * SECTOR} bytes, found it to need {end}")
        self._make_room(self._end + SECTOR, end + SECTOR)
        self._host.write(end, pack_footer(self._footer))
        self._host.zero(self._end, start - self._bitmap - self._end)
        self._host.write(start - self._bitmap, self._full)
        self._end = end
        return start

    def _refer(self, index: int, host: int) -> None:
        if self._table[index] == FREE:
            self._table[index] = (host - self._bitmap) // SECTOR
            self._dirty.add(index // _PER_SECTOR)
        else:
            self._filled.add(index)
        self._bitmaps.pop(index, None)
        self._marked.add(index)

    def _is_dirty(self) -> bool:
        return bool(self._dirty or self._filled)

    def _store(self) -> None:
        host, offset = self._host, self._header.table_offset
        for index in sorted(self._filled):
            host.write(self._table[index] * SECTOR, self._full)
        for sector in sorted(self._dirty):
            part = self._table[sector * _PER_SECTOR : (sector + 1) * _PER_SECTOR]
            host.write(offset + sector * SECTOR, entry_bytes(part))
        host.flush()
        self._filled.clear()
        self._dirty.clear()

    def _begin(self) -> None:
        """Put the footer at the end where a power cut has left none."""
        wanted = pack_footer(self._footer)
        host = self._host
        if host.size < self._end + SECTOR or host.read(self._end, SECTOR) != wanted:
            self._make_room(self._end, self._end + SECTOR)
            host.write(self._end, wanted)

    def _grow(self, size: int) -> None:
        """Have a table that is long enough, at the end where the old one is too short; then say the size."""
        footer = _resized(self._footer, size)
        needed = ceil_div(size, self._block)
        host = self._host
        if needed > len(self._table):
            table = self._table + array("I", [FREE]) * (needed - len(self._table))
            at = self._end
            data = entry_bytes(table)
            end = align_up(at + len(data), SECTOR)
            self._make_room(at + SECTOR, end + SECTOR)
            host.write(end, pack_footer(self._footer))
            host.write(at, data.ljust(end - at, b"\xff"))
            host.flush()
            header = self._header.replace(table_offset=at, entries=needed)
            host.write(self._footer.data_offset, pack_header(header)[:SECTOR])
            host.flush()
            self._header, self._table, self._end = header, table, end
        host.write(self._end, pack_footer(footer))
        host.flush()
        host.write(0, pack_footer(footer))
        host.flush()
        self._footer = footer


def _resized(footer: Footer, size: int) -> Footer:
    if size > MAX_SIZE:
        raise UsageError(f"vhd: expected a disk of at most {MAX_SIZE} bytes, found {size}")
    cylinders, heads, sectors = geometry(size)
    if footer.creator in BY_GEOMETRY and cylinders * heads * sectors not in (size // SECTOR, MAX_GEOMETRY):
        raise UsageError(
            f"vhd: the image says that its geometry is its size, and no geometry makes {size} bytes: convert it"
        )
    return footer.replace(current_size=size, cylinders=cylinders, heads=heads, sectors=sectors)


def _description(kind: str, host: BlockDevice, footer: Footer, more: tuple[tuple[str, str], ...]) -> Description:
    creator = footer.creator.rstrip(b"\0 ").decode("ascii", "replace")
    size_by = "geometry" if footer.size != footer.current_size else "current size"
    details = (("subformat", kind), *more, ("creator", creator), ("size by", size_by))
    return Description("vhd", host.size, details)
