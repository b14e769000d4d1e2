"""``blockwright check``."""

from __future__ import annotations

import click

from blockwright.check import Place, check_image
from blockwright.check import repair as repair_image
from blockwright.cli.options import (
    ImageFormat,
    force_unlocked_option,
    image_options,
    json_option,
    partition_option,
)
from blockwright.cli.output import print_json, print_lines

DAMAGED = 3


@click.command()
@click.argument("image")
@partition_option
@image_options
@click.option("--repair", is_flag=True, help="qcow2: mend leaks and refcounts before.")
@force_unlocked_option
@json_option
def check(
    image: str,
    partition: int | None,
    image_format: ImageFormat,
    repair: bool,  # noqa: FBT001  # click passes flags by name
    force_unlocked: bool,  # noqa: FBT001  # a click flag
    as_json: bool,  # noqa: FBT001  # a click flag
) -> int:
    """Verify the format, the partition table and the file systems of IMAGE; exit with 3 where something is damaged.

    Nothing is changed, unless by --repair: leaks and wrong refcounts of a qcow2 image, which its tables settle.
    """
    if repair:
        repair_image(image, form=image_format.form, force_unlocked=force_unlocked)
    places = list(
        check_image(
            image,
            partition=partition,
            force_unlocked=force_unlocked,
            form=image_format.form,
            policy=image_format.policy,
        )
    )
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
