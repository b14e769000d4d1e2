"""The third step: a verdict on what the tree holds.

Bodies that passed, or are compressed, are kept in a file without a name while a scanner and the next step need them.

Knows: what a scanner is given, and when none needs to be. Refuses to know: scanners, and what breaks a policy.
"""

from __future__ import annotations

import os
import time

from blockwright.errors import ScanFailed
from blockwright.pipeline.context import Context
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.request import Request
from blockwright.pipeline.states import Event
from blockwright.pipeline.steps import verify


def do(inputs: Inputs, context: Context) -> Receipt:
    """Have a verdict that lets the image pass.

    Raises PolicyViolated and ScanFailed where one has to be clean and is not, UsageError, and what reading the source
    does.
    """
    started_ns = time.time_ns()
    request = inputs.request
    if request.scan == "off":
        outputs: dict[str, object] = {"mode": "off", "asked": "", "line": "scan: off", "verdict": None}
    else:
        outputs = _scanned(inputs, context)
    context.checkpoint("scan: done")
    return context.receipt(inputs, Event.SCAN, started_ns, outputs)


def _scanned(inputs: Inputs, context: Context) -> dict[str, object]:
    from blockwright.pipeline.filling import readable_tree
    from blockwright.scan import DEFAULT_POLICY, Decision, ScannerOptions, scan
    from blockwright.scan.policy_file import parse_policy
    from blockwright.scan.registry import find_scanner
    from blockwright.tree.node import Directory

    request = inputs.request
    policy = DEFAULT_POLICY if request.policy is None else parse_policy(request.policy.encode(), "policy")
    options = ScannerOptions(**dict(request.scanner_options or {}))
    try:
        scanner = find_scanner(request.scanner, options)
    except ScanFailed:
        scanner = None  # and is told of as the mode has it
    tree = Directory() if scanner is None else readable_tree(inputs, context)
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
        )
    finally:
        context.clean(inputs.run)
    if scanner is None and outcome.verdict.decision is Decision.CLEAN:
        raise ScanFailed("scan: a scanner was installed meanwhile, and has seen nothing")
    return {
        "mode": request.scan,
        "asked": request.asked_scan,
        "line": f"scan: {outcome.line}",
        "verdict": outcome.verdict.to_json(),
    }


def _image_of(inputs: Inputs) -> str:
    """Return where the container image lies, empty where it is none, or in blobs."""
    is_image = "layers" in inputs.outputs(Event.VERIFY) and not inputs.request.layers
    return str(inputs.outputs(Event.DOWNLOAD).get("path", "")) if is_image else ""


def holds(inputs: Inputs, receipt: Receipt, context: Context) -> bool:
    """Whether the verdict is one that was asked for, and what was scanned is still here."""
    return covers(inputs.request, receipt) and verify.holds(inputs, receipt, context)


def covers(request: Request, receipt: Receipt) -> bool:
    """Whether a verdict does for what is asked now: any where none is wanted, a stricter one where one is."""
    if request.scan == "off":
        return True
    found = receipt.outputs
    return found["asked"] == request.asked_scan and found["mode"] in ("enforce", request.scan)


def undo(inputs: Inputs, context: Context) -> None:
    """Let go of what was read, and remove what a scanner was given."""
    context.forget()
    context.clean(inputs.run)
