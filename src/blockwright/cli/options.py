"""Options that mean the same in every command, and how their values are read.

Knows: spelling. Refuses to know: what a command does with a value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from blockwright.cli.params import Seconds
from blockwright.device.copy import MAX_REQUESTS, REQUESTS
from blockwright.errors import UsageError
from blockwright.format.output import ImageOptions
from blockwright.format.policy import Policy
from blockwright.format.registry import MADE, NAMES, Option, all_options, own_options
from blockwright.nbd.client.options import CONNECTIONS, MAX_CONNECTIONS, TIMEOUT_S, ClientOptions
from blockwright.nbd.wire import CHANGED_SINCE
from blockwright.plugin import FORMATS, find_plugin
from blockwright.units import parse_fraction, parse_new_size, parse_size

_FEWER = re.compile("-[0-9]")
_Command = TypeVar("_Command", bound=Callable[..., Any])

if TYPE_CHECKING:
    _Choice = click.Choice[str]
else:
    _Choice = click.Choice  # which is generic from click 8.2 on


def size_value(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Return bytes, for an option's ``callback``."""
    return None if value is None else parse_size(value)


def some_size_value(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Return the bytes of something that is to be, at least one, for an option's ``callback``."""
    return None if value is None else parse_new_size(value)


def check_new_file(path: str) -> None:
    """Raise UsageError where the file that is to be made would from then on be taken for a volume of that name."""
    if path.startswith("volume:") and not os.path.lexists(path):
        raise UsageError(f"{path}: expected a file, found a volume: 'volume create' makes one, ./{path} is a file")


@dataclass(frozen=True, slots=True)
class NewSize:
    """A size that something is to get: so many bytes, or with a ``sign`` so many more or fewer than it has."""

    size: int
    sign: str = ""

    def of(self, present: int) -> int:
        """Return the bytes that what has ``present`` is to have. Raises UsageError for none of them."""
        if not self.sign:
            return self.size
        if self.sign == "-" and self.size >= present:
            raise UsageError(f"size '-{self.size}': expected less than the {present} bytes that there are")
        return present - self.size if self.sign == "-" else present + self.size


def new_size_value(_ctx: click.Context, _param: click.Parameter, value: str | None) -> NewSize | None:
    """Return a size such as 20G, +5G or -5G, for an option's ``callback``; its command is a ``SizedCommand``."""
    if value is None:
        return None
    sign = value[:1] if value[:1] in ("+", "-") else ""
    return NewSize(parse_size(value[1:]) if sign else parse_new_size(value), sign)


class SizedCommand(click.Command):
    """A command with a size among its arguments, of which ``-5G`` is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what begins with a minus and a digit as an argument; no option of ours is called so."""
        ctx.ignore_unknown_options = any(_FEWER.match(each) for each in args)
        return super().parse_args(ctx, args)


def share_value(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Return a fraction, for an option's ``callback``."""
    return None if value is None else parse_fraction(value)


def seed_value(_ctx: click.Context, _param: click.Parameter, value: str | None) -> bytes:
    """Return the bytes that identities follow from, for an option's ``callback``: the text's, random without one."""
    return os.urandom(32) if value is None else value.encode("utf-8", "surrogateescape")


def quiet_option(command: _Command) -> _Command:
    """Add ``--quiet``."""
    return click.option("-q", "--quiet", is_flag=True, help="Show no progress.")(command)


def force_option(command: _Command) -> _Command:
    """Add ``--force``."""
    return click.option("--force", is_flag=True, help="Replace an output that exists.")(command)


def partition_option(command: _Command) -> _Command:
    """Add ``--partition``."""
    return click.option("--partition", type=int, metavar="N", help="Take partition N of IMAGE.")(command)


def inode_size_option(command: _Command) -> _Command:
    """Add ``--inode-size``."""
    return click.option(
        "--inode-size",
        type=click.Choice(["128", "256"]),
        callback=lambda _ctx, _param, value: value and int(value),
        help="Bytes of an inode of ext2, ext3 or ext4.  [default: 256]",
    )(command)


def compat_option(command: _Command) -> _Command:
    """Add ``--compat``."""
    return click.option(
        "--compat",
        multiple=True,
        metavar="NAME",
        help="Leave out what an old kernel or boot loader cannot read, such as linux-3.10; may be given again.",
    )(command)


def force_unlocked_option(command: _Command) -> _Command:
    """Add ``--force-unlocked``."""
    return click.option("--force-unlocked", is_flag=True, help="Open the image though somebody else holds it.")(
        command
    )


class OrPlugin(_Choice):
    """One of our names, or that of an installed plugin of ``group``, looked for where it is none of ours."""

    def __init__(self, choices: Sequence[str], group: str) -> None:
        super().__init__(choices)
        self._group = group

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name. Raises as click does for one that is neither, and UsageError of a broken plugin."""
        if value not in self.choices and find_plugin(self._group, str(value)) is not None:
            return value
        return super().convert(value, param, ctx)


def from_option(command: _Command) -> _Command:
    """Add ``--from``, as ``form``."""
    return click.option(
        "--from",
        "form",
        type=OrPlugin(NAMES, FORMATS),
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


@dataclass(frozen=True, slots=True)
class Where:
    """An image that a command was given: its address, a partition of it, and how it is opened."""

    name: str
    partition: int | None
    image_format: ImageFormat
    force_unlocked: bool


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
    options = all_options()

    @wraps(command)
    def with_output(*, output_form: str | None, **others: Any) -> Any:
        given = {option.key: others.pop(option.key) for option in options}

        def image(output: str) -> ImageOptions:
            from blockwright.convert import output_format

            form = output_form or (output_format(output) if output else "raw")
            made = ImageOptions(form, own_options(form, given, output))
            made.check()
            return made

        return command(output_image=image, **others)

    for option in reversed(options):
        _add_option(option, with_output)
    click.option(
        "--format",
        "output_form",
        type=OrPlugin(MADE, FORMATS),
        help="Format of OUTPUT.  [default: by its suffix, else raw]",
    )(with_output)
    return with_output


def _add_option(option: Option, command: Callable[..., Any]) -> None:
    kind = click.Choice(option.choices) if option.choices else None
    click.option(
        f"--{option.name}", type=kind, is_flag=option.flag, metavar=option.metavar, default=None, help=option.help
    )(command)


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
