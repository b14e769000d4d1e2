"""``blockwright volume``.

Knows: flags and how volumes are shown. Refuses to know: drivers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from blockwright.cli.lazy import LazyGroup, Subcommands
from blockwright.cli.options import NewSize, SizedCommand, new_size_value
from blockwright.cli.output import print_json, print_lines, print_path, table
from blockwright.cli.params import json_option
from blockwright.errors import Damaged, UsageError
from blockwright.units import format_size
from blockwright.volume import Driver, VolumeInfo, open_pool, pool_names
from blockwright.volume.pool import find_volume, undo_unfinished


def _create() -> click.Command:
    from blockwright.cli.volume_create import create

    return create


_SUBCOMMANDS: Subcommands = {"create": ("Make a volume, empty or with a file system of what SOURCE holds.", _create)}


@click.group(cls=LazyGroup, subcommands=_SUBCOMMANDS)
def volume() -> None:
    """Make, snapshot, activate, mount and remove volumes. A volume is called NAME with --pool, or POOL/NAME."""


def volume_arguments(command: Any) -> Any:
    """Add NAME and ``--pool``."""
    command = click.option("--pool", metavar="POOL", help="The pool; not needed where there is only one.")(command)
    return click.argument("name")(command)


def opened(name: str, pool: str | None) -> tuple[Driver, str]:
    """Return the open pool of a volume, and the volume's name. Raises UsageError where the pool is not said."""
    found, plain = find_volume(name, pool, expected="--pool or POOL/NAME")
    return open_pool(found), plain


@volume.command()
@click.argument("origin")
@volume_arguments
@json_option
def snapshot(*, origin: str, name: str, pool: str | None, as_json: bool) -> None:
    """Make NAME what ORIGIN is now. Either can be written to afterwards."""
    driver, source = opened(origin, pool)
    with driver:
        before, slash, plain = name.removeprefix("volume:").rpartition("/")
        if slash and before != driver.spec.name:
            raise UsageError(f"{name}: expected a name in pool {driver.spec.name}, where {source} is")
        _show_one(driver.snapshot(source, plain), as_json=as_json)


@volume.command(cls=SizedCommand)
@volume_arguments
@click.argument("size", metavar="SIZE", callback=new_size_value)
@json_option
def grow(*, name: str, pool: str | None, size: NewSize, as_json: bool) -> None:
    """Give the volume the SIZE, such as 20G or +2G. Volumes only grow; their file systems are left alone."""
    driver, plain = opened(name, pool)
    with driver:
        _show_one(driver.grow(plain, size.of(driver.get(plain).size)), as_json=as_json)


@volume.command()
@volume_arguments
@click.option("-r", "--read-only", is_flag=True, help="Let nobody write to it.")
@json_option
def activate(*, name: str, pool: str | None, read_only: bool, as_json: bool) -> None:
    """Give the volume a path, and print it: a block device where there is root, else its file, or an NBD address."""
    driver, plain = opened(name, pool)
    with driver:
        found = driver.activate(plain, read_only=read_only)
    _show_one(found, as_json=as_json, path=found.path)


@volume.command()
@volume_arguments
def deactivate(*, name: str, pool: str | None) -> None:
    """Take the volume's path away."""
    driver, plain = opened(name, pool)
    with driver:
        driver.deactivate(plain)


@volume.command()
@volume_arguments
@click.argument("directory")
@click.option("-o", "--options", default="", metavar="OPTION[,OPTION]", help="ro, noexec, noatime, suid, dev.")
@json_option
def mount(*, name: str, pool: str | None, directory: str, options: str, as_json: bool) -> None:
    """Mount the volume's file system at DIRECTORY (nosuid, nodev), active for it where it was not. Needs root."""
    from blockwright.system.linux.mount import parse_options

    driver, plain = opened(name, pool)
    with driver:
        flags = parse_options(tuple(each for each in options.split(",") if each))
        found = driver.mount(plain, directory, flags=flags)
    _show_one(found, as_json=as_json, path=found.mount_point)


@volume.command()
@volume_arguments
def unmount(*, name: str, pool: str | None) -> None:
    """Unmount the volume; it stays active."""
    driver, plain = opened(name, pool)
    with driver:
        driver.unmount(plain)


@volume.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--pool", metavar="POOL", help="The pool; not needed where there is only one.")
def rm(*, names: Sequence[str], pool: str | None) -> None:
    """Remove volumes that are not active. Snapshots of them stay."""
    for name in names:
        driver, plain = opened(name, pool)
        with driver:
            driver.remove(plain)


@volume.command()
@click.option("--pool", metavar="POOL", help="Those of one pool.  [default: all]")
@json_option
def ls(*, pool: str | None, as_json: bool) -> None:
    """List volumes."""
    found: list[VolumeInfo] = []
    for each in pool_names() if pool is None else [pool]:
        with open_pool(each) as driver:
            found += driver.list()
    if as_json:
        print_json("blockwright.volumes/1", {"volumes": [_document(each) for each in found]})
        return
    rows: list[tuple[str, ...]] = [("volume", "size", "state", "origin", "path")]
    rows += [
        (
            f"{each.pool}/{each.name}",
            format_size(each.size),
            each.state.value + (" ro" if each.read_only else ""),
            each.origin or "",
            each.mount_point or each.path or "",
        )
        for each in found
    ]
    print_lines(table(rows, "<><<<") if found else [])


@volume.command()
@volume_arguments
@json_option
def show(*, name: str, pool: str | None, as_json: bool) -> None:
    """Tell what is recorded of a volume."""
    driver, plain = opened(name, pool)
    with driver:
        found = driver.get(plain)
    if as_json:
        print_json("blockwright.volume/1", _document(found))
        return
    print_lines(table([(key, str(value)) for key, value in _document(found).items() if value is not None], "<<"))


@volume.command()
@click.option("--pool", metavar="POOL", help="One pool.  [default: all]")
@json_option
def reconcile(*, pool: str | None, as_json: bool) -> int:
    """Bring journal and world to agree: finish or undo what a dead process began, adopt what is not recorded.

    Volumes that are damaged are told, and the exit code is 3.
    """
    lines: dict[str, list[str]] = {}
    undone = undo_unfinished() if pool is None else []
    code = 0
    for each in pool_names() if pool is None else [pool]:
        with open_pool(each) as driver:
            done = driver.reconcile()
        lines[each] = done.lines
        code = Damaged.exit_code if done.damaged else code
    if as_json:
        print_json("blockwright.reconcile/1", {"pools": lines})
    else:
        print_lines(undone + [f"{name}: {line}" for name, found in lines.items() for line in found])
    return code


def _show_one(found: VolumeInfo, *, as_json: bool, path: str | None = None) -> None:
    """Print a volume: its path, or its address where it has none."""
    if as_json:
        print_json("blockwright.volume/1", _document(found))
    else:
        print_path(path or found.address)


def show_volume(found: VolumeInfo, *, as_json: bool) -> None:
    """Print a volume that was made."""
    _show_one(found, as_json=as_json)


def _document(found: VolumeInfo) -> dict[str, Any]:
    document = found.document()
    del document["extra"]
    return document | {"address": found.address}
