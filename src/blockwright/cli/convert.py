"""``blockwright convert``, which is ``blockwright nbd copy`` too."""

from __future__ import annotations

from dataclasses import replace

import click

from blockwright.cli.options import (
    Peers,
    context_options,
    force_option,
    force_unlocked_option,
    json_option,
    partition_option,
    peer_options,
    quiet_option,
)
from blockwright.cli.output import is_stdout, print_json, print_path, progress_bar
from blockwright.convert import convert as convert_device
from blockwright.convert import update
from blockwright.errors import UsageError
from blockwright.resolve import open_device


@click.command()
@click.argument("source")
@click.argument("output")
@click.option("--verify", is_flag=True, help="Read the output back and compare.")
@peer_options
@context_options
@partition_option
@force_option
@force_unlocked_option
@quiet_option
@json_option
def convert(
    source: str,
    output: str,
    verify: bool,  # noqa: FBT001  # click passes flags by name
    peers: Peers,
    context: str | None,
    partition: int | None,
    force: bool,  # noqa: FBT001  # a click flag
    force_unlocked: bool,  # noqa: FBT001  # a click flag
    quiet: bool,  # noqa: FBT001  # a click flag
    as_json: bool,  # noqa: FBT001  # a click flag
) -> None:
    """Copy the disk SOURCE to OUTPUT. Runs of zeros become holes.

    Either may be a file, a block device, or an export of an NBD server (nbd://host/name); SOURCE also a part of an
    image (disk.img:2, nbd://host/name#2). A file is replaced with --force only; a device or export is written in
    place, with --force where it holds something.
    """
    if context is not None and force:
        raise UsageError(
            "--force replaces OUTPUT; --context or --changed-since brings it up to date: use one of them"
        )
    # What is written once and flushed at the end is not kept: a server that restarts meanwhile fails the copy.
    target = replace(peers.client, unflushed_budget=0)
    origin = replace(peers.client, contexts=(context,) if context else ())
    with (
        open_device(source, partition=partition, force_unlocked=force_unlocked, client=origin) as device,
        progress_bar("copy", quiet=quiet) as progress,
    ):
        size = device.size
        if context is not None:
            result = update(
                device, output, context, verify=verify, progress=progress, requests=peers.requests, client=target
            )
        else:
            result = convert_device(
                device, output, force=force, verify=verify, progress=progress, requests=peers.requests, client=target
            )
    if as_json and not is_stdout(output):
        document = {"output": output, "size": size, "copied": result.copied, "zeroed": result.zeroed}
        print_json("blockwright.convert/1", document)
    else:
        print_path(output)
