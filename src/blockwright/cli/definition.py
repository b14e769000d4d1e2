"""The command line and files of definitions as one: what both ask a build for.

An option on the command line goes before the same key of the file; ``--partition`` adds to the file's partitions.

Knows: which option is which key. Refuses to know: what keys mean.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import click
from click.core import ParameterSource

from blockwright.build import keys
from blockwright.build.toml_read import Asked, parse_partition, resolved
from blockwright.cli.content_options import field_of
from blockwright.cli.output import show_text
from blockwright.errors import BlockwrightError, FormatError, UsageError
from blockwright.tree.changes.options import Changes

TALK: Final = (
    "definition",
    "print-definition",
    "partition",
    "dry-run",
    "force",
    "quiet",
    "json",
    "help",
    "verify",
    "verify-only",
    "yes-really",
    "sign-command",
)
"""Options that no file of a definition has: they say how the command is used, or name a program to run."""

_META: Final = "blockwright.definition"


def definition_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--definition``, ``--partition`` and ``--print-definition``, and what only listed partitions need."""
    for name, values in (
        ("--print-definition", {"is_flag": True, "help": "Print what is asked for as a file for -f."}),
        ("--disk-id", {"metavar": "ID", "help": "GUID of the GPT, or signature of the MBR."}),
        (
            "--alignment",
            {"metavar": "SIZE", "help": "What partitions begin and end at a multiple of.  [default: 1M]"},
        ),
        (
            "--partition",
            {
                "multiple": True,
                "metavar": "KEY=VALUE,...",
                "help": "Add a partition, such as mount=/home,size=rest. May be given again.",
            },
        ),
    ):
        command = click.option(name, **values)(command)
    return click.option(
        "-f",
        "--definition",
        is_eager=True,
        callback=_read,
        expose_value=False,
        metavar="FILE",
        help="Take the disk from a TOML file, a repart.d directory, or a genimage.cfg.",
    )(command)


def key_of(param: click.Parameter) -> str:
    """Return the key that an option is in a file."""
    return max(param.opts, key=len).lstrip("-")


def _read(context: click.Context, _param: click.Parameter, path: str | None) -> None:
    """Read the file before all other options, which take their values from it."""
    if path is None:
        return
    from blockwright.build.read import read_definition

    params = {key_of(each): each for each in context.command.params if isinstance(each, click.Option)}
    others = [name for name in params if name not in keys.DISK and name not in TALK]
    asked = read_definition(path, others)
    folder = os.path.dirname(os.path.abspath(path))
    values = {}
    for name, value in asked.others.items():
        made = _checked(context, params[name], name, value, asked, folder)
        asked.others[name] = values[params[name].name or name] = made
    context.default_map = {**(context.default_map or {}), **values}
    context.meta[_META] = asked
    for remark in asked.remarks:
        sys.stderr.write(f"blockwright: {show_text(remark)}\n")


def _checked(context: click.Context, param: click.Parameter, name: str, value: Any, asked: Asked, folder: str) -> Any:
    """Return the value as the command line would have it. Raises FormatError with the place of the key."""
    place = asked.place(name, None)
    many = getattr(param, "multiple", False)
    is_flag = getattr(param, "is_flag", False)
    if many and not isinstance(value, list):
        raise FormatError(f"{name}: expected a list, found one value", source=place)
    for each in value if many else [value]:
        large = isinstance(each, int) and not -(1 << 64) < each < 1 << 64
        if large or is_flag != isinstance(each, bool) or not isinstance(each, (bool, int, float, str)):
            expected = "true or false" if is_flag else "a text or a number of 64 bits"
            raise FormatError(f"{name}: expected {expected}, found another value", source=place)
    if isinstance(value, str) and "\0" in value:
        raise FormatError(f"{name}: expected a text without NUL", source=place)
    if not is_flag:
        value = [str(each) for each in value] if many else str(value)
    if _names_path(param):
        value = resolved(value, folder)
    try:
        param.process_value(context, value)
    except click.BadParameter as error:
        raise FormatError(f"{name}: {error.message}", source=place) from None
    except UsageError as error:
        raise FormatError(f"{name}: {error}", source=place) from None
    return value


_PATHS: Final = ("FILE", "DIR", "HOST:")
"""How the value of an option that names a file of the host is called at its beginning."""


def _names_path(param: click.Parameter) -> bool:
    return (param.metavar or "").startswith(_PATHS) or param.name == "output"


def asked_for(context: click.Context, sources: tuple[str, ...]) -> Asked:
    """Return what the file and the command line ask for. Raises UsageError."""
    asked: Asked = context.meta.get(_META) or Asked()
    given, place, written = set(), asked.place, len(asked.partitions)
    for param in context.command.params:
        if not isinstance(param, click.Option) or param.name is None:
            continue
        name, source = key_of(param), context.get_parameter_source(param.name)
        if source in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP) or name in TALK:
            continue
        value = context.params.get(param.name)
        if name in keys.DISK:
            asked.disk[name] = list(value) if isinstance(value, tuple) else value
            given.add(name)
        elif name != "output":
            given.add(name)
            asked.others[name] = resolved(_raw(value), os.getcwd()) if _names_path(param) else _raw(value)
    if context.params.get("output") and asked.others.get("output") != context.params["output"]:
        asked.others["output"] = resolved(context.params["output"], os.getcwd())
    try:
        asked.partitions += [keys.partition_of(parse_partition(text)) for text in context.params.get("partition", ())]
    except keys.KeyProblem as problem:
        raise UsageError(f"--partition: {problem.key}: {problem.message}") from None
    asked.sources = sources or asked.sources

    def place_in_file(key: str, index: int | None) -> str:
        on_command_line = key in given if index is None else index >= written
        return "" if on_command_line else place(key, index)

    asked.place = place_in_file
    return asked


def in_file(error: BlockwrightError, asked: Asked, changes: Changes) -> FormatError | None:
    """Return the error with the place of the file's key that it is about; None where no single one raises it.

    Which one is found by trying each change alone, so it costs something only where a build has failed.
    """
    from blockwright.tree.changes.ready import ready

    for name in asked.others:
        field, place = field_of(name), asked.place(name, None)
        if field is None or not place:
            continue
        try:
            ready(replace(Changes(), **{field: getattr(changes, field)}))
        except BlockwrightError as found:
            if str(found) == str(error):
                message = str(error).removeprefix("--").removeprefix(f"{name}: ")
                return FormatError(f"{name}: {message}", source=place)
    return None


def _raw(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
