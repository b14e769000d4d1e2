"""``blockwright fetch-and-create``.

Knows: flags, and which line goes where. Refuses to know: steps.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, replace
from typing import Any

import click

from blockwright.address import parse_address
from blockwright.cli.options import quiet_option
from blockwright.cli.output import Progress, print_json, print_path, progress_bar, show_text
from blockwright.cli.params import json_option, seconds_of
from blockwright.cli.source_options import Take, source_options
from blockwright.cli.temporal_options import temporal_options
from blockwright.epoch import source_date_epoch
from blockwright.errors import BlockwrightError, NotFound, UsageError
from blockwright.oci.reference import is_reference, meant
from blockwright.pipeline.context import Context
from blockwright.pipeline.images import Images
from blockwright.pipeline.pools import DEFAULT, pool_for
from blockwright.pipeline.records import Run
from blockwright.pipeline.request import Request, parse_mode
from blockwright.pipeline.runner import Outcome
from blockwright.pipeline.states import Event, State
from blockwright.pipeline.temporal.place import Place
from blockwright.tree.rules import DEFAULT_RULES
from blockwright.units import SECTOR, align_up, parse_new_size


def _mode(_ctx: click.Context, _param: click.Parameter, text: str) -> str:
    """Return a mode of scanning. Raises UsageError."""
    return parse_mode(text)


def _options(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[str, Any] | None:
    """Return options of the scanner. Raises UsageError."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in ("program", "database", "suite", "server", "timeout"):
            raise UsageError(f"--scanner-option: expected NAME=VALUE of a known name, found {text[:64]!r}")
        if name == "timeout":
            found["timeout_s"] = seconds_of(value, "--scanner-option timeout")
        else:
            found[name] = value
    return found or None


def _policy(_ctx: click.Context, _param: click.Parameter, path: str | None) -> str | None:
    """Return the text of a policy's file, which holds. Raises FormatError, OSError."""
    if path is None:
        return None
    from blockwright.scan.policy_file import read_policy

    read_policy(path)
    with open(path, encoding="utf-8") as file:
        return file.read()


@click.command("fetch-and-create")
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@click.option("--pool", metavar="POOL", default=DEFAULT, show_default=True, help="Where the volume goes.")
@click.option("--thin", is_flag=True, help="Make the pool, where it is not there, one of thin volumes.")
@click.option("--size", metavar="SIZE", help="Size of the volume.  [default: what it holds, and a quarter of that]")
@click.option("--label", default="root", show_default=True, help="Label of the file system.")
@click.option("--seed", help="Text that its identities follow from. Default: the input.")
@click.option(
    "--scan", default="warn", show_default=True, callback=_mode, metavar="off|warn|enforce", help="What is let pass."
)
@click.option("--scanner", metavar="NAME", help="Which scanner.  [default: what is installed]")
@click.option(
    "--scanner-option",
    "scanner_options",
    multiple=True,
    callback=_options,
    metavar="NAME=VALUE",
    help="program, database, suite, server or timeout. May be given again.",
)
@click.option(
    "--policy",
    metavar="FILE",
    callback=_policy,
    help="What breaks it, a TOML file.  [default: HIGH and CRITICAL]",
)
@click.option("--sbom", is_flag=True, help="Keep a list of what it holds, by syft or Trivy, for `image scan`.")
@click.option("--verify", is_flag=True, help="Read what was made before, and hold it to its digest.")
@click.option("--activate", is_flag=True, help="Activate a snapshot of the volume, and print its path.")
@click.option("--as", "activation", metavar="NAME", help="What that snapshot is called.")
@temporal_options
@json_option
@quiet_option
@source_options
def fetch_and_create(
    *,
    place: Place | None,
    take: Take,
    references: tuple[str, ...],
    pool: str,
    thin: bool,
    size: str | None,
    as_json: bool,
    quiet: bool,
    verify: bool,
    **others: Any,
) -> None:
    """Have what REF names in a volume, fetched, verified, scanned, as an ext4 file system; print the volume's path.

    REF is what `build` takes as SOURCE and can be read again: a container image in a registry, an archive, an object
    of a store, a directory. Several are one: archives and images, each over those before. What was fetched, or made,
    is not again. It may be killed, and run again, at any time.
    """
    if place is not None and (thin or verify):
        raise UsageError("--thin and --verify are of this machine: expected neither with --temporal")
    if take.layers and len(references) > 1:
        raise UsageError("--layers is about one directory: expected no further REF beside it")
    reference, *over = (_absolute(each, take.store, here=place is None) for each in references)
    request = Request(
        reference,
        pool,
        size=None if size is None else align_up(parse_new_size(size), SECTOR),
        time_s=source_date_epoch(),
        platform=None if take.choice.platform is None else str(take.choice.platform),
        image=take.choice.name,
        layers=take.layers,
        limits=_limits(take),
        over=tuple(over),
        **others | {"activate": others["activate"] or others["activation"] is not None},
    )
    if place is not None:
        outcome = _fetch_there(request, place)
    else:
        outcome = fetch(request, thin=thin, quiet=quiet, verify=verify)
    show_outcome(outcome, as_json=as_json)


def fetch(request: Request, *, thin: bool = False, quiet: bool = False, verify: bool = False) -> Outcome:
    """Run a request, telling its lines on standard error, and return what it came to."""
    with Images() as images:
        begun: list[str] = []

        def told(run: Run) -> None:
            begun.append(run.id)
            _line(f"run: {run.id}")
            found = pool_for(request.pool, thin=thin)
            if found.why:
                _line(f"device-mapper: files of pool {found.name} stand in for it: {found.why}")

        with progress_bar("", quiet=quiet) as bar:
            context = context_of(images, bar)
            context.verify = verify
            try:
                return images.fetch(request, context, told)
            except (BlockwrightError, OSError):
                for run in begun:
                    _advise(images, run)
                raise


def _fetch_there(request: Request, place: Place) -> Outcome:
    """Have a worker on another host run a request, and return what it came to."""
    from blockwright.pipeline.temporal.client import fetch_there

    return fetch_there(request, place, lambda run: _line(f"run: {run.id}, on {place.host}"))


def _advise(images: Images, name: str) -> None:
    """Say where a run ended that failed, and what can be done."""
    run = images.runs.find(name)
    if run is not None and run.failed:
        _line(
            f"status: {run.state.value} at {run.failed}, of which nothing is left: 'blockwright image retry {run.id}'"
            f" does it again, 'blockwright image rm {run.id}' forgets it"
        )
    elif run is not None and run.state is State.READY and run.request.activate:
        _line(f"status: ready, and not activated: 'blockwright image activate {run.id}' tries again")


def context_of(images: Images, bar: Progress | None = None) -> Context:
    """Return what steps work with: lines go to standard error, progress to ``bar``."""
    if bar is None:
        return Context(images.home, tell=_line)
    return Context(images.home, tell=_line, progress=lambda _what, done, total: bar(done, total))


def show_outcome(outcome: Outcome, *, as_json: bool, lines: bool = True) -> None:
    """Print status and verdict on standard error, and on standard output the path, or all receipts."""
    scanned = outcome.receipt(Event.SCAN)
    if lines:
        done = ", ".join(each.value for each in outcome.fresh) or "nothing, all was done before"
        _line(f"status: {outcome.run.state.value}: did {done}")
        if scanned is not None:
            _line(str(scanned.outputs["line"]))
    made = outcome.receipt(Event.ACTIVATE) if outcome.run.request.activate else outcome.receipt(Event.CREATE)
    assert made is not None, "a run that is done has it"
    path = str(made.outputs.get("path") or made.outputs["address"])
    if as_json:
        print_json("blockwright.fetched/1", outcome_document(outcome) | {"path": path})
    else:
        print_path(path)


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """Return what a run came to as JSON has it."""
    return {
        "run": outcome.run.id,
        "state": outcome.run.state.value,
        "volume": f"volume:{outcome.run.request.pool}/{outcome.run.volume}",
        "did": [each.value for each in outcome.fresh],
        "receipts": [each.document() for each in outcome.receipts],
    }


def _absolute(reference: str, store: str | None, *, here: bool) -> str:
    """Return a reference that means the same wherever it is asked for again.

    Raises UsageError, and NotFound for what is written as other programs write images, and is no file ``here``.
    """
    from blockwright.source.key import is_prefix, place

    reference = place(reference, store)
    if is_prefix(reference):
        return reference
    if os.path.lexists(reference):
        return os.path.abspath(reference)
    if reference == "-" or is_reference(reference):
        return reference
    address = parse_address(reference)
    hint = meant(reference) if here and address.scheme == "file" else ""
    if hint and not os.path.lexists(address.rest):
        raise NotFound(f"{reference}: no such file or directory{hint}")
    return str(replace(address, rest=os.path.abspath(address.rest))) if address.scheme == "file" else reference


def _limits(take: Take) -> dict[str, Any] | None:
    """Return what of the rules is not as it always is."""
    given, usual = asdict(take.rules), asdict(DEFAULT_RULES)
    found = {name: value for name, value in given.items() if value != usual[name]}
    if take.rules.xattrs is not DEFAULT_RULES.xattrs:
        found["xattrs"] = take.rules.xattrs.value
    return found or None


def _line(text: str) -> None:
    sys.stderr.write(f"{show_text(text)}\n")
    sys.stderr.flush()
