"""``blockwright map``: partitions as block devices.

Knows: flags and how mappings are shown. Refuses to know: how partitions become devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from blockwright.attach import partitions
from blockwright.attach.means import Mapping, Means
from blockwright.cli.output import print_json, print_lines, print_path, table
from blockwright.cli.params import json_option


@click.group("map")
def map_() -> None:
    """Have the partitions of an image, a loop device or any disk as block devices."""


@map_.command()
@click.argument("target")
@click.option(
    "--means",
    type=click.Choice([each.value for each in Means]),
    help="How: the kernel's own scan, partitions added by hand (the default where the disk takes any), or "
    "device-mapper, which makes /dev/mapper/loop0p1.",
)
@click.option("-r", "--read-only", is_flag=True, help="Attach an image, and map by device-mapper, for reading only.")
@json_option
def add(*, target: str, means: str | None, read_only: bool, as_json: bool) -> None:
    """Map every partition of TARGET and print their devices; where one fails, none is mapped.

    TARGET is a block device, or an image, which is attached to a loop device on the way.
    """
    found = partitions.add(target, means=Means(means) if means else None, read_only=read_only)
    _show(found.partitions, as_json=as_json, paths=True)


@map_.command()
@click.argument("target")
@json_option
def rm(*, target: str, as_json: bool) -> None:
    """Remove what `map add` made over TARGET, and the loop device it attached; nothing else.

    What is gone already is no error; while a partition is in use all of them stay.
    """
    gone = partitions.remove(target)
    if as_json:
        print_json("blockwright.map.rm/1", {"removed": gone})


@map_.command("list")
@click.argument("target", required=False)
@json_option
def list_mappings(*, target: str | None, as_json: bool) -> None:
    """List what `map add` made, of TARGET or of all."""
    _show(partitions.mappings(target), as_json=as_json, paths=False)


def _show(found: Sequence[Mapping], *, as_json: bool, paths: bool) -> None:
    if as_json:
        print_json("blockwright.map/1", {"mappings": [_document(each) for each in found]})
    elif paths:
        for each in found:
            print_path(each.path)
    else:
        rows = [("device", "disk", "number", "start", "size", "means")]
        rows += [
            (each.path, each.disk, str(each.number), str(each.start), str(each.size), each.means.value)
            for each in found
        ]
        print_lines(table(rows, "<<>>><"))


def _document(each: Mapping) -> dict[str, Any]:
    return {
        "path": each.path,
        "disk": each.disk,
        "number": each.number,
        "start": each.start,
        "size": each.size,
        "means": each.means.value,
    }
