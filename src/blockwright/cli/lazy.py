"""Groups whose subcommands are imported when they are called, so that each costs only its own imports.

Knows: names and how to get at commands. Refuses to know: any command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from blockwright.cli.habits import equip

if TYPE_CHECKING:  # only a shell that completes needs it
    from click.shell_completion import CompletionItem

Subcommands = Mapping[str, tuple[str, Callable[[], click.Command]]]
"""By name: what the list of commands says, and a function that imports the command."""


class LazyGroup(click.Group):
    """A group over a table of subcommands, beside those that were added to it; the list of them imports none."""

    def __init__(self, *args: Any, subcommands: Subcommands, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._subcommands = subcommands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return sorted({*self._subcommands, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand, and give it what every command has."""
        found = self._subcommands.get(cmd_name)
        command = found[1]() if found else super().get_command(ctx, cmd_name)
        path = f"{ctx.command_path} {cmd_name}".partition(" ")[2]
        return None if command is None else equip(command, path)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the subcommands that begin so, without importing any, and the group's own options."""
        from click.shell_completion import CompletionItem

        found = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=self._help_of(name)) for name in found] + options

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._help_of(name)) for name in self.list_commands(ctx)])

    def _help_of(self, name: str) -> str:
        found = self._subcommands.get(name)
        return found[0] if found else self.commands[name].get_short_help_str(limit=100)
