"""``blockwright disk``: disks made, their partition tables and their sizes changed in place.

Knows: which subcommands there are. Refuses to know: what they do.
"""

from __future__ import annotations

import click

from blockwright.cli.lazy import LazyGroup, Subcommands


def _add() -> click.Command:
    from blockwright.cli.disk_partition import add

    return add


def _boot_code() -> click.Command:
    from blockwright.cli.disk_table import boot_code

    return boot_code


def _create() -> click.Command:
    from blockwright.cli.disk_table import create

    return create


def _move_backup() -> click.Command:
    from blockwright.cli.disk_table import move_backup

    return move_backup


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
    "boot-code": ("Put boot code in front of the table, or clear it.", _boot_code),
    "create": ("Make an image that reads as zeros, with an empty table or without.", _create),
    "move-backup": ("Put the backup of a GPT at the end of a disk that has grown.", _move_backup),
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
