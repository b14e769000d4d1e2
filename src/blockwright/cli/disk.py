"""``blockwright disk``: disks made, their partition tables and their sizes changed in place.

Knows: which subcommands there are. Refuses to know: what they do.
"""

from __future__ import annotations

import click

from blockwright.cli.lazy import LazyGroup, Subcommands


def _add() -> click.Command:
    from blockwright.cli.disk_partition import add

    return add


def _bitmap() -> click.Command:
    from blockwright.cli.bitmap import bitmap

    return bitmap


def _boot_code() -> click.Command:
    from blockwright.cli.disk_table import boot_code

    return boot_code


def _commit() -> click.Command:
    from blockwright.cli.backing import commit

    return commit


def _create() -> click.Command:
    from blockwright.cli.disk_table import create

    return create


def _hybrid() -> click.Command:
    from blockwright.cli.disk_table import hybrid

    return hybrid


def _move_backup() -> click.Command:
    from blockwright.cli.disk_table import move_backup

    return move_backup


def _rebase() -> click.Command:
    from blockwright.cli.backing import rebase

    return rebase


def _resize() -> click.Command:
    from blockwright.cli.disk_resize import resize

    return resize


def _rm() -> click.Command:
    from blockwright.cli.disk_partition import rm

    return rm


def _set() -> click.Command:
    from blockwright.cli.disk_partition import set_

    return set_


def _size() -> click.Command:
    from blockwright.cli.snapshot import size

    return size


def _snapshot() -> click.Command:
    from blockwright.cli.snapshot import snapshot

    return snapshot


def _table() -> click.Command:
    from blockwright.cli.disk_table import table

    return table


_COMMANDS: Subcommands = {
    "add": ("Add a partition.", _add),
    "bitmap": ("Keep in a qcow2 image what changes: create, list, clear, remove.", _bitmap),
    "boot-code": ("Put boot code in front of the table, or clear it.", _boot_code),
    "commit": ("Bring what an overlay holds down into its backing file.", _commit),
    "create": ("Make an image that reads as zeros, or as another; with an empty table or without.", _create),
    "hybrid": ("Have the MBR of a GPT tell of partitions too, or only protect it again.", _hybrid),
    "move-backup": ("Put the backup of a GPT at the end of a disk that has grown.", _move_backup),
    "rebase": ("Put an overlay onto another backing file, or none.", _rebase),
    "resize": ("Make a disk larger with its last partition and file system, or cut off free room.", _resize),
    "rm": ("Remove a partition.", _rm),
    "set": ("Change a partition, or the disk's identity.", _set),
    "size": ("Give a disk another size, and leave what is on it alone.", _size),
    "snapshot": ("Keep states of a qcow2 image within it: create, list, apply, delete.", _snapshot),
    "table": ("Show the partition table; make an empty one; convert between GPT and MBR.", _table),
}


@click.group(cls=LazyGroup, subcommands=_COMMANDS)
def disk() -> None:
    """Make disks, and change their partition tables in place.

    IMAGE is a path, a block device or an export. Whatever fails or is cut off leaves the table that was there.
    """
