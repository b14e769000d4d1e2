"""``blockwright image scan``.

Knows: flags, and how verdicts are shown. Refuses to know: how they come about.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from blockwright.cli.output import print_json, print_lines, show_text, table
from blockwright.cli.params import json_option
from blockwright.cli.scan_options import Scanning, scan_options
from blockwright.errors import ScanFailed, UsageError
from blockwright.pipeline.catalogue import Image
from blockwright.pipeline.images import Images
from blockwright.pipeline.verdicts import ENFORCE, VIOLATED, Judged

EXIT_VIOLATED = 3


@click.command()
@click.argument("names", metavar="[IMAGE]...", nargs=-1)
@click.option("--enforce", is_flag=True, help="Let nobody activate what is not clean, and say what is active of it.")
@json_option
@scan_options
def scan(*, names: Sequence[str], enforce: bool, as_json: bool, scanning: Scanning) -> int:
    """Judge images anew from the lists (SBOMs) that were kept of them, by Trivy or debsecan; nothing is fetched.

    Without IMAGE all that are ready on this machine. The verdict is kept beside the image. Exit code 3 says that the
    policy is violated, 1 that there is no verdict.
    """
    from blockwright.pipeline.rescan import How, active_of, here, is_clean, judge

    if scanning.scanner == "none":
        raise UsageError("--scanner none: expected a scanner that looks packages up")
    mode = ENFORCE if enforce else "warn"
    how = How(scanning.policy(), scanning.scanner, scanning.options(), mode, scanning.workdir)
    with Images() as images:
        meant = [images.find(name) for name in names] if names else here(images)
        found = [(image, judge(images, image, how), active_of(image)) for image in meant]
    _show(found, as_json=as_json)
    decisions = [judged.decision for _, judged, _ in found]
    for image, judged, active in found:
        if not judged.passes and active:
            sys.stderr.write(
                show_text(f"{image.id}: is active as {', '.join(active)}, and does not pass any more") + "\n"
            )
    if VIOLATED in decisions:
        return EXIT_VIOLATED
    unknown = [image.id for image, judged, _ in found if not is_clean(judged)]
    if unknown:
        raise ScanFailed(f"scan: expected a verdict on every image, found none on {', '.join(unknown[:8])}")
    return 0


def _show(found: Sequence[tuple[Image, Judged, list[str]]], *, as_json: bool) -> None:
    if as_json:
        entries: list[dict[str, Any]] = [
            {
                "image": image.id,
                "reference": image.reference,
                "state": image.state,
                "active": active,
                "passes": judged.passes,
                "line": judged.line,
                "verdict": dict(judged.verdict),
            }
            for image, judged, active in found
        ]
        print_json("blockwright.image.scan/1", {"images": entries})
        return
    rows = [(image.id, image.state, show_text(judged.line), show_text(image.reference)) for image, judged, _ in found]
    print_lines(table([("image", "state", "verdict", "reference"), *rows], "<<<<") if rows else [])
