"""``blockwright nbd``: servers of network block devices, seen from outside.

Knows: which subcommands there are. Refuses to know: what they do.
"""

from __future__ import annotations

from collections.abc import Callable

import click


def _check() -> click.Command:
    from blockwright.cli.nbd_check import check

    return check


_COMMANDS: dict[str, tuple[str, Callable[[], click.Command]]] = {
    "check": ("Verify that a server does what the protocol says.", _check),
}


class Commands(click.Group):
    """The subcommands, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        found = _COMMANDS.get(cmd_name)
        return found[1]() if found else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][0]) for name in self.list_commands(ctx)])


@click.group(cls=Commands)
def nbd() -> None:
    """Look at, copy and check what network block device servers export."""
