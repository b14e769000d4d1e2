"""``blockwright inspect``."""

from __future__ import annotations

import sys
from typing import Any

import click

from blockwright.cli.options import ImageFormat, force_option, force_unlocked_option, image_options, partition_option
from blockwright.cli.output import print_json, print_lines, print_path, show_name, table
from blockwright.cli.params import json_option
from blockwright.cli.partitions import partition_document, type_name
from blockwright.cli.picture import places_of, terminal_style, write_picture
from blockwright.device.base import BlockDevice
from blockwright.draw.picture import Picture
from blockwright.draw.terminal import MAX_WIDTH, MIN_WIDTH, draw
from blockwright.inspect import Region, Report
from blockwright.inspect import inspect as inspect_device
from blockwright.picture import Look, take
from blockwright.resolve import open_device
from blockwright.units import format_size

_MAP_WIDTH = 64


@click.command()
@click.argument("image")
@partition_option
@image_options
@force_unlocked_option
@force_option
@click.option("--svg", metavar="FILE", help="Draw it, with what fills it and what is wrong with it, as SVG.")
@click.option("--html", metavar="FILE", help="The same as one HTML page, which needs no network and no script.")
@click.option(
    "--width",
    type=click.IntRange(MIN_WIDTH, MAX_WIDTH),
    metavar="COLUMNS",
    help="Draw this wide, to a pipe too.  [default: the terminal's]",
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours of the drawing; auto looks at NO_COLOR and TERM.",
)
@json_option
def inspect(image: str, image_format: ImageFormat, **options: Any) -> None:
    """Tell what IMAGE holds: its table, partitions, file systems, and how full they are.

    IMAGE is a path; disk.img:2 is its second partition. On a terminal the disk is drawn as wide as that is.
    """
    outputs = [(path, name) for name in ("svg", "html") if (path := options[name]) is not None]
    style = None if options["as_json"] else terminal_style(options["width"], options["color"])
    with open_device(
        image,
        partition=options["partition"],
        force_unlocked=options["force_unlocked"],
        form=image_format.form,
        policy=image_format.policy,
    ) as device:
        report = inspect_device(device, source=image)
        picture = _picture(device, report, image_format, options) if outputs or style else None
    for path, kind in outputs:
        assert picture is not None
        write_picture(path, picture, kind, force=options["force"])
    if options["as_json"]:
        print_json("blockwright.inspect/1", _document(report))
    elif outputs:
        for path, _ in outputs:
            print_path(path)
    else:
        print_lines(_head(report))
        if picture and style:
            sys.stdout.write("".join(f"{line}\n" for line in ("", *draw(picture, style), "")))  # printable as it is
        elif report.table:
            print_lines(["", _map(report), ""])
        print_lines(_rows(report))


def _picture(device: BlockDevice, report: Report, image_format: ImageFormat, options: dict[str, Any]) -> Picture:
    if options["svg"] is None and options["html"] is None:
        return take(device, report)
    places = places_of(
        report.source,
        partition=options["partition"],
        force_unlocked=options["force_unlocked"],
        form=image_format.form,
        policy=image_format.policy,
    )
    return take(device, report, Look(contents=True, places=places))


def _document(report: Report) -> dict[str, Any]:
    found = report.table
    return {
        "source": report.source,
        "size": report.size,
        "allocated": report.allocated,
        "format": _format_document(report),
        "table": None
        if found is None
        else {"kind": found.kind, "guid": found.identity, "sector_size": found.sector_size},
        "regions": [_region_document(region) for region in report.regions],
        "findings": [{"rule": each.rule, "message": each.message, "offset": each.offset} for each in report.findings],
    }


def _format_document(report: Report) -> dict[str, Any] | None:
    form = report.format
    if form is None:
        return None
    document: dict[str, Any] = {"name": form.name, "file_size": form.file_size, **dict(form.details)}
    return document | {"snapshots": list(form.snapshots), "bitmaps": list(form.bitmaps)}


def _format_lines(report: Report) -> list[str]:
    form = report.format
    if form is None:
        return []
    told = ", ".join(f"{name} {value}" for name, value in form.details)
    lines = [f"{form.name}: {format_size(form.file_size)} in the file, {told}"]
    lines += [f"snapshot {show_name(each.encode('utf-8', 'surrogateescape'))}" for each in form.snapshots]
    lines += [f"bitmap {show_name(each.encode('utf-8', 'surrogateescape'))}" for each in form.bitmaps]
    return lines


def _region_document(region: Region) -> dict[str, Any]:
    document: dict[str, Any] = {"start": region.start, "size": region.size, "allocated": region.allocated}
    part, system = region.partition, region.file_system
    document["partition"] = part and partition_document(part)
    document["file_system"] = system and {
        "kind": system.kind,
        "label": system.label,
        "uuid": system.uuid,
        "features": list(system.features),
        "size": system.usage.size,
        "free": system.usage.free,
        "block_size": system.usage.block_size,
        "inodes": system.usage.inodes,
        "inodes_free": system.usage.inodes_free,
    }
    if region.problem:
        document["problem"] = region.problem
    if region.foreign:
        document["foreign"] = region.foreign
    return document


def _head(report: Report) -> list[str]:
    found = report.table
    kind = f"{found.kind} {found.identity}, {found.sector_size}-byte sectors" if found else "no partition table"
    share = report.allocated / report.size if report.size else 0
    allocated = f"{format_size(report.allocated)} allocated ({share:.0%})"
    return [f"{report.source}: {format_size(report.size)}, {allocated}, {kind}", *_format_lines(report)]


def _rows(report: Report) -> list[str]:
    rows: list[tuple[str, ...]] = [("", "start", "size", "used", "type", "file system", "label", "identity")]
    rows += [_row(region) for region in report.regions]
    lines = table(rows, "<>>><<<<")
    lines += [f"{region.problem}" for region in report.regions if region.problem]
    lines += [f"damaged: {finding}" for finding in report.findings]
    return lines


def _row(region: Region) -> tuple[str, ...]:
    part, system = region.partition, region.file_system
    used = kind = label = identity = ""
    if system:
        usage = system.usage
        used = f"{(usage.size - usage.free) / usage.size:.0%}" if usage.size else ""
        kind, label, identity = system.kind, show_name(system.label.encode("utf-8", "surrogateescape")), system.uuid
    return (
        str(part.number) if part else "-",
        str(region.start),
        format_size(region.size),
        used,
        type_name(part) if part else "",
        kind or region.foreign or ("unreadable" if region.problem else "-"),
        label,
        part.identity if part else identity,
    )


def _map(report: Report) -> str:
    """Draw the disk to scale: each partition's number over its run, dots where nothing is."""
    cells = ["."] * _MAP_WIDTH
    for region in report.regions:
        first = region.start * _MAP_WIDTH // report.size
        last = max(first, (region.start + region.size - 1) * _MAP_WIDTH // report.size)
        number = str(region.partition.number) if region.partition else "-"
        for cell in range(first, last + 1):
            cells[cell] = "="
        cells[(first + last) // 2] = number[-1]
    return f"[{''.join(cells)}]"
