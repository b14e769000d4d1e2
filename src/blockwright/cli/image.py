"""``blockwright image``.

Knows: flags and how images are shown. Refuses to know: steps, and what runs them.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable
from typing import Any

import click

from blockwright.cli.lazy import LazyGroup, Subcommands
from blockwright.cli.output import print_json, print_lines, table
from blockwright.cli.params import json_option
from blockwright.pipeline import sboms, verdicts
from blockwright.pipeline.catalogue import Image
from blockwright.pipeline.images import Images
from blockwright.pipeline.states import Event, State, drawn
from blockwright.units import format_size


def _scan() -> click.Command:
    from blockwright.cli.image_scan import scan

    return scan


def _changing(name: str) -> Callable[[], click.Command]:
    def get() -> click.Command:
        from blockwright.cli import image_change

        found: click.Command = getattr(image_change, name)
        return found

    return get


_RESTING = (State.READY, State.ACTIVE, State.FAILED, State.CANCELLED)
_SUBCOMMANDS: Subcommands = {
    "activate": ("Have a snapshot of an image active, and print its path.", _changing("activate")),
    "deactivate": ("Take the paths of an image's snapshots away.", _changing("deactivate")),
    "metrics": ("Print what runs and images are like as Prometheus has it.", _changing("metrics")),
    "rm": ("Remove images: volumes, receipts, and what was fetched for nothing else.", _changing("rm")),
    "gc": ("Remove what failed, cancelled and broken runs left, and what no image needs.", _changing("gc")),
    "scan": ("Judge images anew from what was kept of them, and fetch nothing.", _scan),
    "retry": ("Go on with a run that failed, was cancelled, or was killed.", _changing("retry")),
    "cancel": ("Stop a run, and take back the step that it is at.", _changing("cancel")),
}


@click.group(cls=LazyGroup, subcommands=_SUBCOMMANDS)
def image() -> None:
    """List, show, activate and remove images that became volumes. IMAGE is a run, a volume or a reference."""


@image.command()
@json_option
def ls(*, as_json: bool) -> None:
    """List images, and runs that are to become one."""
    with Images() as images:
        found = images.list()
        workers = {each.id: _worker(images, each) for each in found}
    if as_json:
        print_json(
            "blockwright.images/1", {"images": [_short(each) | {"worker": workers[each.id]} for each in found]}
        )
        return
    rows: list[tuple[str, ...]] = [("image", "state", "size", "created", "volume", "reference")]
    rows += [
        (
            each.id,
            _state(each, workers[each.id]),
            format_size(each.volume_bytes) if each.volume_bytes else "",
            _time(each.created_ns),
            each.address,
            each.reference,
        )
        for each in found
    ]
    print_lines(table(rows, "<<><<<") if found else [])


@image.command()
@click.argument("name", metavar="IMAGE")
@click.option("--provenance", is_flag=True, help="Print an in-toto statement about the volume, ready to be signed.")
@click.option("--sbom", is_flag=True, help="Print the list of what it holds, as CycloneDX, where one was kept.")
@json_option
def show(*, name: str, provenance: bool, sbom: bool, as_json: bool) -> None:
    """Tell all that is known of an image: its state among all states, its receipts, its verdict."""
    with Images() as images:
        found = images.find(name)
        judged = verdicts.all_of(images.runs.journal, found.id)
        listed = sboms.read(images.home, found.id, _kept(found)) if sbom else b""
    if sbom:
        sys.stdout.buffer.write(listed)
        return
    if provenance:
        from blockwright.pipeline.provenance import statement

        sys.stdout.write(json.dumps(statement(found), indent=2) + "\n")
        return
    if as_json:
        verdicts_told = [each.document() for each in judged]
        print_json("blockwright.image/1", found.document() | {"verdicts": verdicts_told})
        return
    pairs = [
        ("image", found.id),
        ("reference", found.reference),
        ("digest", found.digest),
        ("volume", found.address),
        ("size", format_size(found.volume_bytes)),
        ("content", format_size(found.content_bytes)),
        ("verdict", found.verdict),
        ("created", _time(found.created_ns)),
        ("host", found.host),
        ("trouble", found.trouble),
    ]
    print_lines(table([pair for pair in pairs if pair[1]], "<<"))
    rows = [("step", "seconds", "attempt", "receipt")]
    done = []
    for each in found.receipts:
        done.append(Event(each["step"]))
        seconds = (each["finished_ns"] - each["started_ns"]) / 1e9
        rows.append((each["step"], f"{seconds:.3f}", str(each["attempt"]), _told(each["outputs"])))
    print_lines(["", *table(rows, "<>><"), "", *drawn(State(found.state), done)])
    later = [("judged", "mode", "verdict"), *((_time(each.when_ns), each.mode, each.line) for each in judged)]
    print_lines(["", *table(later, "<<<")] if judged else [])


def _kept(image: Image) -> dict[str, Any] | None:
    """Return what the receipt of an image's scan says of the list that was kept."""
    found = [each["outputs"].get("sbom") for each in image.receipts if each["step"] == Event.SCAN.value]
    return found[0] if found and isinstance(found[0], dict) else None


def _worker(images: Images, image: Image) -> int | None:
    """Return the number of the process that is at an image."""
    owner = images.runs.worker(image.id)
    return None if owner is None else owner.pid


def _state(image: Image, worker: int | None) -> str:
    """Return where an image is, and whether somebody is at it: what nobody is at was left by a dead process."""
    if image.failed:
        return f"{image.state} at {image.failed}"
    if worker is not None:
        return f"{image.state}, process {worker}"
    return image.state if State(image.state) in _RESTING else f"{image.state}, left"


def _told(outputs: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in outputs.items() if isinstance(value, str | int))


def _short(found: Image) -> dict[str, Any]:
    document = found.document()
    del document["receipts"]
    return document | {"address": found.address}


def _time(time_ns: int) -> str:
    return dt.datetime.fromtimestamp(time_ns // 10**9).astimezone().isoformat(" ", "seconds")
