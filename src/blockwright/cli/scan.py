"""``blockwright scan``.

Knows: flags, and how a verdict is shown. Refuses to know: how it comes about.
"""

from __future__ import annotations

import gc
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from blockwright.cli.options import force_option
from blockwright.cli.output import print_json, print_lines, show_text, table, tell_remarks, write_file
from blockwright.cli.params import json_option
from blockwright.cli.scan_options import Scanning, scan_options
from blockwright.cli.source_options import Take, source_options
from blockwright.errors import ScanFailed, UsageError

if TYPE_CHECKING:  # what scans is imported when something is scanned
    from blockwright.scan import Finding, Outcome

VIOLATED = 3


@click.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--from-sbom", metavar="FILE", help="Scan the packages that an SBOM lists, and no SOURCE.")
@click.option("--sbom", "sbom_file", metavar="FILE", help="Write a list of what SOURCE holds (SBOM) to FILE.")
@click.option(
    "--sbom-format",
    type=click.Choice(["cyclonedx", "spdx"]),
    default="cyclonedx",
    show_default=True,
    help="In which words.",
)
@click.option("--all", "show_all", is_flag=True, help="Show what is accepted, too.")
@force_option
@json_option
@scan_options
@source_options
def scan(
    *,
    sources: tuple[str, ...],
    from_sbom: str | None,
    sbom_file: str | None,
    sbom_format: str,
    show_all: bool,
    force: bool,
    as_json: bool,
    scanning: Scanning,
    take: Take,
) -> int:
    """Look for vulnerabilities or malware in SOURCE, by a scanner that is installed: Trivy, debsecan or ClamAV.

    SOURCE is whatever `build` takes. Exit code 3 says that the policy is violated, 1 that there is no verdict.

    \b
    Examples:
      blockwright scan rootfs.tar.gz
      blockwright scan image.oci --scanner clamav --json
      blockwright scan rootfs/ --scanner none --sbom rootfs.cdx.json
      blockwright scan --from-sbom rootfs.cdx.json --policy policy.toml
    """  # noqa: D301  # click leaves lines as they are below a real backspace
    if bool(sources) == (from_sbom is not None):
        raise UsageError("scan: expected a SOURCE, or --from-sbom FILE")
    if from_sbom is not None and sbom_file is not None:
        raise UsageError("--sbom: expected a SOURCE to list, found --from-sbom")
    if scanning.scanner == "none" and sbom_file is None:
        raise UsageError("--scanner none: expected --sbom FILE beside it")
    gc.disable()  # a tree is many objects, and none of them in cycles
    if from_sbom is not None:
        outcome = _rescanned(from_sbom, scanning)
    else:
        outcome = _scanned(sources, scanning, take, sbom_format if sbom_file is not None else "")
    if sbom_file is not None and outcome.sbom:
        write_file(sbom_file, [outcome.sbom], "an SBOM", force=force)
    _show(outcome, as_json=as_json, show_all=show_all)
    if sbom_file is not None and not outcome.sbom:
        raise ScanFailed(f"{sbom_file}: not written: {outcome.sbom_problem or outcome.verdict.reason}")
    decision = outcome.verdict.decision.value
    if decision in ("failed", "unscanned"):
        raise ScanFailed(outcome.line)
    return VIOLATED if decision == "violated" else 0


def _scanned(sources: tuple[str, ...], scanning: Scanning, take: Take, form: str) -> Outcome:
    from blockwright.build.trees import read_anywhere
    from blockwright.scan import SbomFormat, scan

    policy = scanning.policy()
    named = scanning.scanner
    with take.open(sources) as source, ExitStack() as owned:
        tree = read_anywhere(source, owned)
        tell_remarks(source.name, source.remarks)
        return scan(
            tree,
            policy=policy,
            scanner=None if named == "none" else named,
            mode="off" if named == "none" else "warn",
            workdir=scanning.workdir,
            options=scanning.options(),
            image=sources[0] if len(sources) == 1 else "",
            sbom=SbomFormat(form) if form else None,
        )


def _rescanned(path: str, scanning: Scanning) -> Outcome:
    from blockwright.scan import rescan
    from blockwright.scan.sbom import read_sbom

    if scanning.scanner == "none":
        raise UsageError("--scanner none: expected a scanner for --from-sbom")
    policy = scanning.policy()
    return rescan(
        read_sbom(path),
        policy=policy,
        scanner=scanning.scanner,
        workdir=scanning.workdir,
        options=scanning.options(),
    )


def _show(outcome: Outcome, *, as_json: bool, show_all: bool) -> None:
    verdict = outcome.verdict
    if as_json:
        print_json("blockwright.scan/1", {"line": outcome.line, "verdict": verdict.to_json()})
        return
    rows = [_row(each) for each in verdict.findings if show_all or each.violates]
    print_lines(table(rows, "<<<<<<"))
    if verdict.decision.value in ("clean", "violated"):
        sys.stdout.write(f"{show_text(outcome.line)}\n")


def _row(finding: Finding) -> list[str]:
    fixed = f"fixed: {finding.fixed}" if finding.fixed else ""
    about = finding.excused or finding.title
    cells = [finding.severity.value, finding.identity, finding.package or finding.place, finding.installed, fixed]
    return [show_text(cell[:80]) for cell in [*cells, about]]
