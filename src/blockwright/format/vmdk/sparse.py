"""A sparse extent as a device to read: one address map, from which all else follows.

Knows: which parts belong together. Refuses to know: how files are found and opened, and writing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blockwright.device.base import BlockDevice, Traits
from blockwright.errors import Corrupt, NotThisFormat
from blockwright.format.mapped import Kind, MappedDevice, Place, copy_out
from blockwright.format.vmdk.compressed import Unpacker
from blockwright.format.vmdk.layout import (
    AT_END,
    SPEC,
    Marker,
    MarkerType,
    SparseExtentHeader,
    SparseHeader,
    check_header,
    parse_header,
)
from blockwright.format.vmdk.map import GrainMap, read_directory
from blockwright.units import SECTOR, KiB


class SparseExtent(MappedDevice):
    """Reads what ``grains`` maps of its file; what it lacks is in ``below``. Both are closed with it."""

    def __init__(
        self, grains: GrainMap, below: BlockDevice | None, *, traits: Traits | None = None, owns: bool = True
    ) -> None:
        header = grains.header
        super().__init__(
            grains.file, below, header.size, traits or reading_traits(grains, below), unit=header.grain, owns=owns
        )
        self._grains = grains
        self._below_size = 0 if below is None else below.size
        self._unpacker = Unpacker(grains.file, header)

    @property
    def header(self) -> SparseExtentHeader:
        """The extent's header."""
        return self._grains.header

    def resolve(self, offset: int, end: int) -> Iterator[Place]:
        return self._grains.resolve(offset, end, self._below_size)

    def _resolve_ready(self, offset: int, end: int) -> Iterator[Place | None]:
        return self._grains.resolve_ready(offset, end, self._below_size)

    def _fetch(self, place: Place, offset: int, views: Sequence[memoryview]) -> None:
        if place.kind is Kind.COMPRESSED:
            copy_out(self._unpacker.grain(place.host, offset - place.within)[place.within :], views)
        else:
            super()._fetch(place, offset, views)

    def _fetch_ready(self, place: Place, offset: int, views: Sequence[memoryview]) -> bool:
        if place.kind is not Kind.COMPRESSED:
            return super()._fetch_ready(place, offset, views)
        data = self._unpacker.kept(offset - place.within)
        if data is None:
            return False
        copy_out(data[place.within :], views)
        return True


def reading_traits(grains: GrainMap, below: BlockDevice | None) -> Traits:
    """Return what an extent can do that is only read."""
    parts = [each.traits for each in (grains.file, below) if each is not None]
    return Traits(
        parallelism=min(each.parallelism for each in parts),
        minimum_block=max(each.minimum_block for each in parts),
        preferred_block=min(grains.header.grain, 64 * KiB),
        waits=max(each.waits for each in parts),
    )


def read_header(file: BlockDevice) -> SparseExtentHeader:
    """Return the header that holds: a stream's is the footer's. Raises NotThisFormat, Corrupt, Unsupported."""
    record = parse_header(file.read(0, min(SparseHeader.SIZE, file.size)))
    if record.gd_offset != AT_END:
        return check_header(record, file.size)
    return check_header(*_footer(file, record))


def _footer(file: BlockDevice, first: SparseHeader) -> tuple[SparseHeader, int, int]:
    """Return a stream's second header, the file's size, and where the header lies. Raises Corrupt."""
    size = file.size
    start = size - 3 * SECTOR
    if size % SECTOR or start < SparseHeader.SIZE:
        raise Corrupt(f"vmdk stream: expected sectors with a footer, found {size} bytes", spec=SPEC)
    tail = file.read(start, 3 * SECTOR)
    before, end = Marker.parse(tail), Marker.parse(tail, 2 * SECTOR)
    if (before.value, before.size, before.type) != (1, 0, MarkerType.FOOTER):
        raise Corrupt(
            "vmdk stream: expected the marker of a footer, found none: the end is missing", offset=start, spec=SPEC
        )
    if (end.value, end.size, end.type) != (0, 0, MarkerType.END):
        raise Corrupt("vmdk stream: expected the marker of its end, found none", offset=size - SECTOR, spec=SPEC)
    try:
        record = parse_header(tail, SECTOR)
    except NotThisFormat as error:
        raise Corrupt(f"vmdk footer: {error.args[0]}", offset=start + SECTOR, spec=SPEC) from None
    for name in ("capacity", "grain_size", "version", "flags", "descriptor_offset", "descriptor_size"):
        one, other = getattr(first, name), getattr(record, name)
        if one != other:
            raise Corrupt(
                f"vmdk footer: expected {name} {one} as the header has it, found {other}",
                offset=start + SECTOR,
                spec=SPEC,
            )
    return record, size, start + SECTOR


def open_sparse(
    file: BlockDevice, below: BlockDevice | None = None, *, writable: bool = False, owns: bool = True
) -> SparseExtent:
    """Return the extent in ``file``, which it owns from then on unless ``owns`` is False, and ``below`` always.

    After an exception the caller still owns both. Raises FormatError, ReadOnly.
    """
    header = read_header(file)
    directory = read_directory(file, header, header.directory)
    if not writable:
        return SparseExtent(GrainMap(file, header, directory), below, owns=owns)
    from blockwright.format.vmdk.write import open_writable

    return open_writable(file, header, directory, below, owns=owns)
