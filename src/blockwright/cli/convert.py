"""``blockwright convert``, which is ``blockwright nbd copy`` too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from blockwright.cli.options import (
    ImageFormat,
    Peers,
    context_options,
    force_option,
    force_unlocked_option,
    image_options,
    json_option,
    output_options,
    partition_option,
    peer_options,
    quiet_option,
)
from blockwright.cli.output import is_stdout, print_json, print_path, progress_bar
from blockwright.convert import convert as convert_device
from blockwright.convert import update
from blockwright.errors import UsageError
from blockwright.format.output import ImageOptions
from blockwright.resolve import open_device


@click.command()
@click.argument("source")
@click.argument("output")
@click.option("--verify", is_flag=True, help="Read the output back and compare.")
@image_options
@output_options
@peer_options
@context_options
@partition_option
@force_option
@force_unlocked_option
@quiet_option
@json_option
def convert(source: str, output: str, **options: Any) -> None:
    """Copy the disk SOURCE to OUTPUT. Runs of zeros become holes.

    A file is read as the image that it is, raw or qcow2, and written as one by its suffix, or --format.

    \b
    Examples:
      blockwright convert disk.qcow2 disk.img
      blockwright convert disk.img disk.qcow2 --compress --compression zstd

    Either may be a file, a block device, or an export of an NBD server (nbd://host/name); SOURCE also a part of an
    image (disk.img:2, nbd://host/name#2). A file is replaced with --force only; a device or export is written in
    place, with --force where it holds something.
    """  # noqa: D301  # click leaves lines as they are below a real backspace
    peers: Peers = options["peers"]
    context, force = options["context"], options["force"]
    image_format: ImageFormat = options["image_format"]
    image: ImageOptions = options["output_image"](output)
    if context is not None and force:
        raise UsageError(
            "--force replaces OUTPUT; --context or --changed-since brings it up to date: use one of them"
        )
    # What is written once and flushed at the end is not kept: a server that restarts meanwhile fails the copy.
    target = replace(peers.client, unflushed_budget=0)
    origin = replace(peers.client, contexts=(context,) if context else ())
    with (
        open_device(
            source,
            partition=options["partition"],
            force_unlocked=options["force_unlocked"],
            client=origin,
            form=image_format.form,
            policy=image_format.policy,
        ) as device,
        progress_bar("copy", quiet=options["quiet"]) as progress,
    ):
        size = device.size
        common: dict[str, Any] = {
            "verify": options["verify"],
            "progress": progress,
            "requests": peers.requests,
            "client": target,
        }
        if context is not None:
            result = update(device, output, context, **common)
        else:
            result = convert_device(device, output, force=force, image=image, **common)
    if options["as_json"] and not is_stdout(output):
        document = {"output": output, "size": size, "copied": result.copied, "zeroed": result.zeroed}
        print_json("blockwright.convert/1", document | {"format": image.form})
    else:
        print_path(output)
