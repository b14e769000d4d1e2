"""What a scan's findings are held against, as a value.

Knows: severities, exceptions with their end, what age a database may have. Refuses to know: files (``policy_file``),
and scanners.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

from blockwright.scan.verdict import Finding, Severity
from blockwright.units import GiB

DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Allowed:
    """A finding that is known and accepted until the end of a day, UTC.

    ``identity`` is the finding's own; ``package`` narrows it to one package, empty for any.
    """

    identity: str
    until: date
    package: str = ""
    reason: str = ""

    def covers(self, finding: Finding) -> bool:
        """Whether it speaks of this finding, whatever the day."""
        return finding.identity == self.identity and self.package in ("", finding.package)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of a tree is put before a scanner, at most: bytes and files of the projection."""

    size: int = 64 * GiB
    files: int = 4_000_000


@dataclass(frozen=True, slots=True)
class Policy:
    """What breaks the policy: a finding of one of ``severities``, unless it is allowed.

    ``fixed_only`` counts findings only that a newer version mends. ``max_database_age_s`` is how old a scanner's
    database may be in seconds, None for any age. ``allow_incomplete`` takes a verdict though files were over the
    ``budget``; otherwise that is a failure, as no answer is.
    """

    severities: frozenset[Severity] = frozenset({Severity.HIGH, Severity.CRITICAL})
    fixed_only: bool = False
    allow: tuple[Allowed, ...] = ()
    max_database_age_s: int | None = 7 * DAY_S
    allow_incomplete: bool = False
    budget: Budget = Budget()

    @property
    def digest(self) -> str:
        """``sha256:`` and the digest of all that the policy says: equal policies have equal ones."""
        document: dict[str, Any] = {
            "severities": sorted(each.value for each in self.severities),
            "fixed_only": self.fixed_only,
            "allow": sorted(
                [each.identity, each.package, each.until.isoformat(), each.reason] for each in self.allow
            ),
            "max_database_age_s": self.max_database_age_s,
            "allow_incomplete": self.allow_incomplete,
            "budget": [self.budget.size, self.budget.files],
        }
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    @property
    def severities_text(self) -> str:
        """The severities for people, as in ``HIGH or CRITICAL``."""
        names = [each.value for each in reversed(Severity) if each in self.severities]
        return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

    def judge(self, findings: Sequence[Finding], today: date) -> tuple[Finding, ...]:
        """Return the findings, the worst first, each with what the policy says of it on this day (UTC)."""
        allowed: dict[str, list[Allowed]] = {}
        for each in self.allow:
            allowed.setdefault(each.identity, []).append(each)
        judged = [self._judged(finding, allowed.get(finding.identity, ()), today) for finding in findings]
        return tuple(sorted(judged, key=_order))

    def _judged(self, finding: Finding, allowed: Sequence[Allowed], today: date) -> Finding:
        if finding.severity not in self.severities:
            return replace(finding, violates=False, excused="")
        if self.fixed_only and not finding.fixed:
            return replace(finding, violates=False, excused="no fixed version")
        for each in allowed:
            if each.covers(finding) and today <= each.until:
                text = f"allowed until {each.until.isoformat()}"
                return replace(finding, violates=False, excused=f"{text}: {each.reason}" if each.reason else text)
        return replace(finding, violates=True, excused="")

    def expired(self, findings: Sequence[Finding], today: date) -> tuple[Allowed, ...]:
        """Return what is in the list of exceptions for one of these findings, and has ended."""
        found = {finding.identity for finding in findings}
        return tuple(each for each in self.allow if each.until < today and each.identity in found)


def _order(finding: Finding) -> tuple[int, str, str, str]:
    return _RANKS[finding.severity], finding.identity, finding.package, finding.place


_RANKS: Final = {severity: rank for rank, severity in enumerate(Severity)}
DEFAULT_POLICY: Final = Policy()
"""What a verdict is held against where nobody says otherwise."""
