"""``blockwright pool``.

Knows: flags and how pools are shown. Refuses to know: drivers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import click

from blockwright.cli.options import NewSize, SizedCommand, new_size_value
from blockwright.cli.output import print_json, print_lines, print_path, table, tell
from blockwright.cli.params import Seconds, json_option
from blockwright.cli.really import meaning, really_option
from blockwright.errors import BlockwrightError, Corrupt, Damaged, KernelError, NotFound, UsageError
from blockwright.units import format_size, parse_new_size
from blockwright.volume import Driver, PoolStatus, create_pool, destroy_pool, load_spec, open_pool, pool_names
from blockwright.volume.pool import undo_unfinished
from blockwright.volume.spec import DRIVERS

DAMAGE = 3
"""Exit code where a check found damage."""


@click.group()
def pool() -> None:
    """Make pools of volumes, bring them up and down, look after them."""


@pool.command()
@click.argument("name")
@click.option(
    "--driver",
    type=click.Choice(DRIVERS),
    default="file",
    show_default=True,
    help="What volumes are made of: files, or thin devices of the kernel.",
)
@click.option("--directory", metavar="DIR", help="Where volumes lie, an empty directory.")
@click.option(
    "--snapshots",
    type=click.Choice(["auto", "reflink", "overlay"]),
    help="file: by shared blocks, by layers, or as the file system can.  [default: auto]",
)
@click.option(
    "--expose",
    type=click.Choice(["auto", "any", "path", "loop", "nbd"]),
    help="file: what an active volume is: its file, a loop device, an export, or as it can be.  [default: auto]",
)
@click.option("--data", metavar="DEVICE", help="thin: the block device that has the data.")
@click.option("--metadata", metavar="DEVICE", help="thin: the block device that has the metadata.")
@click.option("--device", metavar="DEVICE", help="thin: one block device, split into metadata and data.")
@click.option(
    "--grow-by", metavar="SIZE", help="thin, of files: what it grows by when it is nearly full, up to --limit."
)
@click.option("--limit", metavar="SIZE", help="thin, of files: the most data that it grows to by itself.")
@click.option(
    "--option",
    "others",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other option of the driver; thin: size=20G, which it needs for files, block=64K, full=queue, "
    "low_water=6, metadata_size=2M.",
)
@click.option("--force", is_flag=True, help="Write over devices that hold something.")
@really_option
@json_option
def create(
    *,
    name: str,
    driver: str,
    others: Sequence[str],
    force: bool,
    yes_really: str | None,
    as_json: bool,
    **options: str | None,
) -> None:
    """Make the pool NAME, and print where its specification lies."""
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    device = given.get("device") or given.get("data") or ""
    if force and device:
        given["force"] = True
    for text in others:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--option: expected NAME=VALUE, found {text[:64]!r}")
        given[key] = value
    with meaning(device, yes_really):
        made = create_pool(name, driver, given)
    if as_json:
        print_json("blockwright.pool/1", {"name": made.name, "driver": made.driver, "options": dict(made.options)})
    else:
        print_path(made.folder)


@pool.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
def up(*, names: Sequence[str], as_json: bool) -> int:
    """Have pools ready, all of them without a NAME, and active and mounted again what was. May be done any time.

    What is damaged stays as it is, and the exit code is 3; everything else comes up.
    """
    done: dict[str, list[str]] = {}
    undone = [] if names else undo_unfinished()
    failed: list[BlockwrightError] = []
    code = 0
    for name in names or pool_names():
        try:
            with open_pool(name) as driver:
                found = driver.up()
            done[name] = found.lines
            code = Damaged.exit_code if found.damaged else code
        except (Corrupt, KernelError, NotFound) as error:  # the others come up all the same
            if len(names) == 1:
                raise
            failed.append(error)
            done[name] = [f"stays down: {error}"]
    if as_json:
        print_json("blockwright.pool.up/1", {"pools": done})
    else:
        print_lines(undone + [f"{name}: {line}" for name, lines in done.items() for line in lines])
    return failed[0].exit_code if failed else code


@pool.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="All pools there are.")
def down(*, names: Sequence[str], every: bool) -> None:
    """Have nothing of the pools in use; `pool up` brings back what was."""
    if bool(names) is every:
        raise UsageError("pool down: expected names of pools, or --all")
    for name in names or pool_names():
        with open_pool(name) as driver:
            driver.down()


@pool.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
def status(*, names: Sequence[str], as_json: bool) -> None:
    """Tell how full pools are, and how well."""
    found = {}
    for name in names or pool_names():
        with open_pool(name) as driver:
            found[name] = (driver.spec.driver, driver.status(), len(driver.list()))
    if as_json:
        documents = [
            {"name": name, "driver": kind, "volumes": count, **asdict(each), "detail": dict(each.detail)}
            for name, (kind, each, count) in found.items()
        ]
        print_json("blockwright.pool.status/1", {"pools": documents})
        return
    rows: list[tuple[str, ...]] = [("pool", "driver", "state", "volumes", "data", "of", "metadata", "more")]
    for name, (kind, each, count) in found.items():
        metadata = f"{format_size(each.metadata_used)} of {format_size(each.metadata_total)}"
        rows.append(
            (
                name,
                kind,
                each.health or ("up" if each.up else "down"),
                str(count),
                format_size(each.data_used),
                format_size(each.data_total),
                metadata if each.metadata_total else "",
                _more(each),
            )
        )
    print_lines(table(rows, "<<<>>><<") if found else [])


def _more(found: PoolStatus) -> str:
    """Return what a thin pool tells besides, in one cell."""
    detail, said = found.detail, []
    if "transaction" in detail:
        said.append(f"transaction {detail['transaction']}")
    if "mode" in detail:
        said.append(f"mode {detail['mode']}, {detail['full']} when full")
    if detail.get("needs_check"):
        said.append("needs a check")
    if "limit" in detail:
        said.append(f"grows by {format_size(detail['grow_by'])} to {format_size(detail['limit'])}")
    return ", ".join(said)


@pool.command(cls=SizedCommand)
@click.argument("name")
@click.argument("size", metavar="[SIZE]", callback=new_size_value, required=False)
@click.option("--metadata", metavar="SIZE", help="Give its metadata SIZE, such as 64M.")
def grow(*, name: str, size: NewSize | None, metadata: str | None) -> None:
    """Give the pool SIZE for data, such as 20G or +2G; without it, all that its devices have by now."""
    with open_pool(name) as driver:
        wanted = 0 if size is None else size.of(driver.status().data_total if size.sign else 0)
        driver.grow_pool(wanted, metadata=0 if metadata is None else parse_new_size(metadata))


@pool.command()
@click.argument("name")
@click.option(
    "--interval",
    type=Seconds(0.05, 86400),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option(
    "--warn",
    type=click.IntRange(1, 100),
    default=80,
    show_default=True,
    metavar="PERCENT",
    help="How full it may be before that is told.",
)
@click.option("--metrics", metavar="HOST:PORT", help="Answer GET /metrics there, for Prometheus.")
@click.option("--textfile", metavar="FILE", help="Keep the metrics in FILE.")
@click.option("--once", is_flag=True, help="Look once, and end.")
def watch(*, name: str, interval: float, warn: int, metrics: str | None, textfile: str | None, once: bool) -> None:
    """Look after a pool until SIGTERM or SIGINT, which end it with 0: grow it where it may, tell what happens to it.

    A thin pool is looked at when the kernel has an event, and as often as --interval says.
    """
    from blockwright.cli.signals import Interrupted
    from blockwright.serve.notify import notify_ready, notify_stopping

    with open_pool(name) as driver, ExitStack() as stack:
        if metrics is not None:
            _scraped(stack, metrics, [name])
        try:
            for text in _watched(driver, warn, interval, textfile, once=once):
                _say(f"{name}: {text}")
                notify_ready(text)
        except Interrupted:
            notify_stopping()


def _watched(driver: Driver, warn: int, interval: float, textfile: str | None, *, once: bool) -> Iterator[str]:
    """Yield a line for each thing that happens to a pool."""
    from blockwright.volume.metrics import write_textfile

    told = None
    while True:
        text = _trouble(driver.status(), warn)
        if text != told:
            told = text
            yield text or "is well"
        if textfile is not None:
            write_textfile(textfile, [driver.spec.name])
        try:
            yield from driver.tend(0 if once else interval)
        except BlockwrightError as error:  # it is looked after all the same, as soon as that can be
            if once:
                raise
            yield f"cannot be looked after: {error}"
            driver.pause(min(interval, 1.0))
        if once:
            return


def _say(line: str) -> None:
    import sys

    print_lines([f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}"])
    sys.stdout.flush()


def _trouble(found: PoolStatus, warn: int) -> str:
    said = [] if found.up else ["is down"]
    said += [found.health] if found.health else []
    for what, used, total in (
        ("data", found.data_used, found.data_total),
        ("metadata", found.metadata_used, found.metadata_total),
    ):
        if total and used * 100 >= total * warn:
            said.append(f"{what}: {format_size(used)} of {format_size(total)} are used")
    return "; ".join(said)


def _scraped(stack: ExitStack, place: str, names: Sequence[str]) -> None:
    from blockwright.nbd.server.listeners import listen_tcp, parse_host_port
    from blockwright.serve.scrape import ScrapeServer
    from blockwright.volume.metrics import CONTENT_TYPE, render

    listening = listen_tcp(*parse_host_port(place, default=None))
    stack.enter_context(ScrapeServer([each.socket for each in listening], lambda: render(names), CONTENT_TYPE))


@pool.command()
@click.argument("name")
@json_option
def check(*, name: str, as_json: bool) -> int:
    """Verify the pool and its volumes; exit with 3 where something is wrong. Nothing is changed."""
    with open_pool(name) as driver:
        found = driver.check()
        tell(name, driver.remarks)
    if as_json:
        print_json("blockwright.pool.check/1", {"findings": [asdict(each) for each in found]})
    else:
        print_lines([str(each) for each in found] or [f"{name}: nothing is wrong"])
    return DAMAGE if found else 0


@pool.command()
@click.argument("name")
@click.option("--metadata", metavar="DEVICE", help="thin, of two devices: where the repaired metadata goes.")
@click.option("--force", is_flag=True, help="Write over a DEVICE that holds something.")
@really_option
def repair(*, name: str, metadata: str | None, force: bool, yes_really: str | None) -> int:
    """Put right what can be put right without loss; exit with 3 where something is still wrong."""
    with open_pool(name) as driver, meaning(metadata or "", yes_really):
        print_lines(driver.repair(metadata, force=force).lines)
        left = driver.check()
    print_lines([str(each) for each in left])
    return DAMAGE if left else 0


@pool.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Remove its volumes too.")
def destroy(*, name: str, force: bool) -> None:
    """Have no such pool."""
    destroy_pool(name, force=force)


@pool.command("ls")
@json_option
def list_pools(*, as_json: bool) -> None:
    """List pools."""
    found = [load_spec(name) for name in pool_names()]
    if as_json:
        documents = [{"name": each.name, "driver": each.driver, "options": dict(each.options)} for each in found]
        print_json("blockwright.pools/1", {"pools": documents})
    else:
        print_lines(table([(each.name, each.driver, each.folder) for each in found], "<<<") if found else [])


@pool.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--textfile", metavar="FILE", help="Write it to FILE, which is replaced in one step.")
def metrics(*, names: Sequence[str], textfile: str | None) -> None:
    """Print the metrics of pools, all of them without a NAME, for Prometheus."""
    from blockwright.volume.metrics import render, write_textfile

    wanted = list(names) or pool_names()
    if textfile is None:
        print_lines(render(wanted).splitlines())
    else:
        write_textfile(textfile, wanted)
