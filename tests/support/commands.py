"""Every command there is, as click has them, and the lines of examples in their help."""

import re
import shlex
from collections.abc import Iterator

import click

from blockwright.cli.run import root

_EXAMPLE = re.compile(r"^ *((?:.*\| *)?blockwright .*)$", re.MULTILINE)


def every_command() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yield each command with how it is called: `fs ls`; the whole is called nothing."""
    yield from _below("", root, click.Context(root, info_name="blockwright"))


def _below(
    path: str, command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    yield path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            each = command.get_command(context, name)
            assert each is not None
            yield from _below(f"{path} {name}".strip(), each, click.Context(each, info_name=name, parent=context))


def examples(command: click.Command) -> list[str]:
    """The lines of a command's help that call this program."""
    return _EXAMPLE.findall(f"{command.help or ''}\n{command.epilog or ''}")


def called(line: str) -> tuple[click.Command, list[str]]:
    """The command that an example calls, and the words behind its name."""
    words = shlex.split(line)
    words = words[words.index("blockwright") + 1 :]
    for operator in ("|", ">", "<", "&"):
        words = words[: words.index(operator)] if operator in words else words
    command: click.Command = root
    context = click.Context(root, info_name="blockwright")
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        assert found is not None, f"{line}: no such command"
        command, context = found, click.Context(found, info_name=words.pop(0), parent=context)
    return command, words
