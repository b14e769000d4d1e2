"""``blockwright serve``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from logging import NullHandler
from typing import Any, Final

import click

from blockwright.build.definition import Definition, RootOptions, Table
from blockwright.cli.content_options import content_options
from blockwright.cli.options import (
    allow_backing_option,
    force_unlocked_option,
    from_option,
    share_value,
    size_value,
    some_size_value,
)
from blockwright.cli.output import print_lines
from blockwright.epoch import source_date_epoch
from blockwright.errors import UsageError
from blockwright.nbd.protocol.server import HandshakeLimits, Tls
from blockwright.nbd.server.connection import Options
from blockwright.nbd.server.limits import Limits
from blockwright.nbd.server.listeners import (
    Listener,
    inherited,
    listen_tcp,
    listen_unix,
    listen_vsock,
    parse_host_port,
)
from blockwright.nbd.server.log import LOGGER, Log
from blockwright.nbd.server.peer import Peer, peer_of
from blockwright.nbd.server.server import GRACE_S
from blockwright.nbd.transport import SocketStream, Stream
from blockwright.nbd.wire import PORT
from blockwright.serve.definition import ExportDefinition, ExportsFile, parse_block_size, read_exports
from blockwright.serve.image import Image, parse_track
from blockwright.serve.logs import json_log, text_log, troubles_only
from blockwright.serve.run import Service
from blockwright.serve.run import run as run_service
from blockwright.serve.ui import Ui

IN_MEMORY: Final = ""
"""The value of ``--overlay`` without a file."""

_FOREVER_S: Final = 1e9
"""What nobody waits for, and every clock can count."""

_OF_IMAGES: Final = {
    "name": "name",
    "description": "description",
    "read-only": "read_only",
    "overlay": "overlay",
    "from": "form",
    "partition": "partition",
    "block-size": "block_size",
    "connections": "connections",
    "resizable": "resizable",
    "allow": "allow",
    "allow-read": "allow_read",
    "force-unlocked": "force_unlocked",
}
"""Options that say something of the IMAGEs of the command line, and nothing of those in a file of exports."""

_DEFAULTS: Final = Limits()
_TIME: Final = re.compile(r"(?P<number>[0-9]{1,7}(?:\.[0-9]{1,3})?)\s*(?P<unit>ms|s|m|h|)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return seconds, None for ``none``."""
    if value is None or value == "none":
        return None
    match = _TIME.fullmatch(value)
    if match is None or not float(match["number"]):
        raise UsageError(
            f"--{(param.name or '').replace('_', '-')}: expected a time such as 10s or none, found {value!r}"
        )
    return min(float(match["number"]) * _UNITS[match["unit"]], _FOREVER_S)


def _mode(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"0?[0-7]{3}", value):
        raise UsageError(f"--socket-mode: expected three octal digits such as 660, found {value!r}")
    return int(value, 8)


def _adding(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decorator that adds the options in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every limit of ``nbd.server.limits``."""
    count = click.IntRange(min=1)
    shake = _DEFAULTS.handshake
    time = {"callback": _seconds, "metavar": "TIME|none"}
    size = {"callback": size_value, "metavar": "SIZE"}
    limits = (
        ("--max-connections", _DEFAULTS.connections, {"type": count}, "Connections in all."),
        (
            "--max-connections-by-address",
            _DEFAULTS.connections_by_address,
            {"type": count},
            "By address, or by user.",
        ),
        ("--handshake-timeout", f"{_DEFAULTS.handshake_s:g}s", time, "For the whole handshake."),
        ("--handshake-options", shake.options, {"type": count}, "Options in one handshake."),
        ("--handshake-bytes", str(shake.bytes), size, "Bytes in one handshake."),
        ("--max-in-flight", "64M", size, "Bytes that all requests under way may hold."),
        ("--max-connection-in-flight", "16M", size, "The same for one connection."),
        ("--max-connection-requests", _DEFAULTS.connection_requests, {"type": count}, "Requests of one under way."),
        ("--max-request", "32M", size, "Bytes of one read or write."),
        ("--request-timeout", f"{_DEFAULTS.request_s:g}s", time, "For a request to arrive, be done, be taken."),
        ("--idle-timeout", "none", time, "For a client that asks for nothing."),
    )
    for name, default, kind, text in reversed(limits):
        command = click.option(name, default=default, show_default=True, help=f"Limit. {text}", **kind)(command)
    return command


_process_options = _adding(
    click.option("--metrics", metavar="HOST:PORT", help="Answer GET /metrics there, for Prometheus."),
    click.option("--ui", metavar="ADDRESS", help="Show a live page at HOST:PORT or PORT, for browsers of this host."),
    click.option("--ui-remote", is_flag=True, help="Let --ui be an address that other hosts reach."),
    click.option("--log", type=click.Choice(["text", "json", "off"]), help="Log everything; else only troubles."),
    click.option("--pid-file", metavar="FILE", help="Keep the process id in FILE while serving."),
    click.option("--user", metavar="USER", help="Serve as USER, once all is open."),
    click.option(
        "--workers",
        type=click.IntRange(0, 64),
        default=4,
        show_default=True,
        help="Processes that may share the sessions of raw files, started when one is not enough.",
    ),
    click.option("--exit-with-last", is_flag=True, help="End when the last client has gone."),
    click.option("--exit-with-parent", is_flag=True, help="End when the process that started this one ends."),
    click.option(
        "--grace",
        default=f"{GRACE_S:g}s",
        show_default=True,
        callback=_seconds,
        metavar="TIME|none",
        help="How long requests may go on when the server is to end.",
    ),
)
"""The options about the server as a process."""


_image_options = _adding(
    click.option("--exports", metavar="FILE", help="Serve what a TOML file says; SIGHUP reads it again."),
    click.option("--name", multiple=True, help="Name of the export, once for each IMAGE. Default: empty."),
    click.option("--description", help="What clients are told of it."),
    click.option("-r", "--read-only", is_flag=True, help="Refuse writes."),
    click.option(
        "--overlay",
        metavar="[=FILE]",
        help="Keep writes in memory, or in the new FILE, and leave IMAGE alone. They end with the server.",
    ),
    from_option,
    allow_backing_option,
    click.option("--partition", type=int, metavar="N", help="Serve partition N of IMAGE."),
    click.option("--block-size", metavar="MIN,PREFERRED,MAX", help="Block sizes that clients are told and held to."),
    click.option("--connections", type=click.IntRange(min=1), help="Sessions of one export at once."),
    click.option("--resizable", is_flag=True, help="Let clients resize it (the RESIZE extension)."),
    click.option(
        "--track",
        multiple=True,
        metavar="NAME[=FILE]",
        help="Tell clients what changed since now, or since FILE was begun, as blockwright:changed-since:NAME.",
    ),
    click.option("--allow", multiple=True, metavar="RULE", help="Who may use it: 10.0.0.0/8, uid=1000, cn=NAME …"),
    click.option("--allow-read", multiple=True, metavar="RULE", help="Who may only read it."),
    click.option(
        "--table",
        type=click.Choice([each.value for each in Table]),
        default="gpt",
        show_default=True,
        help="Around a directory or archive: the partition table; none is a bare file system.",
    ),
    click.option("--size", callback=some_size_value, metavar="SIZE", help="Size of a directory's disk."),
    click.option("--free", callback=share_value, metavar="SHARE", help="Share of it to leave free, such as 20%."),
    click.option("--label", default="root", show_default=True, help="Label of its file system."),
    click.option("--seed", help="Text that its identities follow from, or random."),
    force_unlocked_option,
)
"""The options about what is served."""


_tls_options = _adding(
    click.option(
        "--tls",
        type=click.Choice([each.value for each in Tls]),
        help="Whether clients may or must encrypt. Default: they must, where certificates or keys are given.",
    ),
    click.option(
        "--tls-certificates", metavar="DIR", help="Folder with server-cert.pem, server-key.pem, ca-cert.pem."
    ),
    click.option("--tls-verify-clients", is_flag=True, help="Ask clients for certificates, whose names rules know."),
    click.option("--tls-psk-file", metavar="FILE", help="File of IDENTITY:HEXKEY lines."),
)
"""The options about TLS."""


class _Command(click.Command):
    """A command whose ``--overlay`` takes a value behind an equals sign only, so that it never takes an IMAGE."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"{each}=" if each == "--overlay" else each for each in args])


@click.command(cls=_Command)
@click.argument("images", nargs=-1, metavar="IMAGE…")
@click.option("--socket", "-U", metavar="PATH", help="Listen on a Unix socket.")
@click.option("--socket-mode", callback=_mode, metavar="MODE", help="Its permissions, such as 660.")
@click.option("--listen", multiple=True, metavar="HOST:PORT", help="Listen on TCP; :PORT is every address.")
@click.option("--vsock", type=click.IntRange(0, (1 << 32) - 1), metavar="PORT", help="Listen for virtual machines.")
@click.option("--stdio", is_flag=True, help="Serve one client on standard input and output, as inetd does.")
@_image_options
@_tls_options
@_process_options
@_limit_options
@content_options(disk=True)
def serve(**options: Any) -> int:
    """Serve each IMAGE as a network block device (NBD).

    IMAGE is a disk image or device, a part of one (disk.img:2), mem:SIZE or null:SIZE; or a directory or tar archive,
    which becomes a disk at once with nothing written anywhere. Addresses go to standard output once clients may come.
    Without a place to listen it is localhost, or the sockets of whoever started it (systemd, nbdcopy [ … ]).

    \b
    Examples:
      blockwright serve disk.img --socket /run/disk.sock
      blockwright serve rootfs/ --overlay --free 20% --listen :10809
      blockwright serve --exports exports.toml --listen :10809 --metrics localhost:9100
      nbdcopy -- [ blockwright serve disk.img -r ] copy.img
    """  # noqa: D301  # click leaves lines as they are below a real backspace
    load = _loader(options)
    log = _log(options["log"])
    server = _with_tls(Options(limits=_limits(options), log=log, workers=options["workers"]), options)
    ui, metrics = _ui(options), options["metrics"]
    scraped = None if metrics is None else parse_host_port(metrics, default=None)
    listeners, clients = _places(options)
    return run_service(
        Service(
            load,
            listeners,
            clients,
            server,
            reloadable=options["exports"] is not None,
            once=options["exit_with_last"] or not listeners,
            grace_s=options["grace"] or _FOREVER_S,
            metrics=scraped,
            ui=ui,
            pid_file=options["pid_file"],
            user=options["user"],
            with_parent=options["exit_with_parent"],
            tell=_silent if clients or any(each.inherited for each in listeners) else _tell,
            tell_page=_tell_page,
        )
    )


def _ui(options: dict[str, Any]) -> Ui | None:
    """Return where the live page is to be; a port alone is this host's own."""
    if options["ui"] is None:
        if options["ui_remote"]:
            raise UsageError("serve: --ui-remote goes with --ui")
        return None
    host, port = parse_host_port(options["ui"], default=None)
    return Ui("localhost" if options["ui"].isdecimal() else host, port, remote=options["ui_remote"])


def _tell_page(url: str) -> None:
    """Say where the live page is, on standard error: what is on standard output is addresses of exports."""
    sys.stderr.write(f"blockwright: live page at {url}\n")
    sys.stderr.flush()


def _loader(options: dict[str, Any]) -> Callable[[], ExportsFile]:
    """Return what gives the exports, of the file or of the command line."""
    disk = _disk(options)
    path, images = options["exports"], options["images"]
    if path is not None:
        if images:
            raise UsageError("serve: expected either an IMAGE or --exports, found both")
        if given := [name for name, key in _OF_IMAGES.items() if options[key] not in (None, False, ())]:
            raise UsageError(f"serve: expected the file to say it of each export, found --{given[0]}")
        if options["stdio"]:
            return lambda: read_exports(path, disk)
        absolute = os.path.abspath(path)
        return lambda: read_exports(absolute, disk)
    if not images:
        raise UsageError("serve: expected an IMAGE, or --exports FILE")
    wanted = ExportsFile(tuple(_definition(options, each, name, disk) for each, name in _named(options)))
    return lambda: wanted


def _named(options: dict[str, Any]) -> list[tuple[str, str]]:
    """Return each image with its export's name: given, or empty for a single one, or the last part of its path."""
    images, names = options["images"], options["name"]
    if names and len(names) != len(images):
        raise UsageError(f"serve: expected a --name for each of {len(images)} images, found {len(names)}")
    if not names:
        names = [""] if len(images) == 1 else [os.path.basename(each.rstrip("/")) for each in images]
    return list(zip(images, names, strict=True))


def _definition(options: dict[str, Any], image: str, name: str, disk: Definition) -> ExportDefinition:
    overlay = options["overlay"]
    if overlay not in (None, IN_MEMORY) and len(options["images"]) > 1:
        raise UsageError("serve: expected one IMAGE for one file of an overlay")
    if any("=" in each for each in options["track"]) and len(options["images"]) > 1:
        raise UsageError("serve: expected one IMAGE for one file of --track")
    return ExportDefinition(
        name,
        Image(
            image,
            partition=options["partition"],
            writable=not options["read_only"],
            form=options["form"],
            allow_backing=options["allow_backing"],
            overlay=overlay is not None,
            overlay_file=overlay or None,
            force_unlocked=options["force_unlocked"],
            track=parse_track(options["track"], os.getcwd()),
            disk=disk,
        ),
        description=options["description"] or "",
        blocks=None if options["block_size"] is None else parse_block_size(options["block_size"]),
        connections=options["connections"],
        resizable=options["resizable"],
        allow=options["allow"],
        allow_read=options["allow_read"],
    )


def _disk(options: dict[str, Any]) -> Definition:
    return Definition(
        table=Table(options["table"]),
        size=options["size"],
        root=RootOptions(free=options["free"] or 0.0, label=options["label"]),
        changes=options["changes"],
        seed=options["seed"],
        time_s=source_date_epoch(),
    )


def _limits(options: dict[str, Any]) -> Limits:
    return Limits(
        connections=options["max_connections"],
        connections_by_address=options["max_connections_by_address"],
        handshake_s=options["handshake_timeout"],
        handshake=HandshakeLimits(options["handshake_options"], options["handshake_bytes"]),
        bytes_in_flight=options["max_in_flight"],
        connection_bytes_in_flight=options["max_connection_in_flight"],
        connection_requests=options["max_connection_requests"],
        request_bytes=options["max_request"],
        request_s=options["request_timeout"],
        idle_s=options["idle_timeout"],
    )


def _with_tls(server: Options, options: dict[str, Any]) -> Options:
    """Return the options with TLS as it was asked for; nothing of it is imported where it was not."""
    keys = options["tls_certificates"], options["tls_psk_file"]
    given = any(each is not None for each in keys)  # an empty name is a wrong one, and not the wish for none
    wanted = Tls(options["tls"]) if options["tls"] else Tls.REQUIRE if given else Tls.OFF
    if wanted is Tls.OFF:
        if given or options["tls_verify_clients"]:
            raise UsageError("serve: certificates and keys are of use with --tls allow or --tls require only")
        return server
    if not given:
        raise UsageError(f"serve: --tls {wanted.value} needs --tls-certificates DIR or --tls-psk-file FILE")
    from blockwright.nbd.tls import server_start_tls

    start_tls = server_start_tls(
        options["tls_certificates"], verify_clients=options["tls_verify_clients"], psk_file=options["tls_psk_file"]
    )
    return replace(server, tls=wanted, start_tls=start_tls)


def _places(options: dict[str, Any]) -> tuple[list[Listener], list[tuple[Stream, Peer]]]:
    """Return where to listen, and who is connected already."""
    named = bool(options["listen"]) or options["socket"] is not None or options["vsock"] is not None
    if options["socket_mode"] is not None and options["socket"] is None:
        raise UsageError("serve: --socket-mode goes with --socket")
    if options["stdio"]:
        if named:
            raise UsageError("serve: expected either --stdio or a place to listen, found both")
        from blockwright.nbd.server.pipes import open_stdio

        return [], [open_stdio()]
    if not named:
        found = inherited()
        if found is not None:
            return list(found.listeners), [(SocketStream(each), peer_of(each)) for each in found.connected]
    made: list[Listener] = []
    try:
        if options["socket"] is not None:
            made.append(listen_unix(options["socket"], mode=options["socket_mode"]))
        for text in options["listen"] or ([] if named else [f"localhost:{PORT}"]):
            made += listen_tcp(*parse_host_port(text))
        if options["vsock"] is not None:
            made.append(listen_vsock(options["vsock"]))
    except BaseException:
        for each in made:
            each.close()
        raise
    return made, []


def _log(kind: str | None) -> Log:
    LOGGER.addHandler(NullHandler())  # a bug of a device is in this log, in a line: no traceback beside it
    if kind == "off":
        return lambda _event, /, **_fields: None
    if kind == "json":
        return json_log(sys.stderr)
    return text_log(sys.stderr) if kind == "text" else troubles_only(text_log(sys.stderr))


def _tell(addresses: Sequence[str]) -> None:
    print_lines(addresses)
    sys.stdout.flush()


def _silent(_addresses: Sequence[str]) -> None:
    """Say nothing: whoever handed the sockets over knows where they are, and may use standard output for itself."""
