"""What all `blockwright disk` commands take: how a disk is opened, and what new identities follow from.

Knows: spelling. Refuses to know: what a command does with the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

import click

from blockwright.cli.options import allow_backing_option, force_unlocked_option, from_option, seed_value
from blockwright.disk.edit import DiskEditor
from blockwright.format.policy import Policy

_Command = TypeVar("_Command", bound=Callable[..., Any])

Opener = Callable[..., DiskEditor]
"""Opens the disk that it is given the name of, as the options say; ``writable=False`` for looking only."""


def opening_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how a disk is opened, and pass it as ``opener``."""

    @wraps(command)
    def with_opener(
        *,
        sector_size: int | None,
        form: str | None,
        allow_backing: tuple[str, ...],
        force_unlocked: bool,
        **others: Any,
    ) -> Any:
        opener = partial(
            DiskEditor,
            sector_size=sector_size,
            form=form,
            policy=Policy(allow_backing),
            force_unlocked=force_unlocked,
        )
        return command(opener=opener, **others)

    return sector_size_option(from_option(allow_backing_option(force_unlocked_option(with_opener))))


def sector_size_option(command: _Command) -> _Command:
    """Add ``--sector-size``."""
    return click.option(
        "--sector-size",
        type=click.Choice(["512", "4096"]),
        callback=lambda _context, _parameter, value: None if value is None else int(value),
        help="What the table counts in.  [default: the device's sectors, 512 for an image]",
    )(command)


def seed_option(command: _Command) -> _Command:
    """Add ``--seed``."""
    return click.option(
        "--seed", callback=seed_value, help="Text that new identities follow from; random without it."
    )(command)
