"""``--yes-really``: whoever writes over a disk says which one it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from blockwright.cli.output import show_text
from blockwright.device.physical import confirmed, disk_at
from blockwright.errors import UsageError

_Command = TypeVar("_Command", bound=Callable[..., Any])


def really_option(command: _Command) -> _Command:
    """Add ``--yes-really``."""
    return click.option(
        "--yes-really",
        metavar="NAME",
        help="Write over a disk whose serial number or model is NAME, without being asked.",
    )(command)


@contextmanager
def meaning(output: str, name: str | None) -> Iterator[None]:
    """Let the disk be written over that ``name`` names; who sits at a terminal is asked for it.

    Raises UsageError for a name where no block device is written.
    """
    disk = disk_at(output) if output else None
    if name is not None and output and not Path(output).is_block_device():
        raise UsageError(f"--yes-really: expected a disk to write over, found {output}")
    if name is None and disk is not None and not disk.made_up and disk.of is None and _asks():
        click.echo(show_text(str(disk)), err=True)
        wanted = show_text(" or ".join(disk.names))
        name = click.prompt(f"All of it is lost. Type its name ({wanted}) to go on", err=True)
    with confirmed(name):
        yield


def _asks() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
