"""``blockwright disk resize``: a disk, its last partition and the file system in it."""

from __future__ import annotations

from dataclasses import asdict

import click

from blockwright.address import part_name
from blockwright.cli.disk_options import Opener, opening_options
from blockwright.cli.options import NewSize, SizedCommand, new_size_value
from blockwright.cli.output import print_json, print_path
from blockwright.cli.params import json_option
from blockwright.disk.resize import resize as resize_disk


@click.command(cls=SizedCommand)
@click.argument("image")
@click.argument("size", callback=new_size_value, required=False)
@click.option("--partition", type=click.IntRange(min=1), metavar="N", help="The partition that grows, the last one.")
@click.option("--table-only", is_flag=True, help="Leave the file system as large as it is.")
@opening_options
@json_option
def resize(
    *,
    image: str,
    size: NewSize | None,
    partition: int | None,
    table_only: bool,
    opener: Opener,
    as_json: bool,
) -> None:
    """Give IMAGE another SIZE (20G, +5G, -5G); its last partition grows up to the end, and the ext4 or FAT in it too.

    Without SIZE the disk has grown already. A smaller one cuts off free room only. Whatever ends the work, the same
    command finishes it; what a SIZE with + began, the command without one, and one with -, the size that was meant.
    """
    with opener(image) as disk:
        done = resize_disk(
            disk, None if size is None else size.of(disk.device.size), number=partition, table_only=table_only
        )
    if as_json:
        report = done.file_system
        system = None if report is None else {"kind": report.kind, "old_size": report.old_size, "size": report.size}
        document = {**asdict(done), "file_system": system}
        print_json("blockwright.disk.resize/1", {"image": image, **document})
    else:
        print_path(image if done.number is None else part_name(image, done.number))
