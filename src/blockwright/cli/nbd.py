"""``blockwright nbd``: network block device servers seen from outside, and their exports as devices.

Knows: which subcommands there are. Refuses to know: what they do.
"""

from __future__ import annotations

from copy import copy

import click

from blockwright.cli.lazy import LazyGroup, Subcommands


def _attach() -> click.Command:
    from blockwright.cli.nbd_attach import attach

    return attach


def _check() -> click.Command:
    from blockwright.cli.nbd_check import check

    return check


def _copy() -> click.Command:
    from blockwright.cli.convert import convert

    made = copy(convert)
    made.epilog = None  # where its examples are, which are others here
    return made


def _detach() -> click.Command:
    from blockwright.cli.nbd_attach import detach

    return detach


def _gc() -> click.Command:
    from blockwright.cli.nbd_attach import gc

    return gc


def _info() -> click.Command:
    from blockwright.cli.nbd_info import info

    return info


def _list() -> click.Command:
    from blockwright.cli.nbd_info import list_

    return list_


def _refresh() -> click.Command:
    from blockwright.cli.nbd_attach import refresh

    return refresh


def _status() -> click.Command:
    from blockwright.cli.nbd_attach import status

    return status


_COMMANDS: Subcommands = {
    "attach": ("Have an export as a block device of the kernel.", _attach),
    "check": ("Verify that a server does what the protocol says.", _check),
    "copy": ("Copy a disk, holes and all, between files, devices and NBD servers.", _copy),
    "detach": ("Detach block devices when they are quiet.", _detach),
    "gc": ("Detach what died processes left.", _gc),
    "info": ("Tell what a server says of an export.", _info),
    "list": ("List the exports of a server.", _list),
    "refresh": ("Have a device's size follow its server's.", _refresh),
    "status": ("List the attached devices.", _status),
}


@click.group(cls=LazyGroup, subcommands=_COMMANDS)
def nbd() -> None:
    """Ask NBD servers what they offer, verify them, copy from and to them, and attach what they export.

    URI is nbd://host[:port]/export, nbd+unix:///export?socket=PATH or nbd+vsock://cid/export; with nbds in place of
    nbd nothing is said without TLS.
    """
