"""``blockwright inspect``."""

from __future__ import annotations

from typing import Any

import click

from blockwright.cli.options import (
    ImageFormat,
    force_unlocked_option,
    image_options,
    json_option,
    partition_option,
)
from blockwright.cli.output import print_json, print_lines, show_name, table
from blockwright.cli.partitions import partition_document, type_name
from blockwright.inspect import Region, Report
from blockwright.inspect import inspect as inspect_device
from blockwright.resolve import open_device
from blockwright.units import format_size

_MAP_WIDTH = 64


@click.command()
@click.argument("image")
@partition_option
@image_options
@force_unlocked_option
@json_option
def inspect(
    image: str,
    partition: int | None,
    image_format: ImageFormat,
    force_unlocked: bool,  # noqa: FBT001  # click passes flags by name
    as_json: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Tell what IMAGE holds: its table, partitions, file systems, and how full they are.

    IMAGE is a path; disk.img:2 is its second partition.
    """
    with open_device(
        image,
        partition=partition,
        force_unlocked=force_unlocked,
        form=image_format.form,
        policy=image_format.policy,
    ) as device:
        report = inspect_device(device, source=image)
    if as_json:
        print_json("blockwright.inspect/1", _document(report))
    else:
        print_lines(_text(report))


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
    return document


def _text(report: Report) -> list[str]:
    found = report.table
    kind = f"{found.kind} {found.identity}, {found.sector_size}-byte sectors" if found else "no partition table"
    share = report.allocated / report.size if report.size else 0
    allocated = f"{format_size(report.allocated)} allocated ({share:.0%})"
    lines = [f"{report.source}: {format_size(report.size)}, {allocated}, {kind}", *_format_lines(report)]
    if found:
        lines += ["", _map(report), ""]
    rows: list[tuple[str, ...]] = [("", "start", "size", "used", "type", "file system", "label", "identity")]
    rows += [_row(region) for region in report.regions]
    lines += table(rows, "<>>><<<<")
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
        kind or ("unreadable" if region.problem else "-"),
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
