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
from blockwright.pipeline.temporal.server import Given, server_of


def temporal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what names a server and a host, and pass it as ``place``, None where it is all done here."""

    @wraps(command)
    def with_place(*, host: str | None, **others: Any) -> Any:
        given = _given(others)
        if host is None:
            if given.address is not None:
                raise UsageError("--temporal and --on go together: expected both, found one")
            if given != Given():
                raise UsageError("options of Temporal are of use with --on HOST: expected that, too")
            return command(place=None, **others)
        return command(place=_place(given, host), **others)

    return _adding(
        with_place,
        _address("Have a worker do it, through this server of Temporal: HOST:PORT."),
        click.option(
            "--on", "host", metavar="HOST", help="With --temporal, whose worker: what it was given as --host."
        ),
    )


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what names a server, and the host that we are, and pass it as ``place``."""

    @wraps(command)
    def with_place(*, host: str, **others: Any) -> Any:
        return command(place=_place(_given(others), host), **others)

    return _adding(
        with_place,
        _address("The server of Temporal: HOST:PORT."),
        click.option(
            "--host", metavar="ID", required=True, help="What this machine is called: the same from boot to boot."
        ),
    )


def _place(given: Given, host: str) -> Place:
    """Return where it is to be done. Raises UsageError, Unsupported where there is no client."""
    place = Place(server_of(given), check_host(host))
    if find_spec("temporalio") is None:
        raise Unsupported("many machines need temporalio: pip install 'blockwright[temporal]'")
    return place


def _given(others: dict[str, Any]) -> Given:
    """Take what is about the server out of a command's options."""
    return Given(
        others.pop("temporal"),
        others.pop("namespace"),
        others.pop("temporal_tls"),
        others.pop("temporal_tls_ca"),
        others.pop("temporal_tls_cert"),
        others.pop("temporal_tls_key"),
        others.pop("temporal_tls_server_name"),
        others.pop("temporal_api_key_file"),
    )


def _address(text: str) -> Callable[[Any], Any]:
    return click.option("--temporal", metavar="ADDRESS", help=f"{text}  [default: TEMPORAL_ADDRESS]")


def _adding(command: Callable[..., Any], *first: Callable[[Any], Any]) -> Callable[..., Any]:
    """Add options, and behind them those by which a server is reached; they mean the same in every command."""
    for option in reversed((*first, *_reaching())):
        option(command)
    return command


def _reaching() -> list[Callable[[Any], Any]]:
    return [
        click.option("--namespace", help="Which namespace of it.  [default: TEMPORAL_NAMESPACE, else default]"),
        click.option("--temporal-tls", is_flag=True, help="Reach it by TLS, as TEMPORAL_TLS=true does."),
        click.option(
            "--temporal-tls-ca",
            metavar="FILE",
            help="Who is trusted, in PEM.  [default: TEMPORAL_TLS_SERVER_CA_CERT_PATH, else who the system trusts]",
        ),
        click.option(
            "--temporal-tls-cert",
            metavar="FILE",
            help="Our certificate, where it asks for one.  [default: TEMPORAL_TLS_CLIENT_CERT_PATH]",
        ),
        click.option("--temporal-tls-key", metavar="FILE", help="Its key.  [default: TEMPORAL_TLS_CLIENT_KEY_PATH]"),
        click.option(
            "--temporal-tls-server-name",
            metavar="NAME",
            help="Whose certificate is expected.  [default: TEMPORAL_TLS_SERVER_NAME, else the host's]",
        ),
        click.option(
            "--temporal-api-key-file", metavar="FILE", help="Has an API key, as TEMPORAL_API_KEY may; implies TLS."
        ),
    ]
