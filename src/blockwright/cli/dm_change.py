"""``blockwright dm create``, ``load``, ``resume``, ``remove`` and the others that change devices, and ``wait``.

Knows: flags, and where a table is read. Refuses to know: what a table means, and the driver.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Final

import click

from blockwright.cli.dm_show import name_argument, name_value, print_info
from blockwright.cli.output import print_json, print_lines, print_path
from blockwright.cli.params import Seconds, json_option
from blockwright.device.spool import read_up_to
from blockwright.errors import KernelError, LimitExceeded
from blockwright.system.linux.dm import Mapper, Target, parse_table
from blockwright.system.linux.dm.device import REMOVE_TIMEOUT_S

MAX_TABLE: Final = 8 << 20
"""Bytes of a table that are read."""

_table_argument = click.argument("table", metavar="[TABLE-FILE]", default="-")
_read_only_option = click.option("-r", "--read-only", is_flag=True, help="Have the device take no writes.")


def _read_table(path: str) -> list[Target]:
    if path == "-":
        name = "standard input"
        data = b"" if sys.stdin is None else read_up_to(sys.stdin.buffer, MAX_TABLE + 1)
    else:
        name = path
        with open(path, "rb") as file:
            data = file.read(MAX_TABLE + 1)
    if len(data) > MAX_TABLE:
        raise LimitExceeded(f"expected a table of at most {MAX_TABLE} bytes, found more", source=name)
    return parse_table(data.decode("utf-8", "surrogateescape"), name)


@click.command()
@name_argument
@_table_argument
@click.option("--uuid", default="", metavar="TEXT", help="The device's UUID: any text that no other device has.")
@_read_only_option
@json_option
def create(*, name: str, table: str, uuid: str, read_only: bool, as_json: bool) -> None:
    """Have a device NAME that runs with the table in TABLE-FILE, and print its node.

    The table comes from standard input without TABLE-FILE, or with -. Where the kernel does not take it there is no
    device.
    """
    with Mapper() as mapper:
        path = mapper.create(name, _read_table(table), uuid=uuid, read_only=read_only)
    if as_json:
        print_json("blockwright.dm.create/1", {"name": name, "path": path})
    else:
        print_path(path)


@click.command()
@name_argument
@_table_argument
@_read_only_option
def load(*, name: str, table: str, read_only: bool) -> None:
    """Have the table in TABLE-FILE, or standard input, ready for the next `resume` of NAME.

    What runs is not touched.
    """
    with Mapper() as mapper:
        mapper.load(name, _read_table(table), read_only=read_only)


@click.command()
@name_argument
def clear(*, name: str) -> None:
    """Forget the table of NAME that was loaded and does not run."""
    with Mapper() as mapper:
        mapper.clear(name)


@click.command()
@name_argument
def resume(*, name: str) -> None:
    """Have NAME run, with the loaded table where there is one."""
    with Mapper() as mapper:
        mapper.resume(name)


@click.command()
@name_argument
@click.option("--no-flush", is_flag=True, help="Do not wait for what is in flight.")
@click.option("--no-freeze", is_flag=True, help="Do not have a file system on it write out what it holds.")
def suspend(*, name: str, no_flush: bool, no_freeze: bool) -> None:
    """Hold back every read and write of NAME until `resume`."""
    with Mapper() as mapper:
        mapper.suspend(name, flush=not no_flush, freeze=not no_freeze)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", callback=name_value)
@click.option("--deferred", is_flag=True, help="While it is in use, have the kernel remove it when that ends.")
@click.option("--retry", is_flag=True, help=f"While it is in use, try again for {REMOVE_TIMEOUT_S:g} seconds.")
@click.option("--force", is_flag=True, help="Have every read and write of its users fail first; implies --deferred.")
def remove(*, names: Sequence[str], deferred: bool, retry: bool, force: bool) -> None:
    """Have no device NAME. One that is in use is left alone, and the message says who holds it."""
    with Mapper() as mapper:
        for name in names:
            timeout_s = REMOVE_TIMEOUT_S if retry else 0.0
            mapper.remove(name, deferred=deferred, force=force, timeout_s=timeout_s)


@click.command()
@name_argument
@click.argument("to")
@click.option("--set-uuid", is_flag=True, help="TO is the UUID of a device that has none.")
def rename(*, name: str, to: str, set_uuid: bool) -> None:
    """Have the device NAME under the name TO, and print its node."""
    with Mapper() as mapper:
        if set_uuid:
            mapper.set_uuid(name, to)
        else:
            print_path(mapper.rename(name, to))


@click.command()
@name_argument
@click.argument("sector", type=click.IntRange(0, (1 << 64) - 1))
@click.argument("text", nargs=-1, required=True)
def message(*, name: str, sector: int, text: Sequence[str]) -> None:
    """Give the target of NAME at SECTOR a message, and print what it answers; most answer nothing."""
    with Mapper() as mapper:
        answer = mapper.message(name, " ".join(text), sector=sector)
    print_lines(answer.splitlines())


@click.command()
@name_argument
@click.argument("event", type=click.IntRange(0, (1 << 32) - 1), required=False)
@click.option("--timeout", type=Seconds(zero=True), metavar="SECONDS", help="For how long.  [default: any time]")
@json_option
def wait(*, name: str, event: int | None, timeout: float | None, as_json: bool) -> None:
    """Wait until the event number of NAME is another than EVENT, and print it.

    Without EVENT the next event is waited for. Exits with 1 where there was none within the time.
    """
    with Mapper() as mapper:
        before = mapper.info(name).event_nr if event is None else event
        found = mapper.wait(name, before, timeout_s=timeout)
    if found.event_nr == before:
        raise KernelError("wait", name, errno.ETIMEDOUT, f"expected an event after {before}, found none in time")
    if as_json:
        print_info(found)
    else:
        print_lines([str(found.event_nr)])
