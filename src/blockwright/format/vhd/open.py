"""A file becomes a VHD disk: its footer is found, and the parent that it names is opened by who may.

Knows: which footer counts, and which name of a parent. Refuses to know: paths and policies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Protocol

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, FormatError, NotThisFormat, ReadOnly, Unsupported
from blockwright.format.blocks import apart, overlaps
from blockwright.format.vhd import layout
from blockwright.format.vhd.device import DynamicVhd, FixedVhd, Image
from blockwright.format.vhd.layout import (
    DIFFERENCING,
    FIXED,
    FREE,
    MAX_LOCATOR,
    SPEC,
    DynamicHeader,
    Footer,
)
from blockwright.units import SECTOR, align_down, align_up, ceil_div


class Opener(Protocol):
    """Opens the images that an image names, by the caller's policy."""

    def below(self, name: bytes, form: str | None, what: str = ...) -> BlockDevice:
        """Return the disk in the image of that name."""


def read_image(file: BlockDevice) -> Image:
    """Return what the image consists of: by the footer at the end, or its copy where that does not hold.

    A footer of 511 bytes, as old versions of Virtual PC wrote, counts, too. Raises FormatError.
    """
    failures: list[FormatError] = []
    for offset in dict.fromkeys(_places(file)):
        try:
            footer = layout.parse_footer(
                file.read(offset, min(SECTOR, file.size - offset)).ljust(SECTOR, b"\0"), offset
            )
        except FormatError as error:
            failures.append(error)
            continue
        return _image(file, footer, offset)
    failures.sort(key=lambda error: isinstance(error, NotThisFormat))
    raise failures[0] if failures else NotThisFormat("vhd: expected a footer, found a file that is too short")


def _places(file: BlockDevice) -> list[int]:
    """Return where footers are looked for: the end, and the beginning, which has the copy."""
    size = file.size
    if size < SECTOR - 1:
        return []
    return [size - SECTOR if size % SECTOR == 0 else max(0, align_down(size, SECTOR)), 0]


def _image(file: BlockDevice, footer: Footer, offset: int) -> Image:
    size = file.size
    if footer.kind == FIXED:
        if offset == 0 or footer.size > offset:
            raise Corrupt(
                f"vhd: expected {footer.size} bytes of a fixed disk before the footer, found {offset}", spec=SPEC
            )
        return Image(footer, None, offset)
    at = footer.data_offset
    if at % SECTOR or not SECTOR <= at <= size - DynamicHeader.SIZE:
        raise Corrupt(
            f"vhd: expected a dynamic header at a sector within {size} bytes, found it at {at}",
            offset=offset + 16,
            spec=SPEC,
        )
    header = layout.parse_header(file.read(at, DynamicHeader.SIZE), at, footer.size, size)
    return Image(footer, header, offset or align_up(size, SECTOR))


def open_vhd(file: BlockDevice, files: Opener, *, writable: bool = False, owns: bool = True) -> FixedVhd | DynamicVhd:
    """Return the disk in ``file``, which it owns from then on unless ``owns`` is False; after an exception the caller
    still does.

    Raises FormatError, ReadOnly, and what ``files`` raises.
    """
    if writable and not file.traits.writable:
        raise ReadOnly("vhd: expected a file to write to, found one that is read-only")
    image = read_image(file)
    if image.header is None:
        return FixedVhd(file, image.footer, writable=writable, owns=owns)
    count = ceil_div(image.footer.size, image.header.block_size)
    table = layout.entries(file.read(image.header.table_offset, 4 * count))
    wrong = next(problems(file, image, table), None)
    if wrong is not None:
        _, message, offset = wrong
        raise Corrupt(f"vhd {message}", offset=offset, spec=SPEC)
    below = None
    if image.footer.kind == DIFFERENCING:
        below = _parent(file, image.header, files)
    return DynamicVhd(file, image, table, below, writable=writable, owns=owns)


def problems(file: BlockDevice, image: Image, table: Sequence[int]) -> Iterator[tuple[str, str, int]]:
    """Yield (rule, what is wrong, the byte where) of blocks that lie behind the end or over something else."""
    header = image.header
    assert header is not None, "the caller looked"
    at, length = header.table_offset, layout.bitmap_bytes(header.block_size) + header.block_size
    places = [
        (0, SECTOR, "the copy of the footer"),
        (image.footer.data_offset, image.footer.data_offset + DynamicHeader.SIZE, "the dynamic header"),
        (at, at + 4 * len(table), "the table"),
    ]
    used = [entry * SECTOR for entry in table if entry != FREE]
    if apart(used, length, places) and max(used, default=0) + layout.bitmap_bytes(header.block_size) <= file.size:
        return
    for index, entry in enumerate(table):
        if entry == FREE:
            continue
        start = entry * SECTOR
        if start + layout.bitmap_bytes(header.block_size) > file.size:
            message = f"block {index}: expected to lie within the {file.size} bytes of the file, found it at {start}"
            yield "vhd.block.range", message, at + 4 * index
        else:
            places.append((start, start + length, f"block {index}"))
    for start, what, over in overlaps(places):
        yield "vhd.block.overlap", f"{what}: expected a place of its own, found it over {over}", start


def _parent(file: BlockDevice, header: DynamicHeader, files: Opener) -> BlockDevice:
    """Return the disk that a differencing image stands on. Raises Corrupt where it is another one than then."""
    parent = files.below(_parent_name(file, header), None, "parent")
    actual = parent.footer.uuid if isinstance(parent, FixedVhd | DynamicVhd) else None
    if actual != header.parent_uuid:
        parent.close()
        found = "another format" if actual is None else actual.hex()
        raise Corrupt(f"vhd parent: expected the id {header.parent_uuid.hex()}, found {found}", spec=SPEC)
    return parent


def _parent_name(file: BlockDevice, header: DynamicHeader) -> bytes:
    """Return the parent's name: relative before the plain name before an absolute one. Raises FormatError."""
    found = {each.platform: each for each in layout.locators(header)}
    for platform in (b"W2ru", b"W2ku"):
        locator = found.get(platform)
        if platform == b"W2ku" and any(header.parent_name):
            return _host_name(header.parent_name.decode("utf-16-be", "replace").split("\0", 1)[0])
        if locator is None:
            continue
        if locator.length > MAX_LOCATOR or locator.offset + locator.length > file.size:
            raise Corrupt(
                f"vhd parent locator: expected at most {MAX_LOCATOR} bytes within the file, found {locator.length} "
                f"at {locator.offset}",
                spec=SPEC,
            )
        return _host_name(file.read(locator.offset, locator.length).decode("utf-16-le", "replace"))
    raise Unsupported("vhd parent: expected a relative, plain or absolute name of Windows, found none")


def _host_name(name: str) -> bytes:
    """Return a name of Windows as one of this host's."""
    return os.fsencode(name.rstrip("\0").replace("\\", "/").encode("utf-8", "replace").decode())
