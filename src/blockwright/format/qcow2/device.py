"""A qcow2 image as a disk to read: its active state, or a snapshot.

Knows: which map belongs to which state. Refuses to know: how files are found and opened, and writing.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from blockwright.device.base import BlockDevice, Context, TellingDevice, Traits
from blockwright.device.checkpoint import Checkpoint
from blockwright.device.extent import Extent
from blockwright.format.describe import Description
from blockwright.format.mapped import MappedDevice, Place
from blockwright.format.qcow2.compressed import Unpacker
from blockwright.format.qcow2.layout import ImageHeader, entries
from blockwright.format.qcow2.map import ClusterMap
from blockwright.units import KiB, align_up

DIRTY_BITMAP: Final = "qemu:dirty-bitmap:"
"""What a bitmap's meta context is called before its name, as QEMU has it."""


class Qcow2Device(MappedDevice, TellingDevice):
    """Reads what ``clusters`` maps. ``file`` holds the tables, ``data_file`` the data where it is not in ``file``.

    All three devices are closed with it, ``file`` unless ``owns`` is False; a data file that is given has the data of
    all clusters at their own offset.
    """

    def __init__(
        self,
        file: BlockDevice,
        image: ImageHeader,
        clusters: ClusterMap,
        size: int,
        *,
        data_file: BlockDevice | None = None,
        below: BlockDevice | None = None,
        traits: Traits | None = None,
        owns: bool = True,
    ) -> None:
        traits = traits or reading_traits(image, file, data_file, below)
        super().__init__(
            data_file or file, below, size, traits, unit=image.geometry.cluster, owns=owns or data_file is not None
        )
        self._owns_file = owns
        self._file = file
        self._image = image
        self._clusters = clusters
        self._loaded: dict[str, Checkpoint] = {}
        self._unpacker = Unpacker(file, image.geometry, image.record.compression_type)

    @property
    def file(self) -> BlockDevice:
        """The file that holds the tables."""
        return self._file

    @property
    def image(self) -> ImageHeader:
        """The header as it was read, or was written last."""
        return self._image

    def describe(self) -> Description:
        from blockwright.format.qcow2.describe import describe

        return describe(self)

    @property
    def _below_size(self) -> int:
        """The bytes of the device below, which grows where what is on this disk is brought down to it."""
        return 0 if self._below is None else self._below.size

    def resolve(self, offset: int, end: int) -> Iterator[Place]:
        return self._clusters.resolve(offset, end, self._below_size)

    def _resolve_ready(self, offset: int, end: int) -> Iterator[Place | None]:
        return self._clusters.resolve_ready(offset, end, self._below_size)

    @property
    def contexts(self) -> Mapping[str, Context]:
        # What is no text has no name there.
        return {DIRTY_BITMAP + name: _Marks(self, name) for name in self._bitmap_names() if name.isprintable()}

    def _bitmap_names(self) -> list[str]:
        """Return the names of the bitmaps that can be used."""
        from blockwright.format.qcow2.bitmap import read_bitmaps

        return [each.name for each in read_bitmaps(self._file, self._image) if each.consistent]

    def marks(self, name: str) -> Checkpoint:
        """Return what the bitmap of that name marks. Raises NotFound, UsageError, FormatError."""
        from blockwright.format.qcow2.bitmaps import find_bitmap
        from blockwright.format.qcow2.recording import load

        found = self._loaded.get(name)
        if found is None:
            bitmap = find_bitmap(self._file, self._image, name)
            found = self._loaded[name] = load(self._file, self._image, bitmap)
        return found

    def _unpack(self, place: Place) -> memoryview:
        return self._unpacker.cluster(place.host)

    def _unpacked(self, place: Place) -> memoryview | None:
        return self._unpacker.kept(place.host)

    def _close(self) -> None:
        try:
            super()._close()
        finally:
            if self._host is not self._file and self._owns_file:
                self._file.close()


@dataclass(frozen=True, slots=True)
class _Marks:
    """A bitmap as a meta context: what it marks when it is asked."""

    disk: Qcow2Device
    name: str

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self.disk.marks(self.name).extents(offset, length)


def reading_traits(
    image: ImageHeader, file: BlockDevice, data_file: BlockDevice | None, below: BlockDevice | None
) -> Traits:
    """Return what a device over these can do that is only read."""
    parts = [each for each in (file, data_file, below) if each is not None]
    return Traits(
        parallelism=min(each.traits.parallelism for each in parts),
        minimum_block=max(each.traits.minimum_block for each in parts),
        preferred_block=max(4 * KiB, min(image.geometry.unit, 64 * KiB)),
        waits=max(each.traits.waits for each in parts),
    )


def writing_traits(
    image: ImageHeader, file: BlockDevice, data_file: BlockDevice | None, below: BlockDevice | None
) -> Traits:
    """Return what a device over these can do that is written to."""
    marks = image.record.version >= 3 or below is None
    traits = reading_traits(image, file, data_file, below)
    own = data_file is None
    return replace(traits, writable=True, discard=own, fast_zero=own and marks)


def read_entries(file: BlockDevice, offset: int, count: int) -> array[int]:
    """Return ``count`` entries at ``offset`` of the file; what lies behind its end is 0."""
    length = max(0, min(count * 8, file.size - offset))
    block = file.traits.minimum_block
    data = file.read(offset, min(align_up(length, block), file.size - offset)) if length else b""
    return entries(data[: count * 8].ljust(count * 8, b"\0"))
