"""A new VMDK image: its options, the layout of an empty extent, and the files of each kind.

Knows: what lies where in an image that holds nothing. Refuses to know: what comes to be written.
"""

from __future__ import annotations

import os
import zlib
from array import array
from dataclasses import dataclass
from typing import Final

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.concat import Concat
from blockwright.device.window import Window
from blockwright.errors import UsageError
from blockwright.format.driver import Beside
from blockwright.format.vmdk.descriptor import (
    ADAPTERS,
    KINDS,
    MONOLITHIC_FLAT,
    MONOLITHIC_SPARSE,
    NO_ID,
    SPLIT_FLAT,
    SPLIT_SPARSE,
    STREAM,
    Descriptor,
    Extent,
    next_id,
    text_of,
)
from blockwright.format.vmdk.disk import DescriptorPlace, VmdkDisk
from blockwright.format.vmdk.layout import (
    ENTRIES,
    MAX_TABLES,
    NEWLINES,
    TABLE_SECTORS,
    Flag,
    SparseHeader,
    entry_bytes,
)
from blockwright.format.vmdk.sparse import open_sparse
from blockwright.units import SECTOR, KiB, MiB, align_up, ceil_div

GRAIN: Final = 64 * KiB
GRAIN_SECTORS: Final = GRAIN // SECTOR
DESCRIPTOR_SECTORS: Final = 20
SPLIT: Final = 2047 * MiB
"""Bytes of an extent of a disk in several files: what VMware's products take."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a new image is like: its kind, the adapter that a machine is told of, the level of a stream's deflate."""

    kind: str = MONOLITHIC_SPARSE
    adapter: str | None = None
    level: int | None = None

    def check(self) -> None:
        """Raise UsageError where the options contradict the format or one another."""
        if self.kind not in KINDS:
            raise UsageError(f"vmdk type: expected {', '.join(KINDS)}, found {self.kind[:40]!r}")
        if self.adapter is not None and self.adapter not in ADAPTERS:
            raise UsageError(f"vmdk adapter: expected {', '.join(ADAPTERS)}, found {self.adapter[:40]!r}")
        if self.level is not None and self.kind != STREAM:
            raise UsageError(f"level: expected the type {STREAM}, which is compressed, found {self.kind}")
        if self.level is not None and not 0 <= self.level <= 9:
            raise UsageError(f"level: expected 0 to 9, found {self.level}")

    @property
    def adapter_or_default(self) -> str:
        """The adapter: a stream goes to servers, which have no IDE disks."""
        return self.adapter or ("lsilogic" if self.kind == STREAM else "ide")


@dataclass(frozen=True, slots=True)
class EmptyExtent:
    """An extent without grains: its header, its two directories, and where grains begin."""

    header: SparseHeader
    redundant: array[int]
    directory: array[int]
    end: int


def plan_extent(size: int, *, descriptor: bool) -> EmptyExtent:
    """Return the layout for ``size`` bytes of disk: header, descriptor, and each directory with its tables.

    Raises UsageError for a size that has more tables than any reader takes.
    """
    tables = ceil_div(size, GRAIN * ENTRIES)
    if tables > MAX_TABLES:
        raise UsageError(f"vmdk: expected an extent of at most {MAX_TABLES * ENTRIES * GRAIN} bytes, found {size}")
    room = DESCRIPTOR_SECTORS if descriptor else 0
    redundant = 1 + room
    sectors = ceil_div(tables * 4, SECTOR)
    directory = redundant + sectors + tables * TABLE_SECTORS
    end = align_up(directory + sectors + tables * TABLE_SECTORS, GRAIN_SECTORS)
    header = SparseHeader(
        capacity=size // SECTOR,
        grain_size=GRAIN_SECTORS,
        descriptor_offset=1 if descriptor else 0,
        descriptor_size=room,
        rgd_offset=redundant,
        gd_offset=directory,
        overhead=end,
        newlines=NEWLINES,
        flags=(Flag.NEWLINE_TEST | Flag.REDUNDANT).value,
    )

    def tables_behind(start: int) -> array[int]:
        first = start + sectors
        return array("I", range(first, first + tables * TABLE_SECTORS, TABLE_SECTORS))

    return EmptyExtent(header, tables_behind(redundant), tables_behind(directory), end * SECTOR)


def create_extent(file: BlockDevice, size: int, text: bytes | None) -> None:
    """Make ``file`` an empty extent, with the descriptor ``text`` where one is given. Nothing is flushed.

    What the file held before is lost. Raises UsageError, NoSpace, OSError.
    """
    plan = plan_extent(size, descriptor=text is not None)
    if isinstance(file, ResizableDevice):
        file.resize(0)
        file.resize(plan.end)
    else:
        file.zero(0, plan.end)
    file.write(plan.header.gd_offset * SECTOR, entry_bytes(plan.directory))
    file.write(plan.header.rgd_offset * SECTOR, entry_bytes(plan.redundant))
    if text is not None:
        if len(text) > DESCRIPTOR_SECTORS * SECTOR:
            raise UsageError(f"vmdk: expected a descriptor of {DESCRIPTOR_SECTORS} sectors, found {len(text)} bytes")
        file.write(SECTOR, text)
    file.write(0, plan.header.pack())


def first_id(size: int) -> int:
    """Return the id of an empty disk; what is written first makes another one of it."""
    return next_id(NO_ID, zlib.crc32(size.to_bytes(8, "little")))


def create(file: BlockDevice, size: int, options: Options, beside: Beside | None) -> VmdkDisk:
    """Make ``file`` an empty image of a disk of ``size`` bytes, and return the disk, which does not own ``file``.

    Extents of their own are made with ``beside``. For every kind but a stream. Raises UsageError, NoSpace.
    """
    options.check()
    size = align_up(size, SECTOR)
    if not size:
        raise UsageError("vmdk: expected a disk that is not empty")
    name = os.fsencode("disk.vmdk" if beside is None else beside.name)
    if options.kind == MONOLITHIC_SPARSE:
        found = Descriptor(first_id(size), options.kind, (Extent("RW", size, "SPARSE", name),))
        text = text_of(found, options.adapter_or_default)
        create_extent(file, size, text)
        inner: BlockDevice = open_sparse(file, writable=True, owns=False)
        return VmdkDisk(inner, file, found, DescriptorPlace(file, SECTOR, DESCRIPTOR_SECTORS * SECTOR, text))
    if beside is None:
        raise UsageError(f"vmdk {options.kind}: has several files, and can be written beside a file only")
    extents = extents_of(options.kind, size, beside.name)
    found = Descriptor(first_id(size), options.kind, extents)
    text = text_of(found, options.adapter_or_default)
    if isinstance(file, ResizableDevice):
        file.resize(len(text))
    file.write(0, text)
    parts = [_new_part(beside(os.fsdecode(extent.name)), extent) for extent in extents]
    inner = parts[0] if len(parts) == 1 else Concat.of(*parts)
    return VmdkDisk(inner, file, found, DescriptorPlace(file, 0, len(text), text))


def _new_part(file: BlockDevice, extent: Extent) -> BlockDevice:
    """Make the file of an extent, and return its bytes; the file stays its owner's."""
    if extent.kind == "SPARSE":
        create_extent(file, extent.size, None)
        return open_sparse(file, writable=True, owns=False)
    if isinstance(file, ResizableDevice):
        file.resize(extent.size)
    return Window(file, 0, extent.size, owns=False)


def extents_of(kind: str, size: int, name: str) -> tuple[Extent, ...]:
    """Return the extents of a disk whose descriptor is the file ``name``: files beside it, named after it."""
    stem = name.removesuffix(".vmdk") or name
    if kind == MONOLITHIC_FLAT:
        return (Extent("RW", size, "FLAT", os.fsencode(f"{stem}-flat.vmdk")),)
    what, letter = {SPLIT_SPARSE: ("SPARSE", "s"), SPLIT_FLAT: ("FLAT", "f")}[kind]
    return tuple(
        Extent("RW", min(SPLIT, size - start), what, os.fsencode(f"{stem}-{letter}{number:03d}.vmdk"))
        for number, start in enumerate(range(0, size, SPLIT), 1)
    )
