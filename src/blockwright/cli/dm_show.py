"""``blockwright dm list``, ``info``, ``table``, ``status``, ``deps`` and ``targets``: what there is.

Knows: how devices, tables and status are shown; bytes in JSON, the kernel's sectors as text. Refuses to know: the
driver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import click

from blockwright.cli import output
from blockwright.cli.output import print_json, print_lines
from blockwright.cli.params import json_option
from blockwright.system.linux import blkdev, dm
from blockwright.system.linux.dm import layout, nodes, tables
from blockwright.system.linux.dm import status as states
from blockwright.system.linux.ioctl import split_device

_IN_THE_LINE: Final = {"length", "type", "text"}


def name_value(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
    """Return the names of devices that are given by name or by node, for an argument's ``callback``."""
    if isinstance(value, str):
        return value.removeprefix(f"{nodes.FOLDER}/")
    return [name_value(_ctx, _param, each) for each in value]


name_argument = click.argument("name", callback=name_value)


@click.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """List the devices."""
    with dm.Mapper() as mapper:
        found = mapper.devices()
    if as_json:
        print_json("blockwright.dm/1", {"devices": [_entry(each) for each in found]})
        return
    rows = [("name", "number", "events", "uuid")]
    for each in found:
        events = "" if each.event_nr is None else str(each.event_nr)
        rows.append((each.name, _number(*split_device(each.dev)), events, each.uuid or ""))
    print_lines(output.table(rows, "<<><"))


def _entry(each: dm.Entry) -> dict[str, Any]:
    major, minor = split_device(each.dev)
    document = {"name": each.name, "path": nodes.path_of(each.name), "major": major, "minor": minor}
    return {**document, "event_nr": each.event_nr, "uuid": each.uuid}


def _number(major: int, minor: int) -> str:
    return f"{major}:{minor}"


@click.command()
@name_argument
@json_option
def info(*, name: str, as_json: bool) -> None:
    """Show the device NAME; exit with 5 where there is none."""
    with dm.Mapper() as mapper:
        found = mapper.info(name)
    if as_json:
        print_info(found)
        return
    present = [text for text, there in (("active", found.active), ("inactive", found.inactive)) if there]
    rows = [
        ("name", found.name),
        ("uuid", found.uuid),
        ("number", _number(found.major, found.minor)),
        ("state", "suspended" if found.suspended else "running" if found.active else "without a table"),
        ("mode", "ro" if found.read_only else "rw"),
        ("tables", ", ".join(present)),
        ("open", str(found.open_count)),
        ("events", str(found.event_nr)),
        ("removal", "when its last user closes it" if found.deferred_remove else ""),
    ]
    print_lines(output.table([row for row in rows if row[1]], "<<"))


def print_info(found: dm.Info) -> None:
    """Print a device as one JSON document."""
    print_json("blockwright.dm.info/1", {**asdict(found), "path": nodes.path_of(found.name), "node": found.path})


@click.command()
@name_argument
@click.option("--inactive", is_flag=True, help="The table that is loaded and does not run yet.")
@click.option("--show-keys", is_flag=True, help="Keys as they are, not as zeros.")
@json_option
def table(*, name: str, inactive: bool, show_keys: bool, as_json: bool) -> None:
    """Show the table of NAME, as `create` and `load` take it."""
    with dm.Mapper() as mapper:
        found = mapper.table_lines(name, inactive=inactive)
    if not show_keys:
        found = [dm.without_keys(each) for each in found]
    if as_json:
        targets = [{**_line(each), "parameters": _fields(tables.parse(each), dm.Other)} for each in found]
        print_json("blockwright.dm.table/1", {"name": name, "targets": targets})
    else:
        print_lines([dm.format_line(each) for each in found])


@click.command()
@name_argument
@click.option("--no-flush", is_flag=True, help="Have a thin pool not commit first.")
@json_option
def status(*, name: str, no_flush: bool, as_json: bool) -> None:
    """Show what each target of NAME tells of itself."""
    with dm.Mapper() as mapper:
        found = mapper.status_lines(name, flush=not no_flush)
    if as_json:
        targets = [{**_line(each), "status": _fields(states.parse(each), dm.Status)} for each in found]
        print_json("blockwright.dm.status/1", {"name": name, "targets": targets})
    else:
        print_lines([dm.format_line(each) for each in found])


def _line(line: layout.Line) -> dict[str, Any]:
    place = {"start": line.start_sector * layout.SECTOR, "size": line.length_sectors * layout.SECTOR}
    return {**place, "type": line.type, "text": line.text}


def _fields(value: dm.Target | dm.Status, untyped: type) -> dict[str, Any] | None:
    """Return what the type has beyond the line, None for the type that has no more than that."""
    if type(value) is untyped:
        return None
    fields = {name: each for name, each in asdict(value).items() if name not in _IN_THE_LINE}
    return {name: each.hex() if isinstance(each, bytes) else each for name, each in fields.items()}


@click.command()
@name_argument
@json_option
def deps(*, name: str, as_json: bool) -> None:
    """List the devices that the running table of NAME stands on."""
    with dm.Mapper() as mapper:
        found = [(major, minor, blkdev.node_of(major, minor)) for major, minor in mapper.dependencies(name)]
    if as_json:
        devices = [{"major": major, "minor": minor, "path": path} for major, minor, path in found]
        print_json("blockwright.dm.deps/1", {"name": name, "devices": devices})
    else:
        _print_pairs([(_number(major, minor), path or "") for major, minor, path in found])


@click.command()
@json_option
def targets(*, as_json: bool) -> None:
    """List the types of targets that the kernel has loaded; others may come as modules when a table names them."""
    with dm.Mapper() as mapper:
        found = {kind: ".".join(map(str, version)) for kind, version in sorted(mapper.targets().items())}
        interface = ".".join(map(str, mapper.version()))
    if as_json:
        document = [{"type": kind, "version": version} for kind, version in found.items()]
        print_json("blockwright.dm.targets/1", {"interface": interface, "targets": document})
    else:
        _print_pairs(list(found.items()))


def _print_pairs(rows: Sequence[tuple[str, str]]) -> None:
    print_lines(output.table(rows, "<<"))
