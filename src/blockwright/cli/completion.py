"""``blockwright completion``.

Knows: where each shell looks. Refuses to know: what completes how.
"""

from __future__ import annotations

import sys

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "fish", "zsh"]))
def completion(*, shell: str) -> None:
    """Print the script by which SHELL completes this command.

    Put it where the shell looks for such scripts, or, for this session alone: source <(blockwright completion bash).
    """
    from blockwright.cli.complete import SCRIPTS

    sys.stdout.write(SCRIPTS[shell])
