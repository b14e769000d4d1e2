"""``blockwright disk snapshot`` and ``blockwright disk size``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from blockwright.cli.options import (
    ImageFormat,
    NewSize,
    SizedCommand,
    force_unlocked_option,
    image_options,
    new_size_value,
)
from blockwright.cli.output import print_json, print_lines, print_path, show_name, table
from blockwright.cli.params import json_option
from blockwright.format.qcow2.snapshot import Snapshot
from blockwright.snapshot import Images
from blockwright.units import format_size

_Command = TypeVar("_Command", bound=Callable[..., Any])


def image_argument(command: _Command) -> Any:
    """Add IMAGE, and the options of how it is opened."""
    return click.argument("image")(image_options(force_unlocked_option(command)))


def images_of(image_format: ImageFormat, force_unlocked: bool) -> Images:  # noqa: FBT001  # a click flag
    """Return images that are opened as the options say."""
    return Images(form=image_format.form, policy=image_format.policy, force_unlocked=force_unlocked)


@click.group()
def snapshot() -> None:
    """Keep states of a qcow2 image within it, and go back to them."""


@snapshot.command("list")
@image_argument
@json_option
def snapshot_list(image: str, image_format: ImageFormat, force_unlocked: bool, as_json: bool) -> None:  # noqa: FBT001  # click
    """List the snapshots of IMAGE."""
    found = images_of(image_format, force_unlocked).list(image)
    if as_json:
        print_json("blockwright.snapshots/1", {"snapshots": [_document(each) for each in found]})
        return
    rows: list[tuple[str, ...]] = [("id", "name", "made", "size")]
    for each in found:
        name = show_name(each.name.encode("utf-8", "surrogateescape"))
        rows.append((each.id, name, _time(each), format_size(each.size)))
    print_lines(table(rows, "<<<>") if found else [])


@snapshot.command("create")
@image_argument
@click.argument("name")
def snapshot_create(image: str, name: str, image_format: ImageFormat, force_unlocked: bool) -> None:  # noqa: FBT001  # click
    """Keep the present state of IMAGE as NAME."""
    images_of(image_format, force_unlocked).create(image, name)


@snapshot.command("apply")
@image_argument
@click.argument("name")
def snapshot_apply(image: str, name: str, image_format: ImageFormat, force_unlocked: bool) -> None:  # noqa: FBT001  # click
    """Make IMAGE what it was when snapshot NAME was made. What it is now is lost."""
    images_of(image_format, force_unlocked).apply(image, name)


@snapshot.command("delete")
@image_argument
@click.argument("name")
def snapshot_delete(image: str, name: str, image_format: ImageFormat, force_unlocked: bool) -> None:  # noqa: FBT001  # click
    """Forget snapshot NAME of IMAGE, and free what only it has."""
    images_of(image_format, force_unlocked).delete(image, name)


@click.command(cls=SizedCommand)
@image_argument
@click.argument("size", metavar="SIZE", callback=new_size_value)
@click.option("--shrink", is_flag=True, help="Cut off what lies behind SIZE.")
def size(
    image: str,
    size: NewSize,
    shrink: bool,  # noqa: FBT001  # click passes flags by name
    image_format: ImageFormat,
    force_unlocked: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Give the disk in IMAGE the SIZE, such as 20G, +5G or -5G, and leave what is on it alone.

    What is added reads as zeros.
    """
    images_of(image_format, force_unlocked).resize(image, size.of, shrink=shrink)
    print_path(image)


def _time(each: Snapshot) -> str:
    return datetime.fromtimestamp(each.date_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _document(each: Snapshot) -> dict[str, Any]:
    return {"id": each.id, "name": each.name, "time": each.date_s, "size": each.size, "vm_state": each.vm_state}
