"""``blockwright nbd``: network block device servers, seen from outside.

Knows: which subcommands there are. Refuses to know: what they do.
"""

from __future__ import annotations

import click

from blockwright.cli.lazy import LazyGroup, Subcommands


def _check() -> click.Command:
    from blockwright.cli.nbd_check import check

    return check


def _copy() -> click.Command:
    from blockwright.cli.convert import convert

    return convert


def _info() -> click.Command:
    from blockwright.cli.nbd_info import info

    return info


def _list() -> click.Command:
    from blockwright.cli.nbd_info import list_

    return list_


_COMMANDS: Subcommands = {
    "check": ("Verify that a server does what the protocol says.", _check),
    "copy": ("Copy a disk, holes and all, between files, devices and NBD servers.", _copy),
    "info": ("Tell what a server says of an export.", _info),
    "list": ("List the exports of a server.", _list),
}


@click.group(cls=LazyGroup, subcommands=_COMMANDS)
def nbd() -> None:
    """Ask NBD servers what they offer, verify them, and copy from and to them.

    URI is nbd://host[:port]/export, nbd+unix:///export?socket=PATH or nbd+vsock://cid/export; with nbds in place of
    nbd nothing is said without TLS.
    """
