"""``blockwright convert``, which is ``blockwright nbd copy`` too."""

from __future__ import annotations

import sys
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
    output_options,
    partition_option,
    peer_options,
    quiet_option,
)
from blockwright.cli.output import is_stdout, print_json, print_path, progress_bar
from blockwright.cli.params import json_option
from blockwright.cli.really import meaning, really_option
from blockwright.convert import DISK, DiskWrite, convert_to_stream, update
from blockwright.convert import convert as convert_device
from blockwright.device.base import BlockDevice
from blockwright.errors import FormatError, UsageError
from blockwright.format.output import ImageOptions
from blockwright.resolve import open_device


@click.command()
@click.argument("source")
@click.argument("output")
@click.option("--verify", is_flag=True, help="Read the output back, a disk's from the medium, and compare.")
@click.option("--discard", is_flag=True, help="OUTPUT is a block device: give all of its space back first.")
@click.option("--skip-holes", is_flag=True, help="OUTPUT is a block device: leave alone what SOURCE has no data for.")
@click.option("--zero-rest", is_flag=True, help="OUTPUT is a block device: make zeros of all behind SOURCE's end.")
@really_option
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

    A file is read as the image that it is, and written as one by its suffix, or --format.

    OUTPUT - is standard output, for what is written front to back: raw, compressed raw (--compress), a VMDK of the
    type streamOptimized. SOURCE - is standard input.

    Either may be a file, a block device, or an export of an NBD server (nbd://host/name); SOURCE also a part of an
    image (disk.img:2, nbd://host/name#2). A file is replaced with --force only; a device or export is written in
    place, with --force where it holds something. A disk that is hardware is written over when its serial number or
    model is said, at a prompt or with --yes-really.
    """
    peers: Peers = options["peers"]
    context = options["context"]
    image: ImageOptions = options["output_image"](output)
    disk = DiskWrite(options["discard"], options["skip_holes"], options["zero_rest"])
    _check(output, image, disk, options)
    # What is written once and flushed at the end is not kept: a server that restarts meanwhile fails the copy.
    target = replace(peers.client, unflushed_budget=0)
    with (
        _open_source(source, options) as device,
        meaning(output, options["yes_really"]),
        progress_bar("copy", quiet=options["quiet"]) as progress,
    ):
        size = device.size
        common: dict[str, Any] = {
            "verify": options["verify"],
            "progress": progress,
            "requests": peers.requests,
            "client": target,
        }
        if output == "-":
            convert_to_stream(device, sys.stdout.buffer, progress=progress, image=image)
            return
        if context is not None:
            result = update(device, output, context, **common)
        else:
            result = convert_device(device, output, force=options["force"], image=image, disk=disk, **common)
    if options["as_json"] and not is_stdout(output):
        document = {"output": output, "size": size, "copied": result.copied, "zeroed": result.zeroed}
        print_json("blockwright.convert/1", document | {"format": image.form})
    else:
        print_path(output)


def _check(output: str, image: ImageOptions, disk: DiskWrite, options: dict[str, Any]) -> None:
    """Raise UsageError for options that contradict one another."""
    context = options["context"]
    if context is not None and options["force"]:
        raise UsageError(
            "--force replaces OUTPUT; --context or --changed-since brings it up to date: use one of them"
        )
    if disk != DISK and (context is not None or not image.raw):
        raise UsageError("--discard, --skip-holes and --zero-rest are for whole raw copies to block devices")
    if output == "-" and (context is not None or options["verify"]):
        raise UsageError("-: standard output is written, and neither read back nor brought up to date")


def _open_source(source: str, options: dict[str, Any]) -> BlockDevice:
    peers: Peers = options["peers"]
    image_format: ImageFormat = options["image_format"]
    context = options["context"]
    if source != "-":
        return open_device(
            source,
            partition=options["partition"],
            force_unlocked=options["force_unlocked"],
            client=replace(peers.client, contexts=(context,) if context else ()),
            form=image_format.form,
            policy=image_format.policy,
            still=not options["force_unlocked"],
        )
    if options["partition"] is not None:
        raise UsageError("--partition: expected an image with a name, found standard input")
    return _open_stdin(image_format)


def _open_stdin(image_format: ImageFormat) -> BlockDevice:
    """Return the disk in the image that standard input is; a pipe is read to its end first."""
    from blockwright.device.spool import spool
    from blockwright.format.open import open_image

    file = spool(sys.stdin.buffer, "standard input")
    try:
        if not file.size:  # what a pipe is whose first command failed: no disk, and none is to be replaced by it
            raise FormatError("standard input: expected a disk, found nothing")
        return open_image(file, form=image_format.form, policy=image_format.policy)
    except BaseException:
        file.close()
        raise
