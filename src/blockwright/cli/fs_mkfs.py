"""``blockwright fs mkfs``.

Knows: arguments. Refuses to know: file systems.
"""

from __future__ import annotations

from typing import Any

import click

from blockwright.build.mkfs import KINDS, MkfsOptions, make_file_system
from blockwright.cli.editing import now_ns
from blockwright.cli.options import (
    compat_option,
    inode_size_option,
    partition_option,
    quiet_option,
    size_value,
    some_size_value,
)
from blockwright.cli.output import print_json, progress_bar
from blockwright.cli.params import json_option
from blockwright.errors import UsageError
from blockwright.source import open_source
from blockwright.tree.node import Directory


@click.command()
@click.argument("image")
@partition_option
@click.option(
    "--type", "kind", type=click.Choice(KINDS), default="ext4", show_default=True, help="The kind of file system."
)
@click.option("--size", callback=some_size_value, metavar="SIZE", help="Default: all of IMAGE, or what SOURCE needs.")
@click.option("--label", default="", help="Label of the file system.")
@click.option("--block-size", callback=size_value, metavar="SIZE", help="Block of ext4, cluster of FAT.")
@click.option("--fat-bits", type=click.Choice(["12", "16", "32"]), help="The type of FAT.  [default: by the size]")
@click.option("--uuid", help="UUID, or volume id of FAT.")
@click.option("--seed", help="Text that every identity follows from.  [default: a new one each time]")
@click.option("--inodes", type=click.IntRange(min=11), help="Inodes of ext4.")
@inode_size_option
@compat_option
@click.option("--journal-size", callback=size_value, metavar="SIZE", help="Size of ext4's journal; 0 for none.")
@click.option("--source", metavar="SOURCE", help="A directory, or a tar archive that is not compressed.")
@click.option("--force", is_flag=True, help="Overwrite what IMAGE holds.")
@quiet_option
@json_option
def mkfs(image: str, partition: int | None, **options: Any) -> None:
    """Make a file system on IMAGE, which may be a part of a disk, or in the new file IMAGE.

    It is empty, or holds what SOURCE does. What is there already is overwritten with --force only.

    \b
    Examples:
      blockwright fs mkfs disk.img:2 --label data
      blockwright fs mkfs new.img --type fat --size 64M --source files/
      blockwright fs mkfs floppy.img --type fat12 --size 1440K
    """  # noqa: D301  # click leaves lines as they are below a real backspace
    asked = MkfsOptions(
        kind=options["kind"],
        size=options["size"],
        label=options["label"],
        block_size=options["block_size"],
        identity=options["uuid"],
        seed=options["seed"],
        fat_bits=None if options["fat_bits"] is None else int(options["fat_bits"]),
        inodes=options["inodes"],
        journal=options["journal_size"],
        inode_size=options["inode_size"],
        compat=options["compat"],
    )
    tree = Directory(mtime_ns=now_ns()) if options["source"] is None else _tree(options["source"])
    with progress_bar("mkfs", quiet=options["quiet"]) as progress:
        made = make_file_system(image, tree, asked, partition=partition, force=options["force"], progress=progress)
    if options["as_json"]:
        print_json("blockwright.fs.mkfs/1", {"kind": made.kind, "size": made.size, "uuid": made.identity})


def _tree(name: str) -> Directory:
    source = open_source(name)
    if not source.addressable:
        source.close()
        raise UsageError(f"{name}: expected a directory or a plain tar archive: build takes compressed ones")
    return source.read()
