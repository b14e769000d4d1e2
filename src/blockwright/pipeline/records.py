"""Runs and receipts in the embedded journal. A commit counts only for whoever still holds the run's lease.

Knows: their tables, and what is committed together. Refuses to know: steps, and the catalogue.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from blockwright.errors import ArchiveRejected, Corrupt, InUse, NotFound
from blockwright.journal import Journal, Lease, Part
from blockwright.owner import Owner
from blockwright.pipeline import claims, verdicts
from blockwright.pipeline.home import Home
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.receipt import MAX_RECEIPT, Receipt
from blockwright.pipeline.request import Request
from blockwright.pipeline.states import Event, State, check_transition

PART: Final = Part(
    "pipeline",
    (
        (
            """CREATE TABLE run (id TEXT PRIMARY KEY, request TEXT NOT NULL, identity TEXT NOT NULL,
            volume TEXT NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL, trace TEXT NOT NULL,
            trouble TEXT, failed TEXT, cancelled INTEGER NOT NULL, told INTEGER NOT NULL, created_ns INTEGER NOT NULL,
            changed_ns INTEGER NOT NULL)""",
            """CREATE TABLE receipt (run TEXT NOT NULL, position INTEGER NOT NULL, step TEXT NOT NULL,
            document TEXT NOT NULL, PRIMARY KEY (run, step)) WITHOUT ROWID""",
            "CREATE INDEX untold ON run (told) WHERE told = 0",
        ),
    ),
)
_LEASE: Final = "run/"


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is recorded. ``trace`` is a W3C traceparent; ``trouble`` why it failed, at the step ``failed``."""

    id: str
    request: Request
    identity: Mapping[str, Any]
    volume: str
    state: State
    attempt: int = 0
    trace: str = ""
    trouble: str | None = None
    failed: str | None = None
    cancelled: bool = False
    created_ns: int = 0
    changed_ns: int = 0

    def inputs(self, receipts: Sequence[Receipt]) -> Inputs:
        """Return what the next step works on."""
        return Inputs(self.id, self.request, self.identity, self.volume, tuple(receipts))


class Runs:
    """The runs of a journal. Use it as a context manager, or ``close`` it."""

    def __init__(self, home: Home) -> None:
        home.make()
        self.journal = Journal(home.journal, (PART, verdicts.PART, claims.PART))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()

    # -- what is there ---------------------------------------------------------------------------------------

    def find(self, run: str) -> Run | None:
        """Return a run by its name, None where there is none."""
        rows = self.journal.rows("SELECT * FROM run WHERE id = ?", run)
        return self._run(rows[0]) if rows else None

    def get(self, run: str) -> Run:
        """Return a run. Raises NotFound."""
        found = self.find(run)
        if found is None:
            raise NotFound(f"{run}: no such run")
        return found

    def all(self) -> list[Run]:
        """Return all runs, the oldest first."""
        rows = self.journal.rows("SELECT * FROM run WHERE state <> ? ORDER BY created_ns, id", State.ABSENT.value)
        return [self._run(row) for row in rows]

    def receipts(self, run: str) -> list[Receipt]:
        """Return the receipts of a run, in the order of steps. Raises Corrupt."""
        rows = self.journal.rows("SELECT document FROM receipt WHERE run = ? ORDER BY position", run)
        return [Receipt.parse(self._json(row["document"]), self.journal.path) for row in rows]

    def worker(self, run: str) -> Owner | None:
        """Return the process that is at a run, None where none is."""
        rows = self.journal.rows("SELECT owner FROM lease WHERE name = ? AND owner IS NOT NULL", f"{_LEASE}{run}")
        owner = Owner.parse(rows[0]["owner"], self.journal.marks) if rows else None
        return owner if owner is not None and owner.alive else None

    def untold(self) -> list[Run]:
        """Return the runs that the catalogue does not have as they are."""
        return [self._run(row) for row in self.journal.rows("SELECT * FROM run WHERE told = 0 ORDER BY id")]

    # -- leases ----------------------------------------------------------------------------------------------

    def take(self, run: str) -> Lease:
        """Have this process be at the run, and nobody else. Raises InUse, naming the process."""
        return self.journal.take(f"{_LEASE}{run}", {"run": run})

    def give_back(self, lease: Lease) -> None:
        """Let others at the run."""
        self.journal.give_back(lease)

    def clear(self) -> None:
        """Give back what dead processes had; their runs go on when they are asked for."""
        for lease in self.journal.leases():
            if not lease.owner.alive:
                self.journal.give_back(lease)

    # -- commits: each counts only while the lease does ------------------------------------------------------

    def begin(self, run: Run, lease: Lease) -> Run:
        """Record a run that is new, or one more attempt of it, and return it as it is then."""
        now = time.time_ns()
        with self.journal.transaction() as db:
            self.journal.check(lease)
            claims.refuse(db, run.id)
            db.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?, 1, ?, NULL, NULL, 0, 0, ?, ?)"
                " ON CONFLICT (id) DO UPDATE"
                " SET attempt = attempt + 1, request = excluded.request, cancelled = 0, told = 0,"
                " changed_ns = max(excluded.changed_ns, changed_ns + 1)",
                (
                    run.id,
                    json.dumps(run.request.document()),
                    json.dumps(dict(run.identity)),
                    run.volume,
                    State.NEW.value,
                    run.trace,
                    now,
                    now,
                ),
            )
            return self.get(run.id)

    def advance(self, lease: Lease, receipt: Receipt, position: int) -> State:
        """Record a step that is done, and return the state that the run is in then."""
        text = json.dumps(receipt.document())
        if len(text) > MAX_RECEIPT:
            raise Corrupt(f"receipt: expected at most {MAX_RECEIPT} bytes, found {len(text)}")
        with self.journal.transaction() as db:
            state = self._move(db, lease, receipt.run, receipt.step)
            db.execute(
                "INSERT OR REPLACE INTO receipt VALUES (?, ?, ?, ?)",
                (receipt.run, position, receipt.step.value, text),
            )
            self.journal.count(receipt.step.value, "done", receipt.seconds)
        return state

    def go_back(self, lease: Lease, run: str, kept: Sequence[Receipt], state: State) -> None:
        """Have a run be where only those receipts are; what it was in before is over."""
        with self.journal.transaction() as db:
            self.journal.check(lease)
            db.execute("DELETE FROM receipt WHERE run = ? AND position >= ?", (run, len(kept)))
            self._set(db, run, state)

    def drop(self, lease: Lease, run: str, step: Event, state: State) -> None:
        """Have no receipt of a step that was taken back, and the run in ``state``."""
        with self.journal.transaction() as db:
            self.journal.check(lease)
            db.execute("DELETE FROM receipt WHERE run = ? AND step = ?", (run, step.value))
            self._set(db, run, state)

    def end(self, lease: Lease, run: str, event: Event, step: Event, error: BaseException) -> State:
        """Record that a run failed or was cancelled at a step, and why."""
        with self.journal.transaction() as db:
            state = self._move(db, lease, run, event)
            db.execute("UPDATE run SET trouble = ?, failed = ? WHERE id = ?", (str(error)[:1000], step.value, run))
            self.journal.count(step.value, _kind_of(error), 0.0)
        return state

    def remove(self, lease: Lease, run: str) -> None:
        """Have a run be absent; its record goes when the catalogue knows (``forget``)."""
        with self.journal.transaction() as db:
            self._move(db, lease, run, Event.REMOVE)
            db.execute("DELETE FROM receipt WHERE run = ?", (run,))

    # -- what needs no lease ---------------------------------------------------------------------------------

    def cancel(self, run: str) -> None:
        """Ask whoever is at the run to stop."""
        with self.journal.transaction() as db:
            db.execute("UPDATE run SET cancelled = 1 WHERE id = ?", (run,))

    def is_cancelled(self, run: str) -> bool:
        """Whether somebody asked for that."""
        rows = self.journal.rows("SELECT cancelled FROM run WHERE id = ?", run)
        return bool(rows and rows[0]["cancelled"])

    def forget(self, run: Run) -> None:
        """Have no record of a run that is absent."""
        with self.journal.transaction() as db:
            db.execute("DELETE FROM run WHERE id = ? AND state = ?", (run.id, State.ABSENT.value))

    def untell(self, run: str | None = None) -> None:
        """Note that the catalogue knows nothing, or not of this run what there is to know."""
        with self.journal.transaction() as db:
            db.execute("UPDATE run SET told = 0 WHERE ? IS NULL OR id = ?", (run, run))

    def told(self, run: Run) -> None:
        """Note that the catalogue has a run as it was then."""
        with self.journal.transaction() as db:
            db.execute("UPDATE run SET told = 1 WHERE id = ? AND changed_ns = ?", (run.id, run.changed_ns))

    # --------------------------------------------------------------------------------------------------------

    def _move(self, db: sqlite3.Connection, lease: Lease, run: str, event: Event) -> State:
        self.journal.check(lease)
        target = check_transition(event, run, self.get(run).state)
        self._set(db, run, target)
        return target

    def _set(self, db: sqlite3.Connection, run: str, state: State) -> None:
        db.execute(
            "UPDATE run SET state = ?, trouble = NULL, failed = NULL, told = 0, changed_ns = max(?, changed_ns + 1)"
            " WHERE id = ?",
            (state.value, time.time_ns(), run),
        )

    def _run(self, row: sqlite3.Row) -> Run:
        try:
            return Run(
                row["id"],
                Request.parse(self._json(row["request"])),
                self._json(row["identity"]),
                row["volume"],
                State(row["state"]),
                row["attempt"],
                row["trace"],
                row["trouble"],
                row["failed"],
                bool(row["cancelled"]),
                row["created_ns"],
                row["changed_ns"],
            )
        except (TypeError, ValueError) as error:
            raise Corrupt(f"journal: a run's record does not hold: {error}", source=self.journal.path) from None

    def _json(self, text: str) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Corrupt("journal: expected a JSON object in a record", source=self.journal.path)
        return found


def _kind_of(error: BaseException) -> str:
    """Return what is counted of an error: its class, and for a rejected archive the reason."""
    kind = type(error).__name__
    return f"{kind}/{error.reason.value}" if isinstance(error, ArchiveRejected) else kind


def busy(run: str, owner: Owner) -> InUse:
    """Return what is raised where another process is at a run."""
    return InUse(f"run {run}: {owner.text} is at it: 'blockwright image cancel {run}' stops it")
