"""Trivy's report as JSON, read as hostile input: it names files and packages of whoever made the image.

An absent list of results is what Trivy says of a tree without packages, and also of one it did not understand;
``decision`` tells these apart by the operating system and the packages, which are kept for that.

Knows: the report's schema, version 2 (Trivy, "Reporting: JSON"), and what ``trivy version`` says. Refuses to know:
how Trivy is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from blockwright.errors import Corrupt, LimitExceeded, Unsupported
from blockwright.scan.sbom import load_json
from blockwright.scan.scanner import Database
from blockwright.scan.verdict import MAX_FINDINGS, MAX_TEXT, Finding, Severity

SCHEMA_VERSION: Final = 2
_NAME: Final = "trivy's report"
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class TrivyReport:
    """What it says: ``system`` as in ``debian 12.5``, empty for none, and whether that has reached its end of life.

    ``packages`` is how many packages of that system it lists.
    """

    system: str
    end_of_life: bool
    packages: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class TrivyVersion:
    """What Trivy, or its server, says of itself; no database is None."""

    version: str
    database: Database | None


def parse_report(data: bytes) -> TrivyReport:
    """Return what a report says. Raises Corrupt, Unsupported for another schema, LimitExceeded."""
    document = load_json(data, _NAME, "report")
    if not isinstance(document, dict):
        raise Corrupt(f"report: expected an object, found {type(document).__name__}", source=_NAME)
    schema = document.get("SchemaVersion")
    if schema != SCHEMA_VERSION or isinstance(schema, bool):
        raise Unsupported(f"report: expected schema version {SCHEMA_VERSION}, found {schema!r:.32}", source=_NAME)
    system = _object(_object(document, "Metadata"), "OS")
    findings: list[Finding] = []
    packages = 0
    for result in _objects(document, "Results"):
        if _text(result, "Class") == "os-pkgs":
            packages += sum(1 for _ in _objects(result, "Packages"))
        for each in _objects(result, "Vulnerabilities"):
            if len(findings) >= MAX_FINDINGS:
                raise LimitExceeded(f"report: expected at most {MAX_FINDINGS} findings, found more", source=_NAME)
            findings.append(_finding(each, _text(result, "Target")))
    name = " ".join(each for each in (_text(system, "Family"), _text(system, "Name")) if each and each != "none")
    return TrivyReport(name, system.get("EOSL") is True, packages, tuple(findings))


def _finding(given: Mapping[str, Any], target: str) -> Finding:
    identity = _text(given, "VulnerabilityID")
    if not identity:
        raise Corrupt("report: expected a vulnerability's name, found none", source=_NAME)
    word = _text(given, "Severity") or Severity.UNKNOWN.value
    try:
        severity = Severity(word)
    except ValueError:
        raise Corrupt(f"report: {identity:.64}: expected a severity, found {word!r:.32}", source=_NAME) from None
    return Finding(
        identity=identity,
        severity=severity,
        package=_text(given, "PkgName"),
        installed=_text(given, "InstalledVersion"),
        fixed=_text(given, "FixedVersion"),
        place=_text(given, "PkgPath") or target,
        title=_text(given, "Title"),
        url=_text(given, "PrimaryURL"),
    )


def parse_version(data: bytes) -> TrivyVersion:
    """Return what ``trivy version --format json`` or a server's ``/version`` says. Raises Corrupt."""
    name = "trivy's version"
    document = load_json(data, name, "version")
    if not isinstance(document, dict):
        raise Corrupt(f"version: expected an object, found {type(document).__name__}", source=name)
    database = _object(document, "VulnerabilityDB")
    if not database:
        return TrivyVersion(_text(document, "Version"), None)
    number = database.get("Version")
    updated = _text(database, "UpdatedAt")
    return TrivyVersion(
        _text(document, "Version"), Database(f"{number!s:.16}, {updated}", parse_time(updated) if updated else None)
    )


def parse_time(text: str) -> datetime:
    """Return a moment in RFC 3339, to the second. Raises Corrupt."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise Corrupt(f"time: expected RFC 3339, found {text!r:.40}")
    try:
        return datetime.fromisoformat(match[1] + match[2].replace("Z", "+00:00")).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Corrupt(f"time: expected a time that exists, found {text!r:.40}") from None


def _object(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = given.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Corrupt(f"report: {key}: expected an object, found {type(value).__name__}", source=_NAME)
    return value


def _objects(given: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    values = given.get(key)
    if values is None:
        return
    if not isinstance(values, list):
        raise Corrupt(f"report: {key}: expected a list, found {type(values).__name__}", source=_NAME)
    for value in values:
        if not isinstance(value, dict):
            raise Corrupt(f"report: {key}: expected objects in it, found {type(value).__name__}", source=_NAME)
        yield value


def _text(given: Mapping[str, Any], key: str) -> str:
    value = given.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Corrupt(f"report: {key}: expected a text, found {type(value).__name__}", source=_NAME)
    # Half a surrogate pair is a text of JSON, and none that can be stored.
    return value[:MAX_TEXT].encode("utf-8", "replace").decode()
