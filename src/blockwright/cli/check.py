"""``blockwright check``."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import click

from blockwright.check import MAX_FINDINGS, Place, check_image
from blockwright.check import repair as repair_image
from blockwright.cli.content_options import content_options
from blockwright.cli.options import ImageFormat, Where, force_unlocked_option, image_options, partition_option
from blockwright.cli.output import print_json, print_lines
from blockwright.cli.params import json_option
from blockwright.cli.source_options import Take, source_options
from blockwright.errors import UsageError
from blockwright.tree.changes.options import Changes

DAMAGED = 3
SHOWN: Final = 10
"""Findings of one rule that are shown of a place; a document has all."""


@click.command()
@click.argument("name", metavar="IMAGE")
@partition_option
@image_options
@click.option(
    "--against",
    multiple=True,
    metavar="SOURCE",
    help="Compare the files in IMAGE with what build would take from SOURCE. Given again: layers in order.",
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="ASPECT",
    help="With --against: permissions, uid, gid, mtime_ns, xattrs, links, size, content, target, device or kind.",
)
@click.option("--added", multiple=True, metavar="PATH", help="With --against: what IMAGE may have beside SOURCE.")
@click.option("--repair", is_flag=True, help="qcow2: mend leaks and refcounts before.")
@force_unlocked_option
@json_option
@content_options()
@source_options
def check(*, name: str, image_format: ImageFormat, changes: Changes, take: Take, **options: Any) -> int:
    """Verify the format, the partition table and the file systems of IMAGE; exit with 3 where something is damaged.

    Nothing is changed, unless by --repair: leaks and wrong refcounts of a qcow2 image, which its tables settle.
    Of each rule the first 10 findings in a place are shown, and how many more were found; --json has them.
    With --against files are compared instead, and every difference is told by path; exit with 3 where there is one.

    \b
    Examples:
      blockwright check disk.qcow2
      blockwright check disk.img --against rootfs/
      blockwright check nbd://host/disk#2 --against rootfs.tar.zst --ignore mtime_ns
    """  # noqa: D301  # click leaves lines as they are below a real backspace
    as_json: bool = options["as_json"]
    partition, force_unlocked = options["partition"], options["force_unlocked"]
    repair, against = options["repair"], options["against"]
    extra = {"ignore": options["ignore"], "added": options["added"], "changes": changes}
    if against:
        from blockwright.cli.check_against import check_against

        if repair:
            raise UsageError("check: expected --repair or --against, found both")
        where = Where(name, partition, image_format, force_unlocked=force_unlocked)
        return check_against(where, take, against, extra, as_json=as_json)
    if any(extra.values()):
        raise UsageError("check: --ignore, --added and what changes a tree are of use with --against only")
    if repair:
        repair_image(name, form=image_format.form, force_unlocked=force_unlocked)
    places = list(
        check_image(
            name,
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
        "more": place.more,
        "unchecked": place.unchecked,
    }


def _text(place: Place) -> list[str]:
    if place.unchecked is not None:
        return [f"{place.name}: {place.kind}: not checked: {place.unchecked}"]
    if not place.findings:
        return [f"{place.name}: {place.kind}: clean"]
    found: Counter[str] = Counter()
    lines = []
    for finding in place.findings:
        found[finding.rule] += 1
        if found[finding.rule] <= SHOWN:
            lines.append(str(finding))
    lines += [f"{rule}: {count - SHOWN} more" for rule, count in found.items() if count > SHOWN]
    if place.more:
        lines.append(f"{place.more} more findings, which are past the {MAX_FINDINGS} that are kept of an image")
    return [f"{place.name}: {place.kind}: {line}" for line in lines]
