"""Verdicts on images that are there: given later than the receipt's, from the list that was kept of what they hold.

They lie in the journal of the machine that has the image, whoever runs its steps. The newest verdict is what counts:
the receipt's, or one of these; and one that was to be enforced, and is not clean, lets nobody activate a snapshot.

Knows: their table, and which verdict counts. Refuses to know: scanners.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from blockwright.errors import Corrupt, PolicyViolated, ScanFailed
from blockwright.journal import Journal, Part
from blockwright.pipeline.home import Home
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.states import Event

KEPT: Final = 8
"""How many verdicts of an image are kept, the newest."""
CLEAN: Final = "clean"
VIOLATED: Final = "violated"
ENFORCE: Final = "enforce"

PART: Final = Part(
    "verdicts",
    (
        (
            """CREATE TABLE verdict (image TEXT NOT NULL, when_ns INTEGER NOT NULL, mode TEXT NOT NULL,
            decision TEXT NOT NULL, line TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (image, when_ns))
            WITHOUT ROWID""",
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict on an image: when, what was to be made of it (``mode``), what it came to, its line, and all of it."""

    image: str
    when_ns: int
    mode: str
    decision: str
    line: str
    verdict: Mapping[str, Any]

    @property
    def passes(self) -> bool:
        """Whether a snapshot of the image may be activated."""
        return self.mode != ENFORCE or self.decision == CLEAN

    def document(self) -> dict[str, Any]:
        """Return the verdict as JSON has it."""
        return {**asdict(self), "passes": self.passes}


def add(journal: Journal, judged: Judged) -> None:
    """Have a verdict on record; of many, the newest are kept."""
    with journal.transaction() as db:
        values = (judged.when_ns, judged.mode, judged.decision, judged.line, json.dumps(dict(judged.verdict)))
        db.execute("INSERT OR REPLACE INTO verdict VALUES (?, ?, ?, ?, ?, ?)", (judged.image, *values))
        db.execute(
            "DELETE FROM verdict WHERE image = ? AND when_ns NOT IN"
            " (SELECT when_ns FROM verdict WHERE image = ? ORDER BY when_ns DESC LIMIT ?)",
            (judged.image, judged.image, KEPT),
        )


def all_of(journal: Journal, image: str) -> list[Judged]:
    """Return the verdicts on an image, the oldest first. Raises Corrupt."""
    found = []
    for row in journal.rows("SELECT * FROM verdict WHERE image = ? ORDER BY when_ns", image):
        try:
            verdict = json.loads(row["document"])
        except (ValueError, RecursionError):
            verdict = None
        if not isinstance(verdict, dict):
            raise Corrupt("journal: expected a JSON object in a verdict's record", source=journal.path)
        found.append(Judged(row["image"], row["when_ns"], row["mode"], row["decision"], row["line"], verdict))
    return found


def later(journal: Journal, image: str, receipts: Sequence[Receipt]) -> Judged | None:
    """Return the newest verdict on an image, None where the receipt of its scan has that."""
    found = all_of(journal, image)[-1:]
    scanned = max((each.finished_ns for each in receipts if _decision(each)), default=0)
    return found[0] if found and found[0].when_ns > scanned else None


def _decision(receipt: Receipt) -> str:
    """Return what a scan's receipt came to, empty for another receipt, and where nobody looked."""
    verdict = receipt.outputs.get("verdict") if receipt.step is Event.SCAN else None
    return str(verdict.get("decision", "")) if isinstance(verdict, Mapping) else ""


def remove(journal: Journal, image: str) -> None:
    """Have no verdict on an image."""
    with journal.transaction() as db:
        db.execute("DELETE FROM verdict WHERE image = ?", (image,))


def check(home: Home, image: str, receipts: Sequence[Receipt]) -> None:
    """Return where the newest verdict lets a snapshot be activated. A receipt lifts one only where it is clean.

    Raises PolicyViolated, ScanFailed.
    """
    clean = [each for each in receipts if _decision(each) == CLEAN]
    with Journal(home.journal, (PART,)) as journal:
        found = later(journal, image, clean)
    if found is None or found.passes:
        return
    kind = PolicyViolated if found.decision == VIOLATED else ScanFailed
    advice = f"'blockwright image scan {image}' gives another"
    text = f"{image}: its last verdict lets nobody activate it: {found.line}: {advice}"
    raise kind(text, verdict=dict(found.verdict))
