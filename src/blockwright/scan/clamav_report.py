"""What clamscan prints, read: a line for each file that something is wrong with, and a summary.

The files have names that are numbers and ours, so no line can be anything but what clamscan made it.

Knows: clamscan's lines (ClamAV 1.0 to 1.4), the header of its databases (CVD). Refuses to know: how it is run.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from blockwright.errors import Corrupt, LimitExceeded
from blockwright.scan.verdict import MAX_FINDINGS, MAX_TEXT

_NAME: Final = "clamscan's report"
_SUMMARY: Final = "----------- SCAN SUMMARY -----------"
_COUNT: Final = re.compile(r"(Known viruses|Scanned files|Infected files|Total errors): ([0-9]{1,18})")
_ENGINE: Final = re.compile(r"Engine version: ([0-9A-Za-z.+~_-]{1,64})")
_LINE: Final = re.compile(r"([0-9]+): (.+) (FOUND|ERROR)")
_LIMITS: Final = "Heuristics.Limits.Exceeded"


@dataclass(frozen=True, slots=True)
class ClamReport:
    """What it says: signatures by file name, and the names of files that it did not look at to their end."""

    engine: str
    found: tuple[tuple[str, str], ...]
    unseen: tuple[str, ...]


def parse_clamscan(data: bytes, folder: str, names: Collection[str]) -> ClamReport:
    """Return what clamscan printed of the files ``names`` in ``folder``.

    Raises Corrupt where it is not whole, is of other files or of fewer, or rests on no signature; LimitExceeded.
    """
    lines = data.decode("utf-8", "replace").splitlines()
    if _SUMMARY not in lines:
        raise Corrupt("report: expected a summary, found none", source=_NAME)
    split = lines.index(_SUMMARY)
    counts = {match[1]: int(match[2]) for match in map(_COUNT.fullmatch, lines[split:]) if match}
    engine = next((match[1] for match in map(_ENGINE.fullmatch, lines[split:]) if match), "")
    if not counts.get("Known viruses"):
        raise Corrupt("report: expected signatures to look for, found none", source=_NAME)
    found: list[tuple[str, str]] = []
    unseen: list[str] = []
    prefix = folder.rstrip("/") + "/"
    for line in lines[:split]:
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.removeprefix(prefix)) if line.startswith(prefix) else None
        if match is None or match[1] not in names:
            raise Corrupt(f"report: expected files that it was given, found {line!r:.100}", source=_NAME)
        if match[3] == "ERROR":
            raise Corrupt(f"report: expected every file to be read, found {match[2]!r:.100}", source=_NAME)
        if len(found) + len(unseen) >= MAX_FINDINGS:
            raise LimitExceeded(f"report: expected at most {MAX_FINDINGS} findings, found more", source=_NAME)
        if match[2].startswith(_LIMITS):
            unseen.append(match[1])
        else:
            found.append((match[1], match[2][:MAX_TEXT]))
    for what, expected in (("Scanned files", len(names)), ("Infected files", len(found) + len(unseen))):
        if counts.get(what) != expected:
            raise Corrupt(f"report: {what.lower()}: expected {expected}, found {counts.get(what)}", source=_NAME)
    if counts.get("Total errors"):
        raise Corrupt(f"report: expected no errors, found {counts['Total errors']}", source=_NAME)
    return ClamReport(engine, tuple(found), tuple(unseen))


def parse_cvd(header: bytes) -> tuple[str, datetime] | None:
    """Return the version and the time of a database of ClamAV's own, from its first 512 bytes; None for no such."""
    fields = header[:512].decode("ascii", "replace").split(":")
    if len(fields) < 8 or fields[0] != "ClamAV-VDB" or not fields[2].isdecimal():
        return None
    try:
        return fields[2], datetime.strptime(fields[1].strip(), "%d %b %Y %H-%M %z").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
