"""What every command has in common, given to each as it is imported: examples, ``--json`` and ``--quiet``.

A command that tells something as a document has its own ``--json``. Any other one that was given the option prints
one document all the same, ``blockwright.done/1``, with the lines that it would have printed.

Knows: commands as click has them. Refuses to know: any command.
"""

from __future__ import annotations

import os
from functools import wraps
from typing import Any, Final

import click

from blockwright.cli.examples import EXAMPLES
from blockwright.cli.output import collecting, print_json

COMPLETING: Final = "_BLOCKWRIGHT_COMPLETE"
"""What a shell that wants to complete a line sets, as click has it."""
_BYTES: Final = {
    "completion",
    "fs cat",
    "image metrics",
    "loopless",
    "manifest",
    "pool metrics",
    "pool watch",
    "serve",
}
"""Commands whose standard output is not ours to shape: a file's bytes, a manifest, a log, another program's words."""


def equip(command: click.Command, path: str) -> click.Command:
    """Return the command with what it lacks, those below it too; ``path`` is how it is called (``fs ls``)."""
    examples = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in EXAMPLES.get(path, ()))
    if path in EXAMPLES and examples not in (command.epilog or ""):
        command.epilog = f"{command.epilog}\n\n{examples}" if command.epilog else examples
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            equip(each, f"{path} {name}")
        return command
    if COMPLETING in os.environ:
        from blockwright.cli.complete import teach

        teach(command, path)
    options = {name for parameter in command.params for name in parameter.opts}
    if "--json" not in options and path not in _BYTES:
        _add_json(command, path)
    if "--quiet" not in options:
        command.params.append(click.Option(["-q", "--quiet"], is_flag=True, hidden=True, expose_value=False))
    return command


def _add_json(command: click.Command, path: str) -> None:
    run = command.callback
    if run is None:  # pragma: no cover - every command of ours does something
        return
    text = "Print one JSON document."
    command.params.append(click.Option(["--json", "told_as_json"], is_flag=True, help=text))

    @wraps(run)
    def told(*, told_as_json: bool, **given: Any) -> Any:
        if not told_as_json:
            return run(**given)
        with collecting() as lines:
            code = run(**given)
        print_json("blockwright.done/1", {"command": path, "lines": lines})
        return code

    command.callback = told
