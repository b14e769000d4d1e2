"""A file becomes a VMDK disk: its descriptor is found, and the extents and the parent that it names are opened by who
may.

Knows: which extents fit which descriptor. Refuses to know: paths and policies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from blockwright.device.base import BlockDevice
from blockwright.device.concat import Concat
from blockwright.device.memory import ZeroDevice
from blockwright.device.window import Window
from blockwright.errors import Corrupt, ReadOnly, Unsupported
from blockwright.format.describe import Described
from blockwright.format.vmdk import descriptor as text
from blockwright.format.vmdk.descriptor import MONOLITHIC_SPARSE, NO_PARENT, STREAM, Descriptor, Extent
from blockwright.format.vmdk.disk import DescriptorPlace, VmdkDisk
from blockwright.format.vmdk.layout import MAX_DESCRIPTOR, SPEC
from blockwright.format.vmdk.sparse import open_sparse, read_header
from blockwright.units import SECTOR, align_down

SPARSE_MARK = b"KDMV"
ESX_MARK = b"COWD"


class Opener(Protocol):
    """Opens the files that an image names, by the caller's policy."""

    def below(self, name: bytes, form: str | None, what: str = ...) -> BlockDevice:
        """Return the disk in the image of that name."""

    def part(self, name: bytes, what: str, *, writable: bool = ...) -> BlockDevice:
        """Return the file of that name."""


def open_vmdk(file: BlockDevice, files: Opener, *, writable: bool = False) -> VmdkDisk:
    """Return the disk in ``file``, which it owns from then on; after an exception the caller still does.

    Raises FormatError, ReadOnly, and what ``files`` raises.
    """
    head = file.read(0, min(4, file.size))
    if head == ESX_MARK:
        raise Unsupported("vmdk: an ESX server's sparse extent (vmfsSparse) is not read")
    if writable and not file.traits.writable:
        raise ReadOnly("vmdk: expected a file to write to, found one that is read-only")
    opened: list[BlockDevice] = []
    try:
        disk = (_open_embedded if head == SPARSE_MARK else _open_split)(file, files, opened, writable=writable)
    except BaseException:
        for each in reversed(opened):
            each.close()
        raise
    return disk


def read_embedded(file: BlockDevice) -> tuple[Descriptor, DescriptorPlace]:
    """Return the descriptor of a disk in one sparse file, and where it stands. Raises FormatError."""
    header = read_header(file)
    offset, room = header.record.descriptor_offset * SECTOR, header.record.descriptor_size * SECTOR
    if not room:
        raise Unsupported("vmdk: is an extent of a disk in several files: open the disk's descriptor")
    content = file.read(offset, room).rstrip(b"\0")
    found = text.parse(content)
    if found.kind not in (MONOLITHIC_SPARSE, STREAM):
        raise Corrupt(
            f"vmdk: expected a descriptor of {MONOLITHIC_SPARSE} or {STREAM}, found {found.kind}", spec=SPEC
        )
    if len(found.extents) != 1 or found.extents[0].kind != "SPARSE":
        raise Corrupt(f"vmdk {found.kind}: expected one extent of the kind SPARSE, found others", spec=SPEC)
    if found.size != header.size:
        raise Corrupt(
            f"vmdk: expected a disk of {header.size} bytes as the header says, found {found.size} in the descriptor",
            offset=offset,
            spec=SPEC,
        )
    return found, DescriptorPlace(file, offset, room, content)


def read_descriptor(file: BlockDevice) -> tuple[Descriptor, DescriptorPlace]:
    """Return the descriptor that a file of its own is, and where it stands. Raises FormatError."""
    if file.size > MAX_DESCRIPTOR:
        raise Corrupt(f"vmdk descriptor: expected at most {MAX_DESCRIPTOR} bytes, found {file.size}", spec=SPEC)
    content = file.read(0, file.size)
    return text.parse(content), DescriptorPlace(file, 0, len(content), content)


def _open_embedded(file: BlockDevice, files: Opener, opened: list[BlockDevice], *, writable: bool) -> VmdkDisk:
    found, place = read_embedded(file)
    below = _parent(found, files, opened)
    inner = open_sparse(file, below, writable=writable)
    return VmdkDisk(inner, file, found, place if writable else None)


def _open_split(file: BlockDevice, files: Opener, opened: list[BlockDevice], *, writable: bool) -> VmdkDisk:
    found, place = read_descriptor(file)
    parent = _parent(found, files, opened)
    named: dict[bytes, BlockDevice] = {}

    def part(extent: Extent) -> BlockDevice:
        device = named.get(extent.name)
        if device is None:
            device = named[extent.name] = files.part(
                extent.name, "extent", writable=writable and extent.access == "RW"
            )
            opened.append(device)
        elif extent.kind == "SPARSE":
            raise Corrupt(f"vmdk: expected an extent of each sparse file, found {extent.name!r} again", spec=SPEC)
        return device

    parts, offset = [], 0
    for extent in found.extents:
        parts.append(_extent(extent, offset, parent, part, writable=writable))
        offset += extent.size
    inner = parts[0] if len(parts) == 1 else Concat.of(*parts)
    others = [*opened, file]
    return VmdkDisk(inner, file, found, place if writable else None, others)


def _extent(
    extent: Extent, offset: int, parent: BlockDevice | None, part: Callable[[Extent], BlockDevice], *, writable: bool
) -> BlockDevice:
    """Return the bytes of one extent, which begins at ``offset`` of the disk."""
    if extent.kind == "ZERO":
        return ZeroDevice(extent.size)
    device = part(extent)
    if extent.kind == "FLAT":
        if extent.start + extent.size > device.size:
            raise Corrupt(
                f"vmdk extent {extent.name!r}: expected {extent.start + extent.size} bytes, found {device.size}",
                spec=SPEC,
            )
        return Window(
            device, extent.start, extent.size, read_only=not (writable and extent.access == "RW"), owns=False
        )
    below = None
    if parent is not None and parent.size > offset:
        length = min(extent.size, align_down(parent.size - offset, SECTOR))
        below = Window(parent, offset, length, owns=False)
    found = open_sparse(device, below, writable=writable and extent.access == "RW", owns=False)
    if found.size != extent.size:
        raise Corrupt(
            f"vmdk extent {extent.name!r}: expected {extent.size} bytes as the descriptor says, found {found.size}",
            spec=SPEC,
        )
    return found


def _parent(found: Descriptor, files: Opener, opened: list[BlockDevice]) -> BlockDevice | None:
    """Return the disk that this one stands on, as it was then. Raises Corrupt where it has changed since."""
    if found.parent is None:
        return None
    parent = files.below(found.parent, None, "parent")
    opened.append(parent)
    actual = parent.descriptor.content_id if isinstance(parent, VmdkDisk) else NO_PARENT
    if actual != found.parent_id:
        what = f"{actual:08x}" if isinstance(parent, Described) else "another format"
        raise Corrupt(
            f"vmdk parent: expected the content id {found.parent_id:08x}, found {what}: it was changed", spec=SPEC
        )
    return parent
