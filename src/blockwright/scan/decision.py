"""From what a scanner said to a verdict and its one line. Whatever is in doubt is no verdict of "clean".

Knows: what has to be so before a report counts, and the words for people. Refuses to know: scanners, and files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from blockwright.scan.inventory import Inventory
from blockwright.scan.policy import DAY_S, Policy
from blockwright.scan.scanner import Report
from blockwright.scan.verdict import NOTHING, Decision, LeftOut, Severity, Verdict
from blockwright.units import format_size

CLOCK_SKEW: Final = timedelta(days=1)
"""How far ahead of our clock a database's date may lie."""

_ONE: Final[Mapping[str, str]] = {"vulnerabilities": "vulnerability", "malware": "piece of malware"}
_MANY: Final[Mapping[str, str]] = {"vulnerabilities": "vulnerabilities", "malware": "pieces of malware"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a report is held against: the tree's inventory (None for an SBOM), and what was not put before it."""

    inventory: Inventory | None
    left_out: LeftOut = NOTHING


UNKNOWN_TREE: Final = Evidence(None)


@dataclass(frozen=True, slots=True)
class Examined:
    """What programs said: a scanner's report, and a list of what a tree holds, each or why there is none."""

    report: Report | None = None
    problem: str = ""
    evidence: Evidence = UNKNOWN_TREE
    sbom: bytes = b""
    sbom_problem: str = ""
    sbom_left_out: LeftOut = NOTHING


def decide(verdict: Verdict, report: Report, policy: Policy, evidence: Evidence, now: datetime) -> Verdict:
    """Return the verdict on a report; ``verdict`` has what was known before it."""
    today = now.astimezone(UTC).date()
    findings = policy.judge(report.findings, today)
    left_out = _joined(evidence.left_out, report.unseen)
    remarks = [*report.remarks]
    remarks += [
        f"the exception for {each.identity} ended on {each.until.isoformat()}"
        for each in policy.expired(report.findings, today)
    ]
    known = replace(
        verdict,
        scanner_version=report.scanner_version,
        database_version=report.database.version,
        database_date="" if report.database.date is None else instant(report.database.date),
        system=report.system,
        packages=report.packages,
        findings=findings,
        left_out=left_out,
        remarks=tuple(remarks),
    )
    reason = _doubt(known, report, policy, evidence.inventory, now)
    if reason:
        return replace(known, decision=Decision.FAILED, reason=reason)
    return replace(known, decision=Decision.VIOLATED if known.violations else Decision.CLEAN)


def _joined(one: LeftOut, other: LeftOut) -> LeftOut:
    if not other.files:
        return one
    return LeftOut(one.files + other.files, one.size + other.size, one.names + other.names)


def _doubt(known: Verdict, report: Report, policy: Policy, inventory: Inventory | None, now: datetime) -> str:
    """Return why a report cannot be relied on, empty where it can."""
    scanner = known.scanner
    reason = _age_doubt(report.database.date, policy.max_database_age_s, now)
    if reason:
        return f"{scanner}: {reason}"
    if known.left_out.files and not policy.allow_incomplete:
        return f"{scanner}: expected to be shown every file, found {left_out_text(known.left_out)}"
    if known.looked_for != "vulnerabilities" or inventory is None or not inventory.databases:
        return ""
    where = ", ".join(sorted({each.path.decode("utf-8", "backslashreplace") for each in inventory.databases}))
    if not report.system:
        return f"{scanner}: expected an operating system, found none, though there is a package database ({where})"
    if report.packages == 0 and inventory.has_packages:
        return f"{scanner}: expected packages, found none, though there is a package database ({where})"
    return ""


def _age_doubt(date: datetime | None, limit_s: int | None, now: datetime) -> str:
    if limit_s is None:
        return ""
    limit = _days(limit_s)
    if date is None:
        return f"database: expected one of at most {limit}, found one without a date"
    if date - now > CLOCK_SKEW:
        return f"database: expected one from before now, found one of {instant(date)}"
    age_s = int((now - date).total_seconds())
    if age_s > limit_s:
        return f"database: expected one of at most {limit}, found one of {_days(age_s)} ({instant(date)})"
    return ""


def line_of(verdict: Verdict, policy: Policy) -> str:
    """Return the verdict as one line for people."""
    if verdict.decision is Decision.OFF:
        return "not scanned: scanning is off"
    if verdict.decision is Decision.UNSCANNED:
        return f"not scanned: {verdict.reason}"
    if verdict.decision is Decision.FAILED:
        return f"no verdict: {verdict.reason}"
    notes = _notes(verdict, policy)
    if verdict.decision is Decision.CLEAN:
        severities = f"{policy.severities_text} " if verdict.looked_for == "vulnerabilities" else ""
        text = f"clean: no {severities}{verdict.looked_for}"
    else:
        counts = dict.fromkeys(Severity, 0)
        for finding in verdict.findings:
            counts[finding.severity] += finding.violates
        count = sum(counts.values())
        text = f"{count} {_ONE[verdict.looked_for] if count == 1 else _MANY[verdict.looked_for]}"
        if verdict.looked_for == "vulnerabilities":
            text += f": {', '.join(f'{number} {each.value}' for each, number in counts.items() if number)}"
    return f"{text} ({'; '.join(notes)})" if notes else text


def _notes(verdict: Verdict, policy: Policy) -> list[str]:
    """Return what should be known beside the count."""
    notes = []
    excused = [each for each in verdict.findings if each.excused]
    allowed = sum(each.excused != "no fixed version" for each in excused)
    if allowed:
        notes.append(f"{allowed} allowed")
    if len(excused) - allowed:
        notes.append(f"{len(excused) - allowed} without a fixed version")
    unknown = verdict.counts[Severity.UNKNOWN.value]
    if unknown and Severity.UNKNOWN not in policy.severities:
        notes.append(f"{unknown} of unknown severity")
    if verdict.left_out.files:
        notes.append(left_out_text(verdict.left_out))
    notes += verdict.remarks
    return notes


def left_out_text(left: LeftOut) -> str:
    """Return what was left out, for people."""
    names = ", ".join(left.names[:3]) + (", …" if left.files > 3 else "")
    noun = "file" if left.files == 1 else "files"
    return f"{left.files} {noun} of {format_size(left.size)} left out: {names}"


def instant(moment: datetime) -> str:
    """Return a moment as ISO 8601 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _days(seconds: int) -> str:
    days = seconds / DAY_S
    return f"{seconds // 3600} hours" if days < 2 else f"{days:.0f} days"
