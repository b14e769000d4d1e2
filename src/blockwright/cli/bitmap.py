"""``blockwright disk bitmap``."""

from __future__ import annotations

from typing import Any

import click

from blockwright.cli.options import ImageFormat, size_value
from blockwright.cli.output import print_json, print_lines, show_name, table
from blockwright.cli.params import json_option
from blockwright.cli.snapshot import image_argument, images_of
from blockwright.format.qcow2.bitmap import AUTO, IN_USE, Bitmap
from blockwright.units import format_size


@click.group()
def bitmap() -> None:
    """Keep in a qcow2 image which parts of its disk change, for copies of those alone.

    \b
    Examples:
      blockwright disk bitmap create disk.qcow2 daily
      blockwright convert --changed-since daily disk.qcow2 copy.img
    """  # noqa: D301  # click leaves lines as they are below a real backspace


@bitmap.command("list")
@image_argument
@json_option
def bitmap_list(image: str, image_format: ImageFormat, force_unlocked: bool, as_json: bool) -> None:  # noqa: FBT001  # click
    """List the bitmaps of IMAGE."""
    found = images_of(image_format, force_unlocked).bitmaps(image)
    if as_json:
        print_json("blockwright.bitmaps/1", {"bitmaps": [_document(each) for each in found]})
        return
    rows: list[tuple[str, ...]] = [("name", "granularity", "state")]
    for each in found:
        name = show_name(each.name.encode("utf-8", "surrogateescape"))
        rows.append((name, format_size(each.granularity), _state(each)))
    print_lines(table(rows, "<><") if found else [])


@bitmap.command("create")
@image_argument
@click.argument("name")
@click.option("--granularity", callback=size_value, metavar="SIZE", help="Bytes that one mark stands for.")
@click.option("--disabled", is_flag=True, help="Do not record yet.")
def bitmap_create(
    image: str,
    name: str,
    granularity: int | None,
    disabled: bool,  # noqa: FBT001  # click passes flags by name
    image_format: ImageFormat,
    force_unlocked: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Begin to record in IMAGE, as NAME, what changes."""
    images_of(image_format, force_unlocked).create_bitmap(image, name, granularity=granularity, recorded=not disabled)


@bitmap.command("clear")
@image_argument
@click.argument("name")
def bitmap_clear(image: str, name: str, image_format: ImageFormat, force_unlocked: bool) -> None:  # noqa: FBT001  # click
    """Have bitmap NAME of IMAGE mark nothing, and what changes from now on."""
    images_of(image_format, force_unlocked).clear_bitmap(image, name)


@bitmap.command("remove")
@image_argument
@click.argument("name")
def bitmap_remove(image: str, name: str, image_format: ImageFormat, force_unlocked: bool) -> None:  # noqa: FBT001  # click
    """Forget bitmap NAME of IMAGE."""
    images_of(image_format, force_unlocked).remove_bitmap(image, name)


@bitmap.command("enable")
@image_argument
@click.argument("name")
def bitmap_enable(image: str, name: str, image_format: ImageFormat, force_unlocked: bool) -> None:  # noqa: FBT001  # click
    """Record in bitmap NAME of IMAGE what changes from now on."""
    images_of(image_format, force_unlocked).record_bitmap(image, name, recorded=True)


@bitmap.command("disable")
@image_argument
@click.argument("name")
def bitmap_disable(image: str, name: str, image_format: ImageFormat, force_unlocked: bool) -> None:  # noqa: FBT001  # click
    """Leave bitmap NAME of IMAGE as it is from now on."""
    images_of(image_format, force_unlocked).record_bitmap(image, name, recorded=False)


def _state(each: Bitmap) -> str:
    if not each.consistent:
        return "inconsistent"
    return "recording" if each.flags & AUTO else "disabled"


def _document(each: Bitmap) -> dict[str, Any]:
    return {
        "name": each.name,
        "granularity": each.granularity,
        "state": _state(each),
        "in_use": bool(each.flags & IN_USE),
    }
