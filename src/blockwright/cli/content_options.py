"""Options that change what a SOURCE holds, of every command that makes something of one.

Knows: spelling. Refuses to know: what any of them does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any

import click

from blockwright.tree.changes.options import FILES, PARTITION, REFUSE, Addition, Changes


def _files(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[Addition, ...]:
    if not values:
        return ()
    from blockwright.tree.changes.add import parse_file

    return tuple(parse_file(each) for each in values)


def _texts(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[Addition, ...]:
    if not values:
        return ()
    from blockwright.tree.changes.add import parse_text

    return tuple(parse_text(each) for each in values)


_MANY: dict[str, Any] = {"multiple": True}
_GENERAL: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "--map-ids",
        {
            **_MANY,
            "metavar": "[u:|g:]FIRST:FIRST_IN_SOURCE:COUNT",
            "help": "Map users and groups, as user namespaces do.",
        },
    ),
    (
        "--unmapped",
        {"default": REFUSE, "show_default": True, "metavar": "refuse|keep|ID", "help": "What becomes of other ids."},
    ),
    ("--only", {**_MANY, "metavar": "PATTERN", "help": "Take what matches, and all below it, and nothing else."}),
    ("--exclude", {**_MANY, "metavar": "PATTERN", "help": "Leave out what matches, in the language of .gitignore."}),
    ("--exclude-from", {**_MANY, "metavar": "FILE", "help": "The same with a pattern on each line of FILE."}),
)
_OWNER = (
    (
        "--owner",
        {
            "metavar": "USER[:GROUP]",
            "help": "Whose all of SOURCE is: numbers, or names of the image's own /etc/passwd.",
        },
    ),
)
_SINGLE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--umask", {"metavar": "OCTAL", "help": "Permissions to take from all files and directories of SOURCE."}),
    (
        "--add",
        {
            **_MANY,
            "callback": _files,
            "metavar": "HOST:/PATH[:mode=…,owner=…]",
            "help": "Add a file or directory of the host, as root's.",
        },
    ),
    (
        "--add-text",
        {**_MANY, "callback": _texts, "metavar": "/PATH[:mode=…,owner=…]=TEXT", "help": "Add a file of TEXT."},
    ),
    ("--hostname", {"metavar": "NAME", "help": "Name the machine, in /etc/hostname."}),
    ("--timezone", {"metavar": "ZONE", "help": "Its time zone, such as Europe/Berlin."}),
    (
        "--machine-id",
        {
            "metavar": "uninitialized|empty|ID",
            "help": "Its /etc/machine-id; uninitialized is one at its first start.",
        },
    ),
    ("--root-password-hash", {"metavar": "HASH", "help": "Root's hash in /etc/shadow, as crypt makes them."}),
    (
        "--authorized-keys",
        {**_MANY, "metavar": "FILE[:USER]", "help": "Public SSH keys that USER (root) may come in with."},
    ),
    (
        "--cloud-init",
        {
            **_MANY,
            "metavar": "DIR|FILE",
            "help": "A NoCloud seed: user-data, meta-data, network-config, vendor-data.",
        },
    ),
)
_DISK: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "--cloud-init-as",
        {
            "type": click.Choice([FILES, PARTITION]),
            "default": FILES,
            "show_default": True,
            "help": "Where it is: in the root, or in a partition labelled CIDATA.",
        },
    ),
    ("--fstab", {"is_flag": True, "help": "Write /etc/fstab: the root and UEFI's partition, by PARTUUID."}),
)
_LAST: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--device-table", {**_MANY, "metavar": "FILE", "help": "Apply a table as of makedevs and genext2fs."}),
    ("--manifest", {**_MANY, "metavar": "FILE", "help": "Apply an mtree(5) manifest, and verify its digests."}),
    ("--selinux-contexts", {"metavar": "FILE", "help": "Label everything by a policy's file_contexts."}),
)
_RENAMED = {"device_tables": "device_table", "manifests": "manifest"}


def content_options(*, owner: bool = True, disk: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the options, and passes what they say as ``changes``.

    ``owner`` is False where the command has an option of that name; ``disk`` adds what needs one.
    """
    options = (*_GENERAL, *(_OWNER if owner else ()), *_SINGLE, *(_DISK if disk else ()), *_LAST)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        names = {name[2:].replace("-", "_") for name, _ in options}

        @wraps(command)
        def with_changes(**others: Any) -> Any:
            given = {name: others.pop(name) for name in names}
            return command(changes=_changes(given), **others)

        decorated: Callable[..., Any] = with_changes
        for name, values in reversed(options):
            decorated = click.option(name, **values)(decorated)
        return decorated

    return decorate


def field_of(option: str) -> str | None:
    """Return the field of ``Changes`` that an option, without its dashes, is; None for any other option."""
    name = option.replace("-", "_")
    fields_by_option = {_RENAMED.get(each.name, each.name): each.name for each in fields(Changes)}
    return fields_by_option.get("add" if name == "add_text" else name)


def _changes(given: dict[str, Any]) -> Changes:
    given["add"] = (*given["add"], *given.pop("add_text"))
    values = {}
    for field in fields(Changes):
        name = _RENAMED.get(field.name, field.name)
        if name in given:
            values[field.name] = given[name]
    return Changes(**values)
