"""An open device -> its picture: what ``inspect`` tells, with extents, contents, boot code and findings.

Knows: which parts a picture has, and where each comes from. Refuses to know: how it is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise

from blockwright.check import Place
from blockwright.device.base import BlockDevice
from blockwright.device.window import Window
from blockwright.draw.picture import MAX_FINDINGS, Boot, Contents, FileSystem, Found, Kind, Part, Picture
from blockwright.draw.words import plain
from blockwright.errors import BlockwrightError, FormatError
from blockwright.inspect import Region, Report
from blockwright.picture import boot as boot_code
from blockwright.picture.extents import Extents
from blockwright.picture.folders import Budget, contents_of
from blockwright.resolve import open_file_system
from blockwright.table.gpt.names import TYPES, attribute_names
from blockwright.table.gpt.names import type_name as gpt_type_name
from blockwright.table.mbr.names import type_name as mbr_type_name
from blockwright.table.partition import AnyPartition, AnyTable, MbrTable, Partition
from blockwright.units import format_size

MAX_BOOT = 26
"""Places of boot code that a picture has: as many as letters tell apart."""


@dataclass(frozen=True, slots=True)
class Look:
    """How closely to look: whether contents are counted, and what a check has found already."""

    contents: bool = False
    places: Iterable[Place] | None = None


def take(device: BlockDevice, report: Report, look: Look | None = None) -> Picture:
    """Return the picture of a device that ``report`` tells of. The device stays open; nothing of it is changed.

    What cannot be read of contents or boot code is left out and said so, so this raises only what reading the device
    and its extents raises.
    """
    look = look or Look()
    extents, budget = Extents(device), Budget()
    parts: list[Part] = []
    boots: list[Boot] = []
    table = report.table
    if table is not None:
        boots += boot_code.first_sector(device)
        starts = [region.start for region in report.regions if region.size]
        if table.kind != "gpt" and starts:
            boots += boot_code.gap(device, table.sector_size, min(starts) - table.sector_size)
    for part, region in _laid_out(report):
        contents, found = _inside(device, region, budget, look) if region else (None, [])
        parts.append(
            replace(part, bins=extents.bins(part.start + part.size - part.shown, part.shown), contents=contents)
        )
        boots += found
    findings, more, checked = _findings(look.places)
    return Picture(
        source=plain(report.source),
        size=report.size,
        format=_format(report),
        table=f"{table.kind} {table.identity}" if table else "no partition table",
        sector_size=table.sector_size if table else 0,
        parts=tuple(parts),
        boot=tuple(sorted(boots, key=lambda each: each.start)[:MAX_BOOT]),
        findings=findings,
        more_findings=more,
        checked=checked,
    )


def _format(report: Report) -> str:
    form = report.format
    return f"{plain(form.name)}, {format_size(form.file_size)} in the file" if form else ""


def _laid_out(report: Report) -> Iterator[tuple[Part, Region | None]]:
    """Yield the disk from its first byte to its last: tables, partitions, and what lies between."""
    table, position = report.table, 0
    low, high = _usable(table) if table else (0, report.size)
    for region in report.regions:
        yield from ((each, None) for each in _between(position, region.start, low, high))
        start = max(position, region.start)
        end = max(start, min(region.start + region.size, report.size))
        yield _part(region, end - start), region
        position = end
    yield from ((each, None) for each in _between(position, report.size, low, high))


def _usable(table: AnyTable) -> tuple[int, int]:
    """Return the first byte behind a table in front, and the first of one at the end."""
    if isinstance(table, MbrTable):
        return table.sector_size, table.size
    return table.usable_start, table.usable_end


def _between(start: int, end: int, low: int, high: int) -> Iterator[Part]:
    if end <= start:  # partitions may overlap
        return
    edges = sorted({start, end, *(each for each in (low, high) if start < each < end)})
    for first, last in pairwise(edges):
        kind = Kind.FREE if low <= first < high else Kind.TABLE
        yield Part(kind, first, last - first, last - first, ())


def _part(region: Region, shown: int) -> Part:
    found, part = region.file_system, region.partition
    system = (
        None
        if found is None
        else FileSystem(plain(found.kind), plain(found.label), plain(found.uuid), found.usage.size, found.usage.free)
    )
    if part is None:
        return Part(
            Kind.WHOLE,
            region.start,
            region.size,
            shown,
            (),
            file_system=system,
            problem=plain(region.problem),
            foreign=region.foreign,
        )
    kind, name, flags = _words(part)
    return Part(
        Kind.PARTITION,
        region.start,
        region.size,
        shown,
        (),
        number=part.number,
        type=plain(kind),
        name=plain(name),
        identity=part.identity,
        flags=tuple(map(plain, flags)),
        file_system=system,
        problem=plain(region.problem),
        foreign=region.foreign,
    )


def _words(part: AnyPartition) -> tuple[str, str, list[str]]:
    """Return a partition's type, name and flags as its table writes them."""
    if isinstance(part, Partition):
        return gpt_type_name(part.type_guid), part.name, attribute_names(part.attributes)
    return mbr_type_name(part.os_type), "", ["active"] if part.active else []


def _inside(device: BlockDevice, region: Region, budget: Budget, look: Look) -> tuple[Contents | None, list[Boot]]:
    """Return what fills a region's file system, and what of it starts the disk."""
    part, start = region.partition, region.start
    with Window(device, start, region.size, owns=False) as window:
        if isinstance(part, Partition) and part.type_guid == TYPES["bios-boot"]:
            found = boot_code.gap(window, 0, region.size)
            return None, [replace(each, start=start + each.start) for each in found]
        if region.file_system is None:
            return None, []
        boots = list(boot_code.sector(window, start, region.file_system.kind))
        with suppress(BlockwrightError), open_file_system(window, source="") as system:
            contents = contents_of(system, budget) if look.contents else None
            return contents, boots + list(boot_code.files(system, start))
    return None, boots


def _findings(places: Iterable[Place] | None) -> tuple[tuple[Found, ...] | None, int, tuple[str, ...]]:
    """Return the findings that are listed, how many more there are, and what was looked at."""
    if places is None:
        return None, 0, ()
    found: list[Found] = []
    more, checked = 0, []
    try:
        for place in places:
            checked.append(f"{plain(place.name)} ({place.kind})")
            for each in place.findings:
                if len(found) < MAX_FINDINGS:
                    offset = None if each.offset is None else place.start + each.offset
                    found.append(Found(plain(place.name), plain(each.rule), plain(each.message, 500), offset))
                else:
                    more += 1
    except FormatError as error:
        found.append(Found(plain(error.source or ""), "unreadable", plain(str(error.args[0]), 500), error.offset))
    return tuple(found), more, tuple(checked)
