"""``blockwright image activate``, ``deactivate``, ``rm``, ``gc``, ``retry``, ``cancel`` and ``metrics``.

Knows: flags. Refuses to know: how any of it is done.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from blockwright.cli.fetch import context_of, show_outcome
from blockwright.cli.options import quiet_option
from blockwright.cli.output import print_json, print_lines, progress_bar
from blockwright.cli.params import Seconds, json_option
from blockwright.cli.temporal_options import temporal_options
from blockwright.pipeline import manage
from blockwright.pipeline.images import Images
from blockwright.pipeline.states import Event
from blockwright.pipeline.temporal.place import Place


@click.command()
@click.argument("name", metavar="IMAGE")
@click.option("--as", "activation", metavar="NAME", help="What the snapshot is called.  [default: VOLUME-active]")
@temporal_options
@json_option
def activate(*, place: Place | None, name: str, activation: str | None, as_json: bool) -> None:
    """Have a snapshot of IMAGE active, and print its path. One that is there stays as it was written to."""
    if place is not None:
        from blockwright.pipeline.temporal.client import activated

        there = activated(_changed(place, name, Event.ACTIVATE, snapshot=activation))
        show_outcome(there, as_json=as_json, lines=False)
        return
    with Images() as images:
        outcome = manage.activate(images, images.find(name), context_of(images), activation)
    show_outcome(outcome, as_json=as_json, lines=False)


@click.command()
@click.argument("name", metavar="IMAGE")
@click.option("--as", "activation", metavar="NAME", help="The snapshot.  [default: all]")
@temporal_options
@json_option
def deactivate(*, place: Place | None, name: str, activation: str | None, as_json: bool) -> None:
    """Take the paths of IMAGE's snapshots away; what was written to them stays."""
    if place is not None:
        there = _changed(place, name, Event.DEACTIVATE, snapshot=activation)
        _show(there["image"], "deactivated", there["deactivated"], as_json=as_json)
        return
    with Images() as images:
        found = images.find(name)
        done = manage.deactivate(images, found, activation)
    _show(found.id, "deactivated", done, as_json=as_json)


@click.command()
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--snapshots", is_flag=True, help="Remove snapshots too, with all that was written to them.")
@temporal_options
@json_option
def rm(*, place: Place | None, names: Sequence[str], snapshots: bool, as_json: bool) -> None:
    """Remove images: volumes, receipts, and what was fetched for nothing else. What was a file here stays."""
    done: dict[str, list[str]] = {}
    if place is not None:
        for name in names:
            there = _changed(place, name, Event.REMOVE, snapshots=snapshots)
            done[there["image"]] = there["removed"]
    else:
        with Images() as images:
            for name in names:
                found = images.find(name)
                done[found.id] = manage.remove(images, found, snapshots=snapshots)
    if as_json:
        gone = [{"image": image, "removed": volumes} for image, volumes in done.items()]
        print_json("blockwright.image.rm/1", {"images": gone})


@click.command()
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--blobs", is_flag=True, help="Also what was fetched from registries and no image needs.")
@json_option
def gc(*, dry_run: bool, blobs: bool, as_json: bool) -> None:
    """Remove what failed, cancelled and broken runs left, and what no image needs; print a line for each."""
    with Images() as images:
        lines = manage.sweep(images, dry_run=dry_run, blobs=blobs)
    if as_json:
        print_json("blockwright.image.gc/1", {"removed": lines, "dry_run": dry_run})
    else:
        print_lines(lines)


@click.command()
@click.argument("name", metavar="IMAGE")
@temporal_options
@json_option
@quiet_option
def retry(*, place: Place | None, name: str, as_json: bool, quiet: bool) -> None:
    """Go on with a run that failed, was cancelled, or was killed, behind the last step that still holds."""
    if place is not None:
        from blockwright.pipeline.temporal.client import retry_there

        show_outcome(retry_there(name, place), as_json=as_json)
        return
    with Images() as images, progress_bar("", quiet=quiet) as bar:
        outcome = manage.retry(images, images.find(name), context_of(images, bar))
    show_outcome(outcome, as_json=as_json)


@click.command()
@click.argument("name", metavar="IMAGE")
@click.option(
    "--wait",
    "wait_s",
    type=Seconds(zero=True),
    default=manage.STOP_S,
    show_default=True,
    help="Seconds to wait for it.",
)
@temporal_options
@json_option
def cancel(*, place: Place | None, name: str, wait_s: float, as_json: bool) -> None:
    """Stop a run, and take back the step that it is at; what is ready stays."""
    if place is not None:
        from blockwright.pipeline.temporal.client import cancel_there

        image, state = name, cancel_there(name, place, wait_s)
    else:
        with Images() as images:
            found = images.find(name)
            image, state = found.id, manage.cancel(images, found, wait_s)
    if as_json:
        print_json("blockwright.image.cancel/1", {"image": image, "state": state.value})


@click.command()
@click.option("--textfile", metavar="FILE", help="Write it to FILE, which is replaced in one step.")
def metrics(*, textfile: str | None) -> None:
    """Print metrics of all runs and images in Prometheus's text format."""
    from blockwright.pipeline.metrics import render, write_textfile

    with Images() as images:
        if textfile is None:
            sys.stdout.write(render(images))
        else:
            write_textfile(textfile, images)


def _changed(
    place: Place, image: str, what: Event, *, snapshot: str | None = None, snapshots: bool = False
) -> dict[str, Any]:
    """Have an image changed by a worker of its host, and return what came of that."""
    from blockwright.pipeline.temporal.client import change_there

    return change_there(
        {
            "host": place.host,
            "image": image,
            "what": what.value,
            "name": snapshot or "",
            "snapshots": snapshots,
            "heartbeat_s": place.heartbeat_s,
        },
        place,
    )


def _show(image: str, what: str, names: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print_json(f"blockwright.image.{what}/1", {"image": image, what: list(names)})
    else:
        print_lines(list(names))
