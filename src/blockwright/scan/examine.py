"""A tree or an SBOM put before a scanner, in a private directory that is removed behind it.

Knows: what a scanner is given. Refuses to know: what becomes of its report.
"""

from __future__ import annotations

import sys

# Before the imports, since what is imported here is not there either.
assert sys.platform != "win32", "scanners are not run there"

from blockwright.errors import BlockwrightError  # noqa: E402
from blockwright.scan.decision import Evidence, Examined  # noqa: E402
from blockwright.scan.inventory import inventory_of, take_inventory  # noqa: E402
from blockwright.scan.policy import Budget  # noqa: E402
from blockwright.scan.projection import project  # noqa: E402
from blockwright.scan.sbom import Sbom, SbomFormat, parse_sbom  # noqa: E402
from blockwright.scan.scanner import Projected, SbomMaker, Scanner, Subject  # noqa: E402
from blockwright.scan.verdict import NOTHING, LeftOut  # noqa: E402
from blockwright.scan.workplace import workplace  # noqa: E402
from blockwright.tree.node import Directory  # noqa: E402


def examine_tree(
    tree: Directory,
    scanner: Scanner | None,
    maker: SbomMaker | None,
    form: SbomFormat,
    budget: Budget,
    workdir: str,
    image: str,
) -> Examined:
    """Return what a scanner says of a tree, and a list of what it holds, where each is wanted. Raises as ``scan``."""
    inventory = take_inventory(tree)
    left_out = unlisted = NOTHING
    made: dict[bool, Projected] = {}
    report, problem, sbom, sbom_problem = None, "", b"", ""
    with workplace(workdir) as place:

        def projected(*, numbered: bool) -> Projected:
            if numbered not in made:
                folder = place.folder("numbered" if numbered else "root")
                made[numbered] = project(tree, folder, budget, numbered=numbered)
            return made[numbered]

        subject = Subject(inventory, projected, place, image)
        if maker is not None:
            try:
                written = maker.write_sbom(subject, form)
                parse_sbom(written, form.value)  # half of one, or something else, is none
                sbom, unlisted = written, made[False].left_out if False in made else NOTHING
            except BlockwrightError as error:
                sbom_problem = str(error)
        if scanner is not None:
            try:
                report = scanner.examine(subject)
            except BlockwrightError as error:
                problem = str(error)
            left_out = max((each.left_out for each in made.values()), key=lambda each: each.files, default=NOTHING)
    return Examined(report, problem, Evidence(inventory, left_out), sbom, sbom_problem, unlisted)


def examine_sbom(sbom: Sbom, scanner: Scanner, workdir: str, left_out: LeftOut = NOTHING) -> Examined:
    """Return what a scanner says of an SBOM's packages; ``left_out`` is what the list lacks. Raises as ``scan``."""
    with workplace(workdir) as place:
        report = scanner.examine_sbom(sbom, place)
    return Examined(report, evidence=Evidence(inventory_of(sbom.packages, sbom.path), left_out))
