"""``blockwright nbd attach``, ``detach``, ``status``, ``refresh`` and ``gc``: exports as block devices of the kernel.

Knows: flags and how devices are shown. Refuses to know: the driver, and what a process does while it holds one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import click

from blockwright.attach import nbd
from blockwright.cli import signals
from blockwright.cli.options import size_value
from blockwright.cli.output import StderrLogger, print_json, print_lines, print_path, show_text, table
from blockwright.cli.params import Seconds, json_option
from blockwright.errors import NotFound
from blockwright.serve.attached import hold
from blockwright.serve.background import in_background
from blockwright.system.linux.nbd import By, number_of
from blockwright.system.linux.nbd.attach import READY_TIMEOUT_S
from blockwright.system.linux.nbd.detach import TIMEOUT_S
from blockwright.system.linux.nbd.layout import MAX_CONNECTIONS

_SECONDS: Final = Seconds()


@click.command()
@click.argument("uri")
@click.option("--device", metavar="DEVICE", help="Attach as this device, not as any that is free.")
@click.option(
    "--connections",
    type=click.IntRange(1, MAX_CONNECTIONS),
    default=nbd.CONNECTIONS,
    show_default=True,
    help="Connections to make if the server allows several.",
)
@click.option("--timeout", type=_SECONDS, help="Seconds after which a request is asked again.")
@click.option(
    "--dead-timeout",
    type=Seconds(zero=True),
    default=nbd.DEAD_TIMEOUT_S,
    show_default=True,
    help="Seconds that requests wait for the server to come back.",
)
@click.option(
    "--ready-timeout", type=_SECONDS, default=READY_TIMEOUT_S, show_default=True, help="Seconds until it can be read."
)
@click.option("--block-size", callback=size_value, metavar="SIZE", help="The device's sector; the server's minimum.")
@click.option("--identifier", metavar="TEXT", help="What the kernel knows the device by.")
@click.option("-r", "--read-only", is_flag=True, help="Take no writes.")
@click.option("--by", type=click.Choice([each.value for each in By]), help="How to talk to the driver.")
@click.option("--background", is_flag=True, help="Return when it is ready; a process stays and looks after it.")
@click.option("--pid-file", metavar="FILE", help="Keep the number of the process that looks after the device there.")
@json_option
def attach(  # noqa: PLR0913 - a device's settings
    *,
    uri: str,
    device: str | None,
    connections: int,
    timeout: float | None,
    dead_timeout: float,
    ready_timeout: float,
    block_size: int | None,
    identifier: str | None,
    read_only: bool,
    by: str | None,
    background: bool,
    pid_file: str | None,
    as_json: bool,
) -> int:
    """Attach the export URI as a block device of the kernel, print the device, and look after it.

    Connections that die are made again. SIGTERM or SIGINT detaches the device as soon as nobody uses it, a second
    one leaves it as it is; SIGHUP has its size follow the server's.
    """
    logger = StderrLogger()

    def start() -> nbd.Attached:
        return nbd.attach(
            uri,
            device,
            connections=connections,
            read_only=read_only,
            block_size=block_size,
            timeout_s=timeout,
            dead_timeout_s=dead_timeout,
            identifier=identifier,
            owned=True,
            by=By(by) if by else None,
            ready_timeout=ready_timeout,
            logger=logger,
        )

    show = _print_attached if as_json else print_path
    if not background:
        return hold(start, pid_path=pid_file, tell=show, logger=logger)

    def work(ready: Any) -> int:
        def tell(path: str) -> None:
            show(path)
            ready()

        return hold(start, pid_path=pid_file, tell=tell, logger=logger)

    watched = signals.unwatch()  # it forks
    return in_background(work, forked=signals.watch if watched else None)


@click.command()
@click.argument("devices", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Though it is in use, and what is not stored yet is lost.")
@click.option("--timeout", type=_SECONDS, default=TIMEOUT_S, show_default=True, help="Seconds to wait for users.")
def detach(*, devices: Sequence[str], force: bool, timeout: float) -> None:
    """Detach DEVICES (/dev/nbd0, nbd0 or 0); when this returns all is stored and they are free.

    A device that is in use is left alone, and the message says who holds it.
    """
    for device in devices:
        nbd.detach(device, force=force, timeout_s=timeout)


@click.command()
@click.argument("device", required=False)
@json_option
def status(*, device: str | None, as_json: bool) -> None:
    """List the attached devices, or tell of DEVICE alone; exit with 5 where that is not attached."""
    found = list(nbd.devices())
    if device is not None:
        number = number_of(device)
        found = [each for each in found if each.state.number == number]
        if not found:
            raise NotFound(f"/dev/nbd{number}: is not attached")
    if as_json:
        _print_devices(found)
        return
    rows = [("device", "size", "block", "mode", "connections", "process", "source")]
    rows += [
        (
            each.state.path,
            str(each.state.size),
            str(each.state.block_size),
            "ro" if each.state.read_only else "rw",
            str(each.connections or "?"),
            _process(each),
            each.source or each.state.identifier,
        )
        for each in found
    ]
    print_lines(table(rows, "<>><>><"))


@click.command()
@click.argument("device")
def refresh(*, device: str) -> None:
    """Have the size of DEVICE follow its server's."""
    nbd.refresh(device)


@click.command()
@click.option("--force", is_flag=True, help="Though what is not stored yet is lost, as when the server is gone.")
@json_option
def gc(*, force: bool, as_json: bool) -> None:
    """Detach what was attached by a process that died before it could do so itself."""
    result = nbd.gc(force=force)
    if as_json:
        print_json("blockwright.nbd-gc/1", {"detached": list(result.detached), "held": list(result.held)})
        return
    for path in result.detached:
        print_path(path)
    print_lines(result.held)


def _print_attached(path: str) -> None:
    _print_devices([each for each in nbd.devices() if each.state.path == path])
    sys.stdout.flush()  # whoever reads it need not wait for our end


def _print_devices(found: Sequence[nbd.Device]) -> None:
    print_json("blockwright.nbd-status/1", {"devices": [_document(each) for each in found]})


def _process(each: nbd.Device) -> str:
    if each.owner is None:
        return "-"
    return str(each.owner) if each.alive else f"{each.owner} (dead)"


def _document(each: nbd.Device) -> dict[str, Any]:
    return {
        **asdict(each.state),
        "identifier": show_text(each.state.identifier),
        "source": each.source,
        "connections": each.connections,
        "owner": each.owner,
        "alive": each.alive,
    }
