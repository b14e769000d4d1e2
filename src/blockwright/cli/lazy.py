"""Groups whose subcommands are imported when they are called, so that each costs only its own imports.

Knows: names and how to get at commands. Refuses to know: any command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

Subcommands = Mapping[str, tuple[str, Callable[[], click.Command]]]
"""By name: what the list of commands says, and a function that imports the command."""


class LazyGroup(click.Group):
    """A group over a table of subcommands; the list of them needs none."""

    def __init__(self, *args: Any, subcommands: Subcommands, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._subcommands = subcommands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return sorted(self._subcommands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        found = self._subcommands.get(cmd_name)
        return found[1]() if found else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._subcommands[name][0]) for name in self.list_commands(ctx)])
