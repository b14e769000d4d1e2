"""Options of the commands that have something done through a server of Temporal.

Knows: spelling. Refuses to know: what is done there; it imports no client.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import Any

import click

from blockwright.errors import Unsupported, UsageError
from blockwright.pipeline.temporal.place import Place, check_host


def temporal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what names a server and a host, and pass it as ``place``, None where it is all done here."""

    @wraps(command)
    def with_place(*, temporal: str | None, host: str | None, namespace: str, **others: Any) -> Any:
        if (temporal is None) is not (host is None):
            raise UsageError("--temporal and --on go together: expected both, found one")
        place = None
        if temporal is not None and host is not None:
            place = place_of(temporal, host, namespace)
        return command(place=place, **others)

    for option in reversed(_here_or_there()):
        option(with_place)
    return with_place


def place_of(address: str, host: str, namespace: str) -> Place:
    """Return where it is to be done. Raises UsageError, Unsupported where there is no client."""
    place = Place(address, check_host(host), namespace)
    if find_spec("temporalio") is None:
        raise Unsupported("many machines need temporalio: pip install 'blockwright[temporal]'")
    return place


def namespace_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the namespace."""
    return click.option("--namespace", default="default", show_default=True, help="Which namespace of that server.")(
        command
    )


def _here_or_there() -> list[Callable[[Any], Any]]:
    return [
        click.option(
            "--temporal", metavar="ADDRESS", help="Have a worker do it, through this server of Temporal: HOST:PORT."
        ),
        click.option(
            "--on", "host", metavar="HOST", help="With --temporal, whose worker: what it was given as --host."
        ),
        namespace_option,
    ]
