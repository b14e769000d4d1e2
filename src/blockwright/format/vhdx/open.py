"""A file becomes a VHDX disk: its log is replayed, and the parent that it names is opened by who may.

Knows: what must hold before a byte of the disk is read or written. Refuses to know: paths and policies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Protocol
from uuid import UUID

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, ReadOnly, Unsupported
from blockwright.format.blocks import apart, overlaps
from blockwright.format.vhdx import layout
from blockwright.format.vhdx.device import VhdxDevice
from blockwright.format.vhdx.image import Image, read_headers, read_image, read_log
from blockwright.format.vhdx.layout import BAT, FULL, HEADERS, METADATA, OFFSET, PARTIAL, RESERVED, SPEC, STATE
from blockwright.format.vhdx.replayed import Replayed, replay
from blockwright.units import MiB

_STATES = frozenset({layout.NOT_PRESENT, layout.UNDEFINED, layout.ZERO, layout.UNMAPPED, FULL, PARTIAL})


class Opener(Protocol):
    """Opens the images that an image names, by the caller's policy."""

    def below(self, name: bytes, form: str | None, what: str = ...) -> BlockDevice:
        """Return the disk in the image of that name."""


def open_vhdx(file: BlockDevice, files: Opener, *, writable: bool = False, owns: bool = True) -> VhdxDevice:
    """Return the disk in ``file``, which it owns from then on unless ``owns`` is False; after an exception the caller
    still does.

    What a log holds is brought to the file where it is writable, else it is read over it. Raises FormatError,
    ReadOnly, and what ``files`` raises.
    """
    if writable and not file.traits.writable:
        raise ReadOnly("vhdx: expected a file to write to, found one that is read-only")
    header, current = read_headers(file)
    log = read_log(file, header)
    view = file if log is None else Replayed(file, log, owns=owns)
    image = read_image(view, header, current)
    wrong = next(problems(view, image), None)
    if wrong is not None:
        _, message, offset = wrong
        raise Corrupt(f"vhdx {message}", offset=offset, spec=SPEC)
    parent = image.parameters.parent
    below = None if parent is None else _parent(parent, files)
    try:
        if log is not None and writable:
            replay(file, log)
            view = file
        if writable and any(header.log_guid):
            image = _forget_log(file, image)
    except BaseException:
        if below is not None:
            below.close()
        raise
    return VhdxDevice(view, image, below, writable=writable, owns=owns)


def _forget_log(file: BlockDevice, image: Image) -> Image:
    """Have both headers say that the log is empty, the one that is not in force first."""
    header, current = image.header, image.current
    for _ in HEADERS:
        header = header.replace(sequence=header.sequence + 1, log_guid=bytes(16))
        current = 1 - current
        file.write(HEADERS[current], layout.sealed(header.pack()))
        file.flush()
    return Image(header, current, image.regions, image.parameters, image.table)


def problems(file: BlockDevice, image: Image) -> Iterator[tuple[str, str, int]]:
    """Yield (rule, what is wrong, the byte where) of blocks and regions that lie wrong."""
    header, bat, metadata = image.header, image.regions[BAT], image.regions[METADATA]
    parameters, ratio = image.parameters, image.parameters.ratio
    places = [
        (0, MiB, "the headers"),
        (header.log_offset, header.log_offset + header.log_length, "the log"),
        (bat.offset, bat.offset + bat.length, "the block table"),
        (metadata.offset, metadata.offset + metadata.length, "the metadata"),
    ]
    blocks = []
    for slot, entry in enumerate(image.table):
        state, start = entry & STATE, entry & OFFSET
        at = bat.offset + 8 * slot
        if state not in _STATES or entry & RESERVED or (state == PARTIAL and parameters.parent is None):
            yield "vhdx.block.state", f"block table entry {slot}: expected a known state, found {entry:#x}", at
        elif state not in (FULL, PARTIAL):
            continue
        elif start < MiB or start >= file.size:
            message = f"block table entry {slot}: expected a place within {file.size} bytes, found {start}"
            yield "vhdx.block.range", message, at
        elif slot % (ratio + 1) == ratio:
            places.append((start, start + MiB, f"block table entry {slot}"))
        else:
            blocks.append((start, slot))
    if apart((start for start, _ in blocks), parameters.block, places):
        return
    places += [(start, start + parameters.block, f"block table entry {slot}") for start, slot in blocks]
    for start, what, over in overlaps(places):
        yield "vhdx.overlap", f"{what}: expected a place of its own, found it over {over}", start


def _parent(locator: Mapping[str, str], files: Opener) -> BlockDevice:
    """Return the disk that a differencing image stands on. Raises Corrupt where it has changed since."""
    name = locator.get("relative_path") or locator.get("absolute_win32_path")
    if not name:
        raise Unsupported("vhdx parent: expected a relative or absolute path, found none")
    plain = name.rstrip("\0").replace("\\", "/").encode("utf-8", "replace").decode()
    parent = files.below(os.fsencode(plain), None, "parent")
    actual = "" if not isinstance(parent, VhdxDevice) else str(UUID(bytes_le=parent.data_guid))
    wanted = [locator.get(key, "").strip("{}").lower() for key in ("parent_linkage", "parent_linkage2")]
    if not actual or actual not in wanted:
        parent.close()
        raise Corrupt(
            f"vhdx parent: expected the data id {wanted[0][:36]}, found {actual or 'another format'}: it was changed",
            spec=SPEC,
        )
    return parent
