"""A page for each group of commands and each command outside of one, in Markdown, from what click knows of it.

Knows: what there is to say of a command. Refuses to know: any command.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

import click

from blockwright.cli.manual import EXIT_CODES, first_sentence

_SPECIAL: Final = re.compile(r"([\\*_\[\]<>#|$~{}&^])")
_OPTION: Final = re.compile(r"(?<![\w`/-])(--?[a-z][a-z0-9-]*)(?![\w`])")
_CALL: Final = re.compile(r"(.*\| *)?(blockwright|nbdcopy) ")


def pages(root: click.Command) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each page; the first one is ``index``, which leads to the others."""
    context = click.Context(root, info_name="blockwright")
    below = list(_below(root, context))
    yield "index", _index(root, context, below)
    for command, inner in below:
        yield from _pages(command, inner)


def label(path: str) -> str:
    """Return what the heading of a command is called where others refer to it."""
    return "command-" + path.replace(" ", "-")


def _pages(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield a command's own page, and those of the groups below it."""
    lines = list(_section(command, context, 1))
    groups = []
    for each, inner in _below(command, context):
        if isinstance(each, click.Group):
            groups.append((each, inner))
        else:
            lines += _section(each, inner, 2)
    if groups:
        lines += _toctree([_page_name(inner) for _, inner in groups])
    yield _page_name(context), "\n".join([*lines, *_exit_codes(2)])
    for each, inner in groups:
        yield from _pages(each, inner)


def _page_name(context: click.Context) -> str:
    return _path(context).replace(" ", "-")


def _path(context: click.Context) -> str:
    """Return how a command is called, without the program's name."""
    return context.command_path.partition(" ")[2]


def _below(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            each = command.get_command(context, name)
            if each is not None and not each.hidden:
                yield each, click.Context(each, info_name=name, parent=context)


def _index(root: click.Command, context: click.Context, below: Sequence[tuple[click.Command, click.Context]]) -> str:
    lines = ["# Commands", "", *prose(root.help or ""), *_options(root, context)]
    lines += ["| command | |", "| --- | --- |"]
    for command, inner in below:
        name, text = _page_name(inner), escaped(first_sentence(_help(command)))
        lines.append(f"| [{_path(inner)}]({name}.md) | {text} |")
    lines += ["", *_exit_codes(2), *_toctree([_page_name(inner) for _, inner in below])]
    return "\n".join(lines)


def _section(command: click.Command, context: click.Context, depth: int) -> Iterator[str]:
    yield f"({label(_path(context))})="
    yield f"{'#' * depth} {context.command_path}"
    yield ""
    if not isinstance(command, click.Group):
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        yield from ("```text", usage, "```", "")
    yield from prose(command.help or "")
    yield from _arguments(command, context)
    yield from _options(command, context)
    yield from _examples(command)
    if isinstance(command, click.Group):
        yield from ("| command | |", "| --- | --- |")
        for each, inner in _below(command, context):
            name = f"[{_path(inner)}](#{label(_path(inner))})"
            yield f"| {name} | {escaped(first_sentence(_help(each)))} |"
        yield ""


def _arguments(command: click.Command, context: click.Context) -> Iterator[str]:
    given = [each for each in command.get_params(context) if isinstance(each, click.Argument)]
    if given:
        yield from ("**Arguments**", "")
    for each in given:
        name = each.make_metavar(context).strip("[]")
        choices = each.type.choices if isinstance(each.type, click.Choice) else ()
        yield f"`{name}`"
        words = ["required" if each.required else "may be left out"]
        words += ["any number of them"] if each.nargs == -1 else []
        words += [f"one of {', '.join(f'`{choice}`' for choice in choices)}"] if choices else []
        yield from (f": {'; '.join(words)}", "")


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    records = [
        each.get_help_record(context) for each in command.get_params(context) if isinstance(each, click.Option)
    ]
    shown = [each for each in records if each is not None and "--help" not in each[0]]
    if shown:
        yield from ("**Options**", "")
    for names, text in shown:
        yield f"`{names}`"
        yield from (f": {escaped(' '.join(text.split()))}", "")


def _examples(command: click.Command) -> Iterator[str]:
    rows = [row.strip() for row in (command.epilog or "").splitlines() if _CALL.match(row.strip())]
    if rows:
        yield from ("**Examples**", "", "```text", *rows, "```", "")


def _exit_codes(depth: int) -> Iterator[str]:
    yield from (f"{'#' * depth} Exit codes", "", "| code | |", "| --- | --- |")
    yield from (f"| {code} | {escaped(text)} |" for code, text in EXIT_CODES)
    yield ""


def _toctree(names: Sequence[str]) -> list[str]:
    return ["```{toctree}", ":hidden:", ":titlesonly:", "", *names, "```", ""]


def _help(command: click.Command) -> str:
    return textwrap.dedent(command.help or "").strip()


def prose(text: str) -> Iterator[str]:
    """Yield a help text as Markdown; what it has set line by line stays so."""
    for block in textwrap.dedent(text).strip().split("\n\n"):
        rows = block.strip("\n").split("\n")
        if rows[0].strip() != "\b":
            yield from (escaped(" ".join(block.split())), "")
            continue
        title, rows = (rows[1].strip(), rows[2:]) if rows[1].strip() == "Examples:" else ("", rows[1:])
        if title:
            yield from ("**Examples**", "")
        yield from ("```text", *textwrap.dedent("\n".join(rows)).splitlines(), "```", "")


def escaped(text: str) -> str:
    """Return text in which nothing is Markdown's but what is between backquotes; options are put there too."""
    pieces = text.split("`")
    for index in range(0, len(pieces), 2):
        plain = _OPTION.split(pieces[index])
        for at, piece in enumerate(plain):
            plain[at] = f"`{piece}`" if at % 2 else _SPECIAL.sub(r"\\\1", piece)
        pieces[index] = "".join(plain)
    return "`".join(pieces)
