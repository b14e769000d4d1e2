"""What a scan came to, as a value that is stored: findings, counts, and all that they rest on.

Knows: the words and their JSON. Refuses to know: how a scanner is run, and what a policy says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Final, Self, TypeVar

from blockwright.errors import Corrupt, LimitExceeded

_Choice = TypeVar("_Choice", bound=Enum)

SCHEMA: Final = "blockwright.verdict/1"
MAX_FINDINGS: Final = 200_000
"""Findings in one report."""

MAX_TEXT: Final = 4096
"""Characters of any one text of a report."""


class Severity(Enum):
    """How bad a finding is, the worst first."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"
    UNKNOWN = "UNKNOWN"


class Decision(Enum):
    """What a scan came to.

    ``CLEAN``: a scanner looked at everything, and nothing breaks the policy. ``VIOLATED``: something does.
    ``UNSCANNED``: no scanner is installed. ``FAILED``: a scanner was run, and its answer cannot be relied on.
    ``OFF``: nobody asked.
    """

    CLEAN = "clean"
    VIOLATED = "violated"
    UNSCANNED = "unscanned"
    FAILED = "failed"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: a vulnerability of a package, or malware in a file.

    ``identity`` is its name (CVE-2024-1234, a signature), ``place`` the file, package database or layer it was found
    in, ``fixed`` the version that mends it, empty where there is none or nobody knows. ``violates`` says whether the
    policy counts it, ``excused`` why it does not although its severity would, empty otherwise.
    """

    identity: str
    severity: Severity
    package: str = ""
    installed: str = ""
    fixed: str = ""
    place: str = ""
    title: str = ""
    url: str = ""
    violates: bool = False
    excused: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files over the projection's budget, which no scanner has seen: how many, their bytes, the first names."""

    files: int = 0
    size: int = 0
    names: tuple[str, ...] = ()


NOTHING: Final = LeftOut()
"""Every file was shown."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a scan came to, and what that rests on.

    ``looked_for`` is ``vulnerabilities`` or ``malware``. ``system`` is the operating system that the scanner found,
    ``packages`` how many packages, None where it does not say. Dates are ISO 8601 in UTC, empty where nobody knows.
    ``reason`` says why nothing was decided, ``remarks`` what else people should know.
    """

    decision: Decision
    scanner: str = ""
    scanner_version: str = ""
    database_version: str = ""
    database_date: str = ""
    policy_digest: str = ""
    when: str = ""
    looked_for: str = "vulnerabilities"
    system: str = ""
    packages: int | None = None
    findings: tuple[Finding, ...] = ()
    left_out: LeftOut = NOTHING
    reason: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Findings by severity, the worst first; each severity is there."""
        counts = {each.value: 0 for each in Severity}
        for finding in self.findings:
            counts[finding.severity.value] += 1
        return counts

    @property
    def violations(self) -> int:
        """How many findings the policy counts."""
        return sum(finding.violates for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as what JSON holds; ``from_json`` takes it back."""
        document: dict[str, Any] = {"schema": SCHEMA}
        for field in fields(self):
            document[field.name] = getattr(self, field.name)
        document["decision"] = self.decision.value
        document["counts"] = self.counts
        document["violations"] = self.violations
        document["findings"] = [_finding_json(each) for each in self.findings]
        document["left_out"] = {
            "files": self.left_out.files,
            "size": self.left_out.size,
            "names": list(self.left_out.names),
        }
        document["remarks"] = list(self.remarks)
        return document

    @classmethod
    def from_json(cls, document: object) -> Self:
        """Return the verdict that ``to_json`` gave. Raises Corrupt, LimitExceeded."""
        given = _table(document, "verdict")
        if given.get("schema") != SCHEMA:
            raise Corrupt(f"verdict: expected the schema {SCHEMA}, found {given.get('schema')!r:.64}")
        found = _list(given.get("findings"), "findings")
        if len(found) > MAX_FINDINGS:
            raise LimitExceeded(f"verdict: expected at most {MAX_FINDINGS} findings, found {len(found)}")
        left = _table(given.get("left_out"), "left_out")
        packages = given.get("packages")
        return cls(
            decision=_choice(Decision, given.get("decision"), "decision"),
            findings=tuple(_finding(each) for each in found),
            left_out=LeftOut(
                _count(left.get("files"), "left_out.files"),
                _count(left.get("size"), "left_out.size"),
                _texts(left.get("names"), "left_out.names"),
            ),
            packages=None if packages is None else _count(packages, "packages"),
            remarks=_texts(given.get("remarks"), "remarks"),
            **{name: _text(given.get(name), name) for name in _TEXTS},
        )


_TEXTS: Final = (
    "scanner",
    "scanner_version",
    "database_version",
    "database_date",
    "policy_digest",
    "when",
    "looked_for",
    "system",
    "reason",
)


def _finding_json(finding: Finding) -> dict[str, Any]:
    document = {field.name: getattr(finding, field.name) for field in fields(finding)}
    return document | {"severity": finding.severity.value}


def _finding(document: object) -> Finding:
    given = _table(document, "finding")
    texts = ("identity", "package", "installed", "fixed", "place", "title", "url", "excused")
    return Finding(
        severity=_choice(Severity, given.get("severity"), "severity"),
        violates=given.get("violates") is True,
        **{name: _text(given.get(name), name) for name in texts},
    )


def _table(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Corrupt(f"verdict: {name}: expected an object, found {type(value).__name__}")
    return value


def _list(value: object, name: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise Corrupt(f"verdict: {name}: expected a list, found {type(value).__name__}")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise Corrupt(f"verdict: {name}: expected a text, found {type(value).__name__}")
    return value


def _texts(value: object, name: str) -> tuple[str, ...]:
    return tuple(_text(each, name) for each in _list(value, name))


def _count(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Corrupt(f"verdict: {name}: expected a count, found {value!r:.64}")
    return value


def _choice(kind: type[_Choice], value: object, name: str) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        raise Corrupt(
            f"verdict: {name}: expected one of {[each.value for each in kind]}, found {value!r:.64}"
        ) from None
