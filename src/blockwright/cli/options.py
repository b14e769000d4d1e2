"""Options that mean the same in every command, and how their values are read.

Knows: spelling. Refuses to know: what a command does with a value.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from blockwright.device.copy import MAX_REQUESTS, REQUESTS
from blockwright.errors import UsageError
from blockwright.format.open import READABLE
from blockwright.format.output import WRITABLE, ImageOptions
from blockwright.format.policy import Policy
from blockwright.format.qcow2.create import Options
from blockwright.nbd.client.options import CONNECTIONS, MAX_CONNECTIONS, TIMEOUT_S, ClientOptions
from blockwright.nbd.wire import CHANGED_SINCE
from blockwright.tree.rules import ArchiveRules, Xattrs
from blockwright.units import parse_fraction, parse_size

if TYPE_CHECKING:  # what opens sources is imported by the commands that do
    from blockwright.oci.choice import Choice
    from blockwright.source import Source

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


def from_option(command: _Command) -> _Command:
    """Add ``--from``, as ``form``."""
    return click.option(
        "--from",
        "form",
        type=click.Choice(READABLE),
        help="Take IMAGE as of this format, whatever it looks like.  [default: what its first bytes say]",
    )(command)


def allow_backing_option(command: _Command) -> _Command:
    """Add ``--allow-backing``."""
    return click.option(
        "--allow-backing",
        multiple=True,
        metavar="DIR",
        help="Open backing and data files that IMAGE names, where they lie in DIR. Without it none.",
    )(command)


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """How an image is read: as which format, None for what it says; and where files that it names may lie."""

    form: str | None
    policy: Policy


def image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--from`` and ``--allow-backing``, and pass them as ``image_format``."""

    @wraps(command)
    def with_format(*, form: str | None, allow_backing: tuple[str, ...], **others: Any) -> Any:
        return command(image_format=ImageFormat(form, Policy(allow_backing)), **others)

    from_option(with_format)
    allow_backing_option(with_format)
    return with_format


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how an image is written, and pass it as ``output_image``: a function of the output's name."""

    @wraps(command)
    def with_output(
        *,
        output_form: str | None,
        compress: bool,
        compression: str,
        level: int | None,
        cluster_size: str | None,
        qcow2_version: str,
        refcount_bits: str,
        extended_l2: bool,
        **others: Any,
    ) -> Any:
        qcow2 = Options(
            version=int(qcow2_version),
            cluster_size=parse_size(cluster_size or ("128k" if extended_l2 else "64k")),
            refcount_bits=int(refcount_bits),
            extended_l2=extended_l2,
            compression=compression,
        )

        def image(output: str) -> ImageOptions:
            from blockwright.convert import output_format

            form = output_form or (output_format(output) if output else "raw")
            made = ImageOptions(form, qcow2, compress, level)
            made.check()
            return made

        return command(output_image=image, **others)

    for name, values in (
        ("extended-l2", {"is_flag": True, "help": "qcow2: allocate 32nds of clusters."}),
        ("refcount-bits", {"type": click.Choice(["1", "2", "4", "8", "16", "32", "64"]), "default": "16"}),
        ("qcow2-version", {"type": click.Choice(["2", "3"]), "default": "3"}),
        ("cluster-size", {"metavar": "SIZE", "help": "qcow2: bytes of a cluster.  [default: 64k]"}),
        ("level", {"type": int, "metavar": "N", "help": "Level of the compression."}),
        ("compression", {"type": click.Choice(["zlib", "zstd"]), "default": "zlib", "show_default": True}),
        ("compress", {"is_flag": True, "help": "qcow2: compress the data."}),
    ):
        click.option(f"--{name}", **values)(with_output)
    click.option(
        "--format",
        "output_form",
        type=click.Choice(WRITABLE),
        help="Format of OUTPUT.  [default: by its suffix, else raw]",
    )(with_output)
    return with_output


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


@dataclass(frozen=True, slots=True)
class Take:
    """How sources are opened."""

    rules: ArchiveRules
    choice: Choice
    layers: bool

    def open(self, names: tuple[str, ...]) -> Source:
        """Return the source of one name, or of several archives over one another."""
        from blockwright.source import open_source

        if self.layers and len(names) == 1 and os.path.isdir(names[0]):
            names = tuple(os.path.join(names[0], each) for each in sorted(os.listdir(names[0])))
        if len(names) == 1 and not self.layers:
            return open_source(names[0], rules=self.rules, choice=self.choice)
        from blockwright.source.layered import open_layers

        if not names:
            raise UsageError("expected a SOURCE, found none")
        return open_layers(names, self.rules)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how SOURCE is read, and pass it as ``take``."""

    @wraps(command)
    def with_source(
        *, platform: str | None, image: str | None, layers: bool, rules: ArchiveRules, **others: Any
    ) -> Any:
        from blockwright.oci.choice import Choice
        from blockwright.oci.platform import parse_platform

        choice = Choice(None if platform is None else parse_platform(platform), image)
        return command(take=Take(rules, choice, layers), **others)

    click.option(
        "--layers", is_flag=True, help="SOURCE is a directory of archives, each a layer, in order of names."
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


def source_date_epoch() -> int | None:
    """Return SOURCE_DATE_EPOCH in seconds, as reproducible-builds.org has it; None where it is not set."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or len(text) > 11:
        raise UsageError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, found {text[:64]!r}")
    return int(text)
