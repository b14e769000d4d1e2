"""A tree, or a list of packages, held against a policy by a scanner that is installed.

    outcome = scan(tree, policy=policy, mode="warn", workdir="/var/tmp")
    print(outcome.line)  # clean: no HIGH or CRITICAL vulnerabilities

Scanners are programs of others, found on PATH or named. The decision is made here, from their reports alone, and what
is in doubt is no "clean": no report, half a report, no operating system although there are packages, an old database.

Knows: the order of steps, and what each mode makes of a verdict. Refuses to know: any scanner, and what is scanned.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

from blockwright.errors import BlockwrightError, NotFound, NotSupported, PolicyViolated, ScanFailed, UsageError
from blockwright.scan.decision import Examined, decide, instant, line_of
from blockwright.scan.policy import DEFAULT_POLICY, Allowed, Budget, Policy
from blockwright.scan.registry import ELSEWHERE, NAMES, find_maker, find_scanner, missing
from blockwright.scan.sbom import Sbom, SbomFormat
from blockwright.scan.scanner import DEFAULT_OPTIONS, SbomMaker, Scanner, ScannerOptions
from blockwright.scan.verdict import NOTHING, Decision, Finding, LeftOut, Severity, Verdict
from blockwright.tree.node import Directory

__all__ = [
    "DEFAULT_OPTIONS",
    "DEFAULT_POLICY",
    "MODES",
    "NAMES",
    "Allowed",
    "Budget",
    "Decision",
    "Finding",
    "LeftOut",
    "Mode",
    "Outcome",
    "Policy",
    "Sbom",
    "SbomFormat",
    "Scanner",
    "ScannerOptions",
    "Severity",
    "Verdict",
    "rescan",
    "scan",
]

Mode = Literal["off", "warn", "enforce"]
"""What a scan is to do with its verdict."""
MODES: Final[tuple[Mode, ...]] = ("off", "warn", "enforce")
"""``off`` does nothing; ``warn`` tells what was found, or why nothing was; ``enforce`` raises unless it is clean."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scan came to: the ``verdict``, which is stored, and the one ``line`` for people.

    ``sbom`` is a list of what the tree holds, where it was asked for and could be made; else ``sbom_problem`` says
    why not. ``sbom_left_out`` are files that its maker was not shown.
    """

    verdict: Verdict
    line: str
    sbom: bytes = b""
    sbom_problem: str = ""
    sbom_left_out: LeftOut = NOTHING


def scan(
    tree: Directory,
    *,
    policy: Policy = DEFAULT_POLICY,
    scanner: Scanner | str | None = None,
    mode: Mode = "warn",
    workdir: str,
    options: ScannerOptions = DEFAULT_OPTIONS,
    image: str = "",
    sbom: SbomFormat | None = None,
) -> Outcome:
    """Return what a scanner makes of ``tree``, whose contents must be readable while this lasts.

    ``scanner`` is one, or one's name; None takes what is installed. ``workdir`` is a directory in which a private one
    is made, filled with at most the policy's budget, and removed again, whatever happens. ``image`` is the container
    image the tree was made from, a file or directory, for a scanner that wants that. ``sbom`` asks for a list of what
    the tree holds, in every mode.

    With ``warn`` every scan ends in an outcome. With ``enforce`` what is not clean raises: PolicyViolated for
    findings, ScanFailed where there is no verdict; both carry the verdict. Raises UsageError for a mode or scanner
    that does not exist, NotFound for a program that was given and is not there.
    """
    run = _Run(policy, mode)
    return run.done(scanner, options, sbom, _tree_examiner(tree, policy, workdir, image))


def rescan(
    sbom: Sbom,
    *,
    policy: Policy = DEFAULT_POLICY,
    scanner: Scanner | str | None = None,
    mode: Mode = "warn",
    workdir: str,
    options: ScannerOptions = DEFAULT_OPTIONS,
    left_out: LeftOut = NOTHING,
) -> Outcome:
    """Return what a scanner makes today of the packages that a stored list has. All else is as with ``scan``.

    ``left_out`` are files that whoever made the list was not shown (``Outcome.sbom_left_out``).
    """
    run = _Run(policy, mode)
    return run.done(scanner, options, None, _sbom_examiner(sbom, workdir, left_out))


Examine = Callable[[Scanner | None, SbomMaker | None, SbomFormat], Examined]


class _Run:
    """One scan on the way to its outcome."""

    def __init__(self, policy: Policy, mode: Mode) -> None:
        if mode not in MODES:
            raise UsageError(f"scan: expected one of {', '.join(MODES)}, found {mode[:64]!r}")
        self._policy = policy
        self._mode = mode
        self._now = datetime.now(UTC)
        self._verdict = Verdict(Decision.FAILED, policy_digest=policy.digest, when=instant(self._now))
        self._sbom: tuple[bytes, str, LeftOut] = (b"", "", NOTHING)

    def done(
        self, scanner: Scanner | str | None, options: ScannerOptions, form: SbomFormat | None, examine: Examine
    ) -> Outcome:
        """Return the outcome of all that is wanted. Raises as ``scan``."""
        examined = None
        try:
            found = self._scanner(scanner, options)
            maker = self._maker(form, options)
            if found is not None or maker is not None:
                examined = examine(found, maker, form or SbomFormat.CYCLONEDX)
                if maker is not None:
                    self._sbom = (examined.sbom, examined.sbom_problem, examined.sbom_left_out)
        except (UsageError, NotFound):
            raise
        except BlockwrightError as error:
            if self._mode != "off":
                return self._ended(Decision.FAILED, str(error))
            self._sbom = (b"", str(error), NOTHING)
        if self._mode == "off":
            return self._ended(Decision.OFF)
        if examined is not None and examined.problem:
            return self._ended(Decision.FAILED, examined.problem)
        if examined is None or examined.report is None:
            return self._ended(Decision.UNSCANNED, missing(scanner if isinstance(scanner, str) else None))
        self._verdict = decide(self._verdict, examined.report, self._policy, examined.evidence, self._now)
        return self._end()

    def _scanner(self, scanner: Scanner | str | None, options: ScannerOptions) -> Scanner | None:
        if self._mode == "off":
            return None
        found = find_scanner(scanner, options) if scanner is None or isinstance(scanner, str) else scanner
        if found is not None:
            self._verdict = replace(self._verdict, scanner=found.name, looked_for=found.looks_for)
        return found

    def _maker(self, form: SbomFormat | None, options: ScannerOptions) -> SbomMaker | None:
        if form is None:
            return None
        try:
            return find_maker(options)
        except ScanFailed as error:
            self._sbom = (b"", str(error), NOTHING)
            return None

    def _ended(self, decision: Decision, reason: str = "") -> Outcome:
        """Return the outcome of a scan without a report."""
        self._verdict = replace(self._verdict, decision=decision, reason=reason)
        return self._end()

    def _end(self) -> Outcome:
        verdict = self._verdict
        line = line_of(verdict, self._policy)
        if self._mode == "enforce" and verdict.decision is Decision.VIOLATED:
            raise PolicyViolated(line, verdict=verdict.to_json())
        if self._mode == "enforce" and verdict.decision is not Decision.CLEAN:
            raise ScanFailed(line, verdict=verdict.to_json())
        return Outcome(verdict, line, *self._sbom)


def _tree_examiner(tree: Directory, policy: Policy, workdir: str, image: str) -> Examine:
    def examine(scanner: Scanner | None, maker: SbomMaker | None, form: SbomFormat) -> Examined:
        if sys.platform != "win32":
            from blockwright.scan.examine import examine_tree

            return examine_tree(tree, scanner, maker, form, policy.budget, workdir, image)
        raise NotSupported(ELSEWHERE)

    return examine


def _sbom_examiner(sbom: Sbom, workdir: str, left_out: LeftOut) -> Examine:
    def examine(scanner: Scanner | None, _maker: SbomMaker | None, _form: SbomFormat) -> Examined:
        if sys.platform != "win32":
            from blockwright.scan.examine import examine_sbom

            return Examined() if scanner is None else examine_sbom(sbom, scanner, workdir, left_out)
        raise NotSupported(ELSEWHERE)

    return examine
