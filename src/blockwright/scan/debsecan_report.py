"""What debsecan prints in its format "detail", read: a block of lines for each vulnerability of a package.

Knows: debsecan's lines (debsecan 0.4.20). Refuses to know: how it is run.
"""

from __future__ import annotations

import re
from typing import Final

from blockwright.errors import Corrupt, LimitExceeded
from blockwright.scan.verdict import MAX_FINDINGS, MAX_TEXT, Finding, Severity

_NAME: Final = "debsecan's report"
_HEAD: Final = re.compile(r"(\S+)(?: \(([a-z, ]+)\))?")
_INSTALLED: Final = re.compile(r"  installed: (\S+) (\S+)")
_FIXED: Final = re.compile(r"  fixed (in unstable:|on branch:  ) \S+ (\S+) \((?:binary|source) package\)")
_AVAILABLE: Final = re.compile(r"  fix is available for the selected suite \((\S+)\)")
_SEVERITIES: Final = {"high urgency": Severity.HIGH, "medium urgency": Severity.MEDIUM, "low urgency": Severity.LOW}


def parse_detail(data: bytes) -> list[Finding]:
    """Return what debsecan printed. Raises Corrupt for a block that is not whole, LimitExceeded."""
    found: list[Finding] = []
    text = data.decode("utf-8", "replace")
    if text and not text.endswith("\n\n"):
        raise Corrupt("report: expected it to its end, found it cut short", source=_NAME)
    for block in text[:-2].split("\n\n") if text else ():
        if len(found) >= MAX_FINDINGS:
            raise LimitExceeded(f"report: expected at most {MAX_FINDINGS} findings, found more", source=_NAME)
        found.append(_finding(block.split("\n")))
    return found


def _finding(lines: list[str]) -> Finding:
    head = _HEAD.fullmatch(lines[0])
    installed = next((match for match in map(_INSTALLED.fullmatch, lines[2:]) if match), None)
    if head is None or installed is None:
        raise Corrupt(f"report: expected a vulnerability and its package, found {lines[0]!r:.64}", source=_NAME)
    notes = (head[2] or "").split(", ")
    available = next((match for match in map(_AVAILABLE.fullmatch, lines) if match), None)
    fixes = [match for match in map(_FIXED.fullmatch, lines) if match]
    fixed = ""
    if "fixed" in notes:
        fixed = f"in {available[1]}" if available else next((each[2] for each in fixes), "in the archive")
    severity = next((_SEVERITIES[note] for note in notes if note in _SEVERITIES), Severity.UNKNOWN)
    return Finding(
        identity=head[1][:MAX_TEXT],
        severity=severity,
        package=installed[1][:MAX_TEXT],
        installed=installed[2][:MAX_TEXT],
        fixed=fixed[:MAX_TEXT],
        place="dpkg",
        title=lines[1].strip()[:MAX_TEXT],
        url=f"https://security-tracker.debian.org/tracker/{head[1]}"[:MAX_TEXT],
    )
