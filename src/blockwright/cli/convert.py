"""``blockwright convert``."""

from __future__ import annotations

import click

from blockwright.cli.options import force_option, force_unlocked_option, json_option, partition_option, quiet_option
from blockwright.cli.output import is_stdout, print_json, print_path, progress_bar
from blockwright.convert import convert as convert_device
from blockwright.resolve import open_device


@click.command()
@click.argument("source")
@click.argument("output")
@click.option("--verify", is_flag=True, help="Read the output back and compare.")
@partition_option
@force_option
@force_unlocked_option
@quiet_option
@json_option
def convert(
    source: str,
    output: str,
    verify: bool,  # noqa: FBT001  # click passes flags by name
    partition: int | None,
    force: bool,  # noqa: FBT001  # a click flag
    force_unlocked: bool,  # noqa: FBT001  # a click flag
    quiet: bool,  # noqa: FBT001  # a click flag
    as_json: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Copy the disk SOURCE to the raw file OUTPUT. Runs of zeros become holes.

    SOURCE may be a part of an image: disk.img:2.
    """
    with (
        open_device(source, partition=partition, force_unlocked=force_unlocked) as device,
        progress_bar("convert", quiet=quiet) as progress,
    ):
        result = convert_device(device, output, force=force, verify=verify, progress=progress)
        size = device.size
    if as_json and not is_stdout(output):
        print_json("blockwright.convert/1", {"output": output, "size": size, "copied": result.copied})
    else:
        print_path(output)
