"""``blockwright loop``: images as block devices of the kernel.

Knows: flags and how devices are shown. Refuses to know: the loop driver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from blockwright.attach import partitions, verity
from blockwright.cli.options import force_unlocked_option, partition_option, size_value, some_size_value
from blockwright.cli.output import StderrLogger, print_json, print_lines, print_path, table
from blockwright.cli.params import json_option
from blockwright.errors import NotFound, UsageError
from blockwright.resolve import locate
from blockwright.system.linux import loop as driver
from blockwright.system.linux.loop import LoopState


@click.group()
def loop() -> None:
    """Attach images to loop devices, and detach them."""


@loop.command()
@click.argument("image")
@partition_option
@click.option("-r", "--read-only", is_flag=True, help="Open the image for reading only.")
@click.option("--offset", callback=size_value, metavar="SIZE", help="Start there, in bytes (or 1M, 2048s).")
@click.option("--size", callback=some_size_value, metavar="SIZE", help="End after so much.")
@click.option("--block-size", callback=size_value, metavar="SIZE", help="The device's sector; 512 by default.")
@click.option("--direct-io", is_flag=True, help="Read and write past the page cache.")
@click.option("-P", "--partition-scan", is_flag=True, help="Have the kernel look for partitions.")
@click.option("--device", metavar="DEVICE", help="Attach to this device, not to any that is free.")
@force_unlocked_option
@json_option
def attach(  # noqa: PLR0913 - a device's settings
    *,
    image: str,
    partition: int | None,
    read_only: bool,
    offset: int | None,
    size: int | None,
    block_size: int | None,
    direct_io: bool,
    partition_scan: bool,
    device: str | None,
    force_unlocked: bool,
    as_json: bool,
) -> None:
    """Attach IMAGE to a loop device and print the device. It stays until it is detached.

    disk.img:2 is the second partition of an image.
    """
    place = locate(image, partition=partition)
    offset, limit = offset or 0, size or 0
    if place.size is not None:
        limit = limit or place.size - offset
        if offset + limit > place.size or limit <= 0:
            raise UsageError(f"{image}: expected a range within {place.size} bytes, found {limit} from {offset} on")
    found = driver.attach(
        place.path,
        device=device,
        read_only=read_only,
        offset=place.start + offset,
        size_limit=limit,
        block_size=block_size,
        direct_io=direct_io,
        partition_scan=partition_scan,
        force_unlocked=force_unlocked,
        logger=StderrLogger(quiet=True),
    )
    if as_json:
        print_json("blockwright.loop/1", {"devices": [_document(found.state())]})
    else:
        print_path(found.path)


@loop.command()
@click.argument("devices", nargs=-1, required=True)
def detach(devices: Sequence[str]) -> None:
    """Detach loop DEVICES (/dev/loop0, loop0 or 0); when this returns they are free.

    A device that is in use is left alone, and the message says who holds it.
    """
    for device in devices:
        driver.detach(device)


@loop.command()
@click.argument("device")
def refresh(*, device: str) -> None:
    """Have the size of DEVICE follow its image's, which has grown or shrunk."""
    driver.refresh(device)


@loop.command("list")
@json_option
def list_devices(*, as_json: bool) -> None:
    """List the attached loop devices."""
    _show(list(driver.states()), as_json=as_json)


@loop.command()
@click.argument("image")
@json_option
def find(*, image: str, as_json: bool) -> None:
    """Print the loop devices that IMAGE is attached to, by whatever name; exit with 5 where there is none."""
    found = driver.find(image)
    if not found:
        raise NotFound(f"{image}: is not attached to a loop device")
    if as_json:
        _show(found, as_json=True)
    else:
        for each in found:
            print_path(each.path)


@loop.command()
@json_option
def gc(*, as_json: bool) -> None:
    """Detach what was attached by a process that died before it could do so itself, and remove what it mapped.

    So too what it opened with `verity open`.
    """
    results = verity.gc(), partitions.gc()
    detached = [path for result in results for path in result.detached]
    held = [line for result in results for line in result.held]
    if as_json:
        print_json("blockwright.loop.gc/1", {"detached": detached, "held": held})
    else:
        for path in detached:
            print_path(path)
        print_lines(held)


def _show(found: Sequence[LoopState], *, as_json: bool) -> None:
    if as_json:
        print_json("blockwright.loop/1", {"devices": [_document(each) for each in found]})
        return
    rows = [("device", "size", "offset", "block", "mode", "image")]
    rows += [
        (
            each.path,
            str(each.size),
            str(each.offset),
            str(each.block_size),
            "ro" if each.read_only else "rw",
            each.backing + (" (deleted)" if each.deleted else ""),
        )
        for each in found
    ]
    print_lines(table(rows, "<>>><<"))


def _document(found: LoopState) -> dict[str, Any]:
    return {**asdict(found), "backing": found.backing.encode("utf-8", "surrogateescape").decode("utf-8", "replace")}
