"""Options that mean the same in every command, and how their values are read.

Knows: spelling. Refuses to know: what a command does with a value.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click

from blockwright.device.copy import MAX_REQUESTS, REQUESTS
from blockwright.errors import UsageError
from blockwright.nbd.client.options import CONNECTIONS, MAX_CONNECTIONS, TIMEOUT_S, ClientOptions
from blockwright.nbd.wire import CHANGED_SINCE
from blockwright.tree.rules import ArchiveRules, Xattrs
from blockwright.units import parse_fraction, parse_size

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """A time in seconds that every clock can count; NaN, which no bound keeps out, is none."""

    def __init__(self, least: float = 0, most: float = 1e9, *, zero: bool = False) -> None:
        super().__init__(least, most, min_open=not (least or zero))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds. Raises click.BadParameter."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is no time.", param, ctx)
        return seconds


def size_value(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Return bytes, for an option's ``callback``."""
    return None if value is None else parse_size(value)


def share_value(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Return a fraction, for an option's ``callback``."""
    return None if value is None else parse_fraction(value)


def seed_value(_ctx: click.Context, _param: click.Parameter, value: str | None) -> bytes:
    """Return the bytes that identities follow from, for an option's ``callback``: the text's, random without one."""
    return os.urandom(32) if value is None else value.encode("utf-8", "surrogateescape")


def json_option(command: _Command) -> _Command:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def quiet_option(command: _Command) -> _Command:
    """Add ``--quiet``."""
    return click.option("-q", "--quiet", is_flag=True, help="Show no progress.")(command)


def force_option(command: _Command) -> _Command:
    """Add ``--force``."""
    return click.option("--force", is_flag=True, help="Replace an output that exists.")(command)


def partition_option(command: _Command) -> _Command:
    """Add ``--partition``."""
    return click.option("--partition", type=int, metavar="N", help="Take partition N of IMAGE.")(command)


def force_unlocked_option(command: _Command) -> _Command:
    """Add ``--force-unlocked``."""
    return click.option("--force-unlocked", is_flag=True, help="Open the image though somebody else holds it.")(
        command
    )


@dataclass(frozen=True, slots=True)
class Peers:
    """How servers are treated, and how many chunks are in flight with them; None for the default."""

    client: ClientOptions
    requests: int | None


def peer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--connections``, ``--requests`` and ``--timeout``, and pass them as ``peers``."""

    @wraps(command)
    def with_peers(*, connections: int, requests: int | None, timeout: float, **others: Any) -> Any:
        return command(peers=Peers(ClientOptions(connections=connections, timeout_s=timeout), requests), **others)

    for name, kind, default, metavar, text in (
        ("timeout", Seconds(), TIMEOUT_S, "SECONDS", "How long a request may take."),
        ("requests", click.IntRange(1, MAX_REQUESTS), None, "N", f"Chunks in flight.  [default: {REQUESTS}]"),
        ("connections", click.IntRange(1, MAX_CONNECTIONS), CONNECTIONS, "N", "Connections to use if allowed."),
    ):
        click.option(
            f"--{name}",
            type=kind,
            default=default,
            show_default=default is not None,
            metavar=metavar,
            help=f"With an NBD server: {text}",
        )(with_peers)
    return with_peers


def context_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--context`` and ``--changed-since``, and pass the meta context that either names as ``context``."""

    @wraps(command)
    def with_context(*, context: str | None, changed_since: str | None, **others: Any) -> Any:
        if changed_since is not None:
            if context is not None:
                raise UsageError("--changed-since names a meta context, and --context another: use one of them")
            context = CHANGED_SINCE + changed_since
        return command(context=context, **others)

    click.option(
        "--changed-since",
        metavar="NAME",
        help="Copy only what changed since the checkpoint NAME (see serve --track) onto OUTPUT, an earlier copy.",
    )(with_context)
    click.option(
        "--context",
        metavar="NAME",
        help="Copy only what has a flag in this meta context of SOURCE, such as qemu:dirty-bitmap:NAME, onto OUTPUT, "
        "which is an earlier copy.",
    )(with_context)
    return with_context


_LIMITS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "size": ("size", parse_size),
    "ratio": ("ratio", int),
    "entries": ("entries", int),
    "depth": ("depth", int),
    "path": ("path", parse_size),
    "header": ("header", parse_size),
    "metadata": ("metadata", parse_size),
    "memory": ("memory", parse_size),
    "time": ("time_s", float),
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


def source_date_epoch() -> int | None:
    """Return SOURCE_DATE_EPOCH in seconds, as reproducible-builds.org has it; None where it is not set."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or len(text) > 11:
        raise UsageError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, found {text[:64]!r}")
    return int(text)
