"""What is wrong with the structures of a VHDX image, with the byte where it is.

Knows: the rules between copies, log, table and file. Refuses to know: how they are mended.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from blockwright.device.base import BlockDevice
from blockwright.errors import FormatError
from blockwright.finding import Finding
from blockwright.format.blocks import cut_off
from blockwright.format.vhdx import layout
from blockwright.format.vhdx.image import Image, read_headers, read_image, read_log
from blockwright.format.vhdx.layout import (
    BAT,
    FULL,
    HEADER_BYTES,
    HEADERS,
    METADATA,
    OFFSET,
    PARTIAL,
    REGION_TABLES,
    STATE,
    TABLE_BYTES,
)
from blockwright.format.vhdx.open import problems
from blockwright.format.vhdx.replayed import Replayed

LEAK = "vhdx.leak"
HEADER = "vhdx.header"
LOG = "vhdx.log"
MAX_FINDINGS = 1000


def check(file: BlockDevice) -> list[Finding]:
    """Return what is wrong, at most MAX_FINDINGS of it. Raises FormatError where nothing can be read."""
    return list(islice(_check(file), MAX_FINDINGS))


def _check(file: BlockDevice) -> Iterator[Finding]:
    header, current = read_headers(file)
    yield from _headers(file)
    log = read_log(file, header)
    if log is not None:
        message = "log: expected it to be empty, found entries that the next one to write brings to their places"
        yield Finding(LOG, message, header.log_offset, repairable=True)
    elif any(header.log_guid):
        message = "log: expected entries of the log that the header names, found none"
        yield Finding(LOG, message, header.log_offset, repairable=True)
    view = file if log is None else Replayed(file, log, owns=False)
    yield from _regions(view)
    image = read_image(view, header, current)
    yield from (Finding(rule, message, offset) for rule, message, offset in problems(view, image))
    yield from _cut(view, image)
    end = _used_end(image)
    if view.size > end:
        yield Finding(LEAK, f"file: expected it to end at {end}, found {view.size - end} unused bytes", end)


def _headers(file: BlockDevice) -> Iterator[Finding]:
    for offset in HEADERS:
        try:
            layout.parse_header(file.read(offset, HEADER_BYTES), offset)
        except FormatError as error:
            yield Finding(HEADER, str(error.args[0]), error.offset, repairable=True)


def _regions(file: BlockDevice) -> Iterator[Finding]:
    found = []
    for offset in REGION_TABLES:
        data = file.read(offset, TABLE_BYTES)
        try:
            layout.parse_regions(data, offset, file.size)
            found.append(data)
        except FormatError as error:
            yield Finding("vhdx.regions", str(error.args[0]), error.offset)
    if len(found) == 2 and found[0] != found[1]:
        yield Finding("vhdx.regions", "region tables: expected two copies, found two that differ", REGION_TABLES[1])


def _cut(file: BlockDevice, image: Image) -> Iterator[Finding]:
    """Find blocks that the file ends within."""
    parameters, chunk = image.parameters, image.parameters.ratio + 1
    starts = (
        (slot - slot // chunk, entry & OFFSET)
        for slot, entry in enumerate(image.table)
        if entry & STATE in (FULL, PARTIAL) and slot % chunk != chunk - 1
    )
    for index, message in cut_off(starts, parameters.block, parameters.size, file.size):
        slot = index + index // parameters.ratio
        yield Finding("vhdx.block.cut", message, image.regions[BAT].offset + 8 * slot)


def _used_end(image: Image) -> int:
    """Return the end of the last block or region."""
    header, block, ratio = image.header, image.parameters.block, image.parameters.ratio
    ends = [header.log_offset + header.log_length]
    ends += [image.regions[guid].offset + image.regions[guid].length for guid in (BAT, METADATA)]
    for slot, entry in enumerate(image.table):
        if entry & STATE in (FULL, PARTIAL):
            ends.append((entry & OFFSET) + (layout.MIN_BLOCK if slot % (ratio + 1) == ratio else block))
    return max(ends)
