"""``blockwright compare``."""

from __future__ import annotations

from typing import Any

import click

from blockwright.cli.options import ImageFormat, force_unlocked_option, image_options
from blockwright.cli.output import print_json, print_lines
from blockwright.cli.params import json_option
from blockwright.compare import compare as compare_devices
from blockwright.resolve import open_device

DIFFERENT = 1


@click.command()
@click.argument("first")
@click.argument("second")
@image_options
@click.option("--strict", is_flag=True, help="Sizes must be equal too; else zeros behind the shorter disk do.")
@force_unlocked_option
@json_option
def compare(
    first: str,
    second: str,
    image_format: ImageFormat,
    strict: bool,  # noqa: FBT001  # click passes flags by name
    force_unlocked: bool,  # noqa: FBT001  # a click flag
    as_json: bool,  # noqa: FBT001  # a click flag
) -> int:
    """Tell whether the disks FIRST and SECOND hold the same bytes, whatever their formats; exit with 1 if not.

    --from says which format FIRST has.
    """
    how: Any = {
        "force_unlocked": force_unlocked,
        "still": not force_unlocked,
        "policy": image_format.policy,
    }
    with (
        open_device(first, form=image_format.form, **how) as left,
        open_device(second, **how) as right,
    ):
        found = compare_devices(left, right, strict=strict)
        sizes = left.size, right.size
    if as_json:
        document = {"equal": found is None, "first_difference": found, "sizes": list(sizes)}
        print_json("blockwright.compare/1", document)
    elif found is None:
        print_lines(["equal"])
    else:
        print_lines([f"different from byte {found} on"])
    return 0 if found is None else DIFFERENT
