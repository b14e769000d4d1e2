"""What every command may have, however soon it has to answer: nothing but click is imported for it.

Knows: spelling. Refuses to know: commands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from blockwright.errors import UsageError

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """A time in seconds that every clock can count; NaN, which no bound keeps out, is none."""

    def __init__(self, least: float = 0, most: float = 1e9, *, zero: bool = False) -> None:
        super().__init__(least, most, min_open=not (least or zero))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds. Raises click.BadParameter."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is no time.", param, ctx)
        return seconds


def json_option(command: _Command) -> _Command:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def seconds_of(text: str, what: str) -> float:
    """Return a time in the value of an option that messages call ``what``. Raises UsageError."""
    try:
        return Seconds().convert(text, None, None)
    except click.BadParameter:
        raise UsageError(f"{what}: expected seconds above 0, found {text[:64]!r}") from None
