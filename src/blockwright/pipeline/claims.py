"""Which runs are another engine's, and which of its attempts at a step is the last one on this machine.

A run lives in one engine. What Temporal has a worker do here is noted in the journal before anything is done, so the
embedded engine does not begin it, too; and a run of the embedded engine's is refused to Temporal. Each attempt has a
number (a fencing token) that grows: one that was given up, and wakes when the next has begun, finds that out and does
nothing. The number stays for a while when the run is removed, so nothing that is late makes it again.

Knows: the table. Refuses to know: Temporal, and steps.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from blockwright.errors import InUse, UsageError
from blockwright.journal import Journal, Part
from blockwright.pipeline.home import Home
from blockwright.pipeline.locks import exclusive
from blockwright.pipeline.states import State

LATEST_S: Final = 50 * 3600
"""After how long nothing comes of an attempt any more."""

PART: Final = Part(
    "claims",
    (
        (
            """CREATE TABLE claim (run TEXT PRIMARY KEY, fence INTEGER NOT NULL, live INTEGER NOT NULL,
            seen_ns INTEGER NOT NULL) WITHOUT ROWID""",
        ),
    ),
)


@contextmanager
def attempt(home: Home, journal: Journal, run: str, fence: int, stop: Callable[[], None]) -> Iterator[None]:
    """Have the run to oneself on this machine, as the attempt with that number.

    Raises InUse where a later one has begun, UsageError where the run is the embedded engine's. One before it that is
    still at it is waited for; ``stop`` is called meanwhile, and may raise.
    """
    _announce(journal, run, fence)  # before the lock: who waits for it behind this one is late already
    with lock(home, run, stop):
        _announce(journal, run, fence)
        yield


def _announce(journal: Journal, run: str, fence: int) -> None:
    with journal.transaction() as db:
        if db.execute("SELECT 1 FROM run WHERE id = ? AND state <> ?", (run, State.ABSENT.value)).fetchone():
            raise UsageError(
                f"run {run}: is of its host's own journal: expected it asked for there, without Temporal, or removed"
            )
        known = db.execute("SELECT fence FROM claim WHERE run = ?", (run,)).fetchone()
        if known is not None and known["fence"] > fence:
            raise InUse(f"run {run}: another attempt has begun since")
        db.execute("INSERT OR REPLACE INTO claim VALUES (?, ?, 1, ?)", (run, fence, time.time_ns()))


def lock(home: Home, run: str, stop: Callable[[], None]) -> AbstractContextManager[None]:
    """Return the lock of whoever does anything for a run of another engine's."""
    return exclusive(home.lock(f"step.{run}"), stop)


def is_claimed(journal: Journal, run: str) -> bool:
    """Whether a run is another engine's."""
    return bool(journal.rows("SELECT 1 FROM claim WHERE run = ? AND live = 1", run))


def refuse(db: sqlite3.Connection, run: str) -> None:
    """Return where a run is no other engine's. Raises UsageError."""
    if db.execute("SELECT 1 FROM claim WHERE run = ? AND live = 1", (run,)).fetchone():
        raise UsageError(f"run {run}: {_ELSEWHERE}, and 'blockwright image rm {run}' forgets it")


_ELSEWHERE: Final = "is one of Temporal's: '--temporal ADDRESS --on HOST' asks for it there"


def elsewhere(run: str) -> UsageError:
    """Return what is raised where only the other engine can do what is asked for."""
    return UsageError(f"run {run}: {_ELSEWHERE}")


def release(journal: Journal, run: str) -> None:
    """Have a run be nobody's; what is late still finds its number."""
    with journal.transaction() as db:
        db.execute("UPDATE claim SET live = 0, seen_ns = ? WHERE run = ?", (time.time_ns(), run))


def busy(home: Home, journal: Journal, known: Callable[[str], bool]) -> set[str]:
    """Return the runs that may be at a step now: those whose lock is held, and those ``known`` does not know yet."""
    found, oldest_ns = set[str](), time.time_ns() - LATEST_S * 10**9
    for row in journal.rows("SELECT run, seen_ns FROM claim WHERE live = 1"):
        run = str(row["run"])
        if (row["seen_ns"] > oldest_ns and not known(run)) or is_held(home, run):
            found.add(run)
    return found


def is_held(home: Home, run: str) -> bool:
    """Whether somebody has the run's lock now."""
    if not os.path.exists(home.lock(f"step.{run}")):
        return False
    try:
        with lock(home, run, _refuse):
            return False
    except InUse:
        return True


def _refuse() -> None:
    raise InUse("step: is being done")


def sweep(journal: Journal) -> None:
    """Forget the numbers of runs that were removed long ago."""
    with journal.transaction() as db:
        oldest_ns = time.time_ns() - LATEST_S * 10**9
        db.execute("DELETE FROM claim WHERE live = 0 AND seen_ns < ?", (oldest_ns,))
