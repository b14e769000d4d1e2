"""Options of the commands that take a SOURCE of files: what is kept of it, and which of it is meant.

Knows: spelling. Refuses to know: how sources are read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import click

from blockwright.cli.params import seconds_of
from blockwright.errors import UsageError
from blockwright.tree.rules import ArchiveRules, Xattrs
from blockwright.units import parse_size

if TYPE_CHECKING:  # what opens sources is imported when one is opened
    from blockwright.oci.choice import Choice
    from blockwright.source import Source

_LIMITS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "size": ("size", parse_size),
    "ratio": ("ratio", int),
    "entries": ("entries", int),
    "depth": ("depth", int),
    "path": ("path", parse_size),
    "header": ("header", parse_size),
    "metadata": ("metadata", parse_size),
    "memory": ("memory", parse_size),
    "spool": ("spool", parse_size),
    "time": ("time_s", partial(seconds_of, what="--limit time")),
}


def rules_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--limit`` and ``--xattrs``, and pass what is taken in of an archive as ``rules``."""

    @wraps(command)
    def with_rules(*, limit: tuple[str, ...], xattrs: str, **others: Any) -> Any:
        return command(rules=_rules(limit, xattrs), **others)

    click.option(
        "--limit",
        multiple=True,
        metavar="NAME=VALUE",
        help=f"Refuse an archive beyond it: {', '.join(_LIMITS)} (seconds). May be given again.",
    )(with_rules)
    click.option(
        "--xattrs",
        type=click.Choice([each.value for each in Xattrs]),
        default=Xattrs.SAFE.value,
        show_default=True,
        help="Attributes to keep from an archive; all are also SELinux labels and trusted.*.",
    )(with_rules)
    return with_rules


@dataclass(frozen=True, slots=True)
class Take:
    """How sources are opened."""

    rules: ArchiveRules
    choice: Choice
    layers: bool
    store: str | None = None

    def open(self, names: tuple[str, ...]) -> Source:
        """Return the source of one name, or of several over one another."""
        from blockwright.source import open_sources

        if not names:
            raise UsageError("expected a SOURCE, found none")
        return open_sources(names, rules=self.rules, choice=self.choice, layers=self.layers, store=self.store)

    def repeatable(self, names: tuple[str, ...]) -> bool:
        """Whether ``open`` gives the same again: none of the names is a pipe or standard input."""
        return not any(name == "-" or stat.S_ISFIFO(_mode(name)) for name in names)


def _mode(name: str) -> int:
    try:
        return os.stat(name).st_mode
    except OSError:  # an address of something else than a file
        return 0


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how SOURCE is read, and pass it as ``take``."""

    @wraps(command)
    def with_source(
        *,
        platform: str | None,
        image: str | None,
        layers: bool,
        store: str | None,
        rules: ArchiveRules,
        **others: Any,
    ) -> Any:
        from blockwright.oci.choice import Choice
        from blockwright.oci.platform import parse_platform

        choice = Choice(None if platform is None else parse_platform(platform), image)
        return command(take=Take(rules, choice, layers, store), **others)

    click.option(
        "--layers",
        is_flag=True,
        help="SOURCE is a directory of archives and images, one over another by name.",
    )(with_source)
    click.option(
        "--store", metavar="URL", help="Where a SOURCE that is no path is a key.  [default: BLOCKWRIGHT_STORE]"
    )(with_source)
    click.option("--image", metavar="NAME", help="Which container image of SOURCE, by its tag.")(with_source)
    click.option("--platform", metavar="OS/ARCH", help="Which platform of it, such as linux/arm64.")(with_source)
    return rules_options(with_source)


def _rules(limits: tuple[str, ...], xattrs: str) -> ArchiveRules:
    given: dict[str, Any] = {}
    for text in limits:
        name, equals, value = text.partition("=")
        if not equals or name not in _LIMITS:
            raise UsageError(f"--limit: expected NAME=VALUE with one of {', '.join(_LIMITS)}, found {text[:64]!r}")
        field, parse = _LIMITS[name]
        try:
            given[field] = parse(value)
        except ValueError as error:
            raise UsageError(f"--limit {name}: expected a number, found {value[:64]!r}") from error
        if not given[field] > 0:
            raise UsageError(f"--limit {name}: expected a number above 0, found {value[:64]!r}")
    return ArchiveRules(xattrs=Xattrs(xattrs), **given)
