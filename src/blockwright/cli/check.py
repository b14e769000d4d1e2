"""``blockwright check``."""

from __future__ import annotations

import click

from blockwright.check import Place
from blockwright.check import check as check_device
from blockwright.cli.options import force_unlocked_option, json_option, partition_option
from blockwright.cli.output import print_json, print_lines
from blockwright.resolve import open_device

DAMAGED = 3


@click.command()
@click.argument("image")
@partition_option
@force_unlocked_option
@json_option
def check(image: str, partition: int | None, force_unlocked: bool, as_json: bool) -> int:  # noqa: FBT001  # click
    """Verify the partition table and the file systems of IMAGE; exit with 3 where something is damaged.

    Nothing is changed.
    """
    with open_device(image, partition=partition, force_unlocked=force_unlocked) as device:
        places = list(check_device(device, source=image))
    damaged = any(place.findings for place in places)
    if as_json:
        print_json("blockwright.check/1", {"clean": not damaged, "places": [_document(place) for place in places]})
    else:
        for place in places:
            print_lines(_text(place))
    return DAMAGED if damaged else 0


def _document(place: Place) -> dict[str, object]:
    return {
        "name": place.name,
        "kind": place.kind,
        "start": place.start,
        "findings": [
            {"rule": each.rule, "message": each.message, "offset": each.offset, "repairable": each.repairable}
            for each in place.findings
        ],
    }


def _text(place: Place) -> list[str]:
    if not place.findings:
        return [f"{place.name}: {place.kind}: clean"]
    return [f"{place.name}: {place.kind}: {finding}" for finding in place.findings]
