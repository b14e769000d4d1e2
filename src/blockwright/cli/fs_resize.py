"""``blockwright fs resize``.

Knows: arguments. Refuses to know: file systems.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import click

from blockwright.cli.options import (
    ImageFormat,
    NewSize,
    SizedCommand,
    force_unlocked_option,
    image_options,
    new_size_value,
    partition_option,
)
from blockwright.cli.output import print_json, print_lines
from blockwright.cli.params import json_option
from blockwright.device.base import BlockDevice
from blockwright.fs.ext4 import resize as ext4
from blockwright.fs.fat import resize as fat
from blockwright.fs.resize import Wanted
from blockwright.resolve import Known, identify, naming, open_device
from blockwright.units import format_size

LEAST: Final = "min"
"""What SIZE is for the least one."""


def _size_value(ctx: click.Context, param: click.Parameter, value: str | None) -> NewSize | str | None:
    return LEAST if value == LEAST else new_size_value(ctx, param, value)


@click.command(cls=SizedCommand)
@click.argument("image")
@click.argument("size", callback=_size_value, required=False)
@click.option("--minimum", is_flag=True, help="Print the least SIZE, and change nothing.")
@partition_option
@force_unlocked_option
@image_options
@json_option
def resize(
    image: str,
    size: NewSize | str | None,
    minimum: bool,  # noqa: FBT001  # a click flag
    partition: int | None,
    force_unlocked: bool,  # noqa: FBT001  # a click flag
    image_format: ImageFormat,
    as_json: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Give the ext2, ext3, ext4 or FAT file system on IMAGE SIZE bytes; without SIZE all of the file or partition.

    SIZE is such as 20G, +5G or -5G, or min. A file that is too short grows first; shrinking leaves the file or
    partition as long as it was. Called again after it was interrupted, it finishes; what a SIZE with + or - began is
    finished by the size that was meant.
    """
    with (
        open_device(
            image,
            writable=not minimum,
            partition=partition,
            force_unlocked=force_unlocked,
            form=image_format.form,
            policy=image_format.policy,
            alone=True,
        ) as device,
        naming(image),
    ):
        kind = fat if identify(device) is Known.FAT else ext4
        if minimum:
            least = kind.minimum_size(device)
            if as_json:
                print_json("blockwright.fs.resize/1", {"image": image, "minimum": least})
            else:
                print_lines([str(least)])
            return
        report = kind.resize(device, _wanted(kind.minimum_size, device, size))
    if as_json:
        sizes = {"old_size": report.old_size, "size": report.size, "method": report.method}
        print_json("blockwright.fs.resize/1", {"image": image, "kind": report.kind, **sizes})
    else:
        print_lines([f"{report.kind}: {format_size(report.old_size)} to {format_size(report.size)}"])


def _wanted(minimum: Callable[[BlockDevice], int], device: BlockDevice, size: NewSize | str | None) -> Wanted:
    if isinstance(size, NewSize):
        return size.of if size.sign else size.size
    return None if size is None else minimum(device)
