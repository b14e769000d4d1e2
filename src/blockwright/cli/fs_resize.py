"""``blockwright fs resize``.

Knows: arguments. Refuses to know: file systems.
"""

from __future__ import annotations

import click

from blockwright.cli.options import ImageFormat, force_unlocked_option, image_options, partition_option, size_value
from blockwright.cli.output import print_json, print_lines
from blockwright.cli.params import json_option
from blockwright.fs.ext4 import resize as ext4
from blockwright.fs.fat import resize as fat
from blockwright.resolve import Known, identify, naming, open_device
from blockwright.units import format_size

LEAST = -1
"""What SIZE is for the word ``min``."""


def _size_value(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return LEAST if value == "min" else size_value(ctx, param, value)


@click.command()
@click.argument("image")
@click.argument("size", callback=_size_value, required=False)
@click.option("--minimum", is_flag=True, help="Print the least SIZE, and change nothing.")
@partition_option
@force_unlocked_option
@image_options
@json_option
def resize(
    image: str,
    size: int | None,
    minimum: bool,  # noqa: FBT001  # a click flag
    partition: int | None,
    force_unlocked: bool,  # noqa: FBT001  # a click flag
    image_format: ImageFormat,
    as_json: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Give the ext2, ext3, ext4 or FAT file system on IMAGE SIZE bytes; without SIZE all of the file or partition.

    SIZE may be min. A file that is too short grows first; shrinking leaves the file or partition as long as it was.
    Called again after it was interrupted, it finishes.
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
        report = kind.resize(device, kind.minimum_size(device) if size == LEAST else size)
    if as_json:
        sizes = {"old_size": report.old_size, "size": report.size, "method": report.method}
        print_json("blockwright.fs.resize/1", {"image": image, "kind": report.kind, **sizes})
    else:
        print_lines([f"{report.kind}: {format_size(report.old_size)} to {format_size(report.size)}"])
