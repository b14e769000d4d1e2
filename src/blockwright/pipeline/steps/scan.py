"""The third step: a verdict on what the tree holds, and where it is asked for a list of that, which is kept.

Bodies that passed, or are compressed, are kept in a file without a name while a scanner and the next step need them.

Knows: what a scanner is given, and when none needs to be. Refuses to know: scanners, and what breaks a policy.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from blockwright.errors import NotSupported, ScanFailed
from blockwright.pipeline import sboms
from blockwright.pipeline.context import Context
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.request import Request
from blockwright.pipeline.states import Event
from blockwright.pipeline.steps import verify

if TYPE_CHECKING:  # an image that is not scanned needs no scanner
    from blockwright.scan import Outcome, Scanner, ScannerOptions


def do(inputs: Inputs, context: Context) -> Receipt:
    """Have a verdict that lets the image pass.

    Raises PolicyViolated and ScanFailed where one has to be clean and is not, UsageError, and what reading the source
    does.
    """
    started_ns = time.time_ns()
    request = inputs.request
    if request.scan == "off" and not request.sbom:
        outputs: dict[str, object] = {"mode": "off", "asked": "", "line": "scan: off", "verdict": None}
    else:
        outputs = _scanned(inputs, context)
    context.checkpoint("scan: done")
    return context.receipt(inputs, Event.SCAN, started_ns, outputs)


def _scanned(inputs: Inputs, context: Context) -> dict[str, object]:
    from blockwright.pipeline.filling import readable_tree
    from blockwright.scan import DEFAULT_POLICY, Decision, SbomFormat, ScannerOptions, scan
    from blockwright.scan.policy_file import parse_policy
    from blockwright.tree.node import Directory

    request = inputs.request
    policy = DEFAULT_POLICY if request.policy is None else parse_policy(request.policy.encode(), "policy")
    options = ScannerOptions(**dict(request.scanner_options or {}))
    scanner = _scanner(request, options)
    unlisted = _no_maker(options) if request.sbom else ""
    listed = request.sbom and not unlisted
    tree = readable_tree(inputs, context) if scanner is not None or listed else Directory()
    work = context.home.work(inputs.run)
    os.makedirs(work, mode=0o700, exist_ok=True)
    try:
        outcome = scan(
            tree,
            policy=policy,
            scanner=scanner or request.scanner,
            mode=request.scan,
            workdir=work,
            options=options,
            image=_image_of(inputs),
            sbom=SbomFormat.CYCLONEDX if listed else None,
        )
    finally:
        context.clean(inputs.run)
    if scanner is None and outcome.verdict.decision is Decision.CLEAN:
        raise ScanFailed("scan: a scanner was installed meanwhile, and has seen nothing")
    off = request.scan == "off"
    found: dict[str, object] = {
        "mode": request.scan,
        "asked": "" if off else request.asked_scan,
        "line": "scan: off" if off else f"scan: {outcome.line}",
        "verdict": None if off else outcome.verdict.to_json(),
    }
    if request.sbom:
        found["sbom"] = _kept(inputs, context, outcome, unlisted)
    return found


def _scanner(request: Request, options: ScannerOptions) -> Scanner | None:
    """Return what scans, None where nothing does: then that is told as the mode has it. Raises UsageError."""
    from blockwright.scan.registry import find_scanner

    if request.scan == "off":
        return None
    try:
        return find_scanner(request.scanner, options)
    except ScanFailed:
        return None


def _no_maker(options: ScannerOptions) -> str:
    """Return why no list can be made, empty where one can."""
    from blockwright.scan.registry import find_maker

    try:
        find_maker(options)
    except (NotSupported, ScanFailed) as error:
        return str(error)
    return ""


def _kept(inputs: Inputs, context: Context, outcome: Outcome, unlisted: str) -> dict[str, object]:
    """Keep the list that was made, and return what is told of it. Raises ScanFailed where there has to be one."""
    if not outcome.sbom:
        problem = unlisted or outcome.sbom_problem or outcome.verdict.reason
        if inputs.request.scan == "enforce":
            raise ScanFailed(f"SBOM: not made: {problem}", verdict=outcome.verdict.to_json())
        context.tell(f"SBOM: not made: {problem}")
        return {"problem": problem}
    left = outcome.sbom_left_out
    kept = sboms.keep(context.home, inputs.run, outcome.sbom)
    return kept | {"left_out": {"files": left.files, "size": left.size, "names": list(left.names)}}


def _image_of(inputs: Inputs) -> str:
    """Return where the container image lies, empty where it is none, or in blobs."""
    is_image = "layers" in inputs.outputs(Event.VERIFY) and not inputs.request.layers
    return str(inputs.outputs(Event.DOWNLOAD).get("path", "")) if is_image else ""


def holds(inputs: Inputs, receipt: Receipt, context: Context) -> bool:
    """Whether the verdict is one that was asked for, and what was scanned is still here."""
    return covers(inputs.request, receipt) and verify.holds(inputs, receipt, context)


def covers(request: Request, receipt: Receipt) -> bool:
    """Whether a verdict does for what is asked now: any where none is wanted, a stricter one where one is.

    A list that is asked for has to have been made.
    """
    found = receipt.outputs
    if request.sbom and "digest" not in (found.get("sbom") or {}):
        return False
    if request.scan == "off":
        return True
    return found["asked"] == request.asked_scan and found["mode"] in ("enforce", request.scan)


def undo(inputs: Inputs, context: Context) -> None:
    """Let go of what was read, and remove what a scanner was given."""
    context.forget()
    context.clean(inputs.run)
