"""Manual pages in man(7)'s language, one for each command, from what click knows of it.

Knows: the language, and what sections a page has. Refuses to know: any command.

Source: man(7), man-pages(7); held to mandoc's and groff's own checks.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Final

import click

from blockwright._version import __released__, __version__

EXIT_CODES: Final = (
    ("0", "It was done."),
    ("1", "It failed."),
    ("2", "The command was not used as it must be."),
    ("3", "A check found damage, or a comparison a difference."),
    ("4", "The privilege, or the support of the kernel, is missing."),
    ("5", "What was named does not exist."),
    ("130", "It was interrupted; what it had begun is undone."),
)
"""What the command exits with, and why."""
_ENVIRONMENT: Final = (
    ("BLOCKWRIGHT_HOME", "Where pools, records and blobs are kept."),
    ("NO_COLOR", "Where it is set and not empty, nothing is coloured."),
    ("SOURCE_DATE_EPOCH", "Seconds since 1970 that nothing in what is built is newer than."),
)
_COMPLETIONS: Final = {
    "bash": "bash-completion/completions/blockwright",
    "zsh": "zsh/site-functions/_blockwright",
    "fish": "fish/vendor_completions.d/blockwright.fish",
}
_EXAMPLE: Final = re.compile(r"(.*\| )?blockwright ")


def shared_files() -> Iterator[tuple[str, str]]:
    """Yield what an installation has below ``share/``: all pages, and the scripts that shells complete by."""
    from blockwright.cli.complete import SCRIPTS
    from blockwright.cli.run import root

    for name, text in pages(root):
        yield f"man/man1/{name}", text
    for shell, name in _COMPLETIONS.items():
        yield name, SCRIPTS[shell]


def pages(root: click.Command) -> Iterator[tuple[str, str]]:
    """Yield the name of each page, such as ``blockwright-fs-ls.1``, and its text: the command's, and all below it."""
    yield from _pages(root, click.Context(root, info_name="blockwright"))


def _pages(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    yield f"{context.command_path.replace(' ', '-')}.1", _page(command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            each = command.get_command(context, name)
            if each is not None and not each.hidden:
                yield from _pages(each, click.Context(each, info_name=name, parent=context))


def _page(command: click.Command, context: click.Context) -> str:
    name = context.command_path.replace(" ", "-")
    lines = [f'.TH {_quoted(name.upper())} 1 {__released__} {_quoted(f"blockwright {__version__}")} "User Commands"']
    text = textwrap.dedent(command.help or "").strip()
    lines += [".SH NAME", f"{_escaped(name)} \\- {_escaped(first_sentence(text))}"]
    lines += [".SH SYNOPSIS", f".B {_escaped(context.command_path)}", *_synopsis(command, context)]
    lines += [".SH DESCRIPTION", *_paragraphs(text)]
    if isinstance(command, click.Group):
        lines += [".SH COMMANDS", *_commands(command, context)]
    lines.append(".SH OPTIONS")
    for each in command.get_params(context):
        record = each.get_help_record(context) if isinstance(each, click.Option) else None
        if record is not None:
            lines += [".TP", f"\\fB{_escaped(record[0])}\\fR", _escaped(record[1])]
    lines += _epilogue(command)
    if context.parent is None:
        lines += _listed("EXIT STATUS", EXIT_CODES) + _listed("ENVIRONMENT", _ENVIRONMENT)
    lines += [".SH SEE ALSO", _related(context)]
    return "\n".join(lines) + "\n"


def _synopsis(command: click.Command, context: click.Context) -> list[str]:
    return [_escaped(piece) for piece in command.collect_usage_pieces(context)]


def first_sentence(text: str) -> str:
    """Return the first sentence, as whatis(1) shows it."""
    sentence = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=[^.][a-z)`'A-Z0-9])[.:;]\s", sentence + " ")[0].rstrip(" .")


def _paragraphs(text: str) -> Iterator[str]:
    """Yield a help text's paragraphs, and what is set as it is line by line."""
    first = True
    for block in text.split("\n\n"):
        rows = block.strip("\n").split("\n")
        if not first:
            yield ".PP"
        first = False
        if rows[0].strip() == "\b":
            yield ".nf"
            yield from (_escaped(row) for row in rows[1:])
            yield ".fi"
        else:
            yield _escaped(" ".join(block.split()))


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        each = group.get_command(context, name)
        if each is None or each.hidden:
            continue
        page = f"{context.command_path} {name}".replace(" ", "-")
        yield from (
            ".TP",
            f".BR {_escaped(page)} (1)",
            _escaped(first_sentence(textwrap.dedent(each.help or "").strip()) + "."),
        )


def _epilogue(command: click.Command) -> Iterator[str]:
    rows = [row.strip() for row in (command.epilog or "").splitlines() if _EXAMPLE.match(row.strip())]
    if rows:
        yield ".SH EXAMPLES"
        yield ".nf"
        yield from (_escaped(row) for row in rows)
        yield ".fi"


def _listed(title: str, rows: tuple[tuple[str, str], ...]) -> list[str]:
    lines = [f".SH {title}"]
    for name, text in rows:
        lines += [".TP", f"\\fB{_escaped(name)}\\fR", _escaped(text)]
    return lines


def _related(context: click.Context) -> str:
    parent = context.parent
    if parent is None:
        return ".BR blockwright\\-doctor (1)"
    return f".BR {_escaped(parent.command_path.replace(' ', '-'))} (1)"


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', "\\(dq") + '"'


def _escaped(text: str) -> str:
    """Return text in which nothing is a request or an escape, and hyphens are those that one types."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    text = text.replace("'", "\\(aq").replace("`", "\\(ga").replace("~", "\\(ti").replace("^", "\\(ha")
    return "\\&" + text if text.startswith(".") else text
