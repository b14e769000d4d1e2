"""What was intended and what became of it, in SQLite: the truth about what a killed process may leave half done.

An intent is recorded before the world is touched; it ends in the transaction that records the result, or is still
there when the next process looks, with the owner that died. Leases say which process uses a thing now, with a number
that grows with each taking (a fencing token): who lost a lease in its sleep finds out in the transaction in which it
would have relied on it.

The database is written ahead and synced at each commit (WAL, FULL), so what was committed survives a power cut. Its
users' tables come in parts with numbered versions; a part that a newer program has changed is refused.

Knows: intents, leases, tallies, versions. Refuses to know: what any of them is about.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from blockwright import marks
from blockwright.errors import BlockwrightError, Corrupt, InUse, NoSpace, Unsupported
from blockwright.owner import Owner

BUSY_TIMEOUT_S: Final = 30.0
APPLICATION: Final = 0x62777231
"""PRAGMA application_id: "bwr1"."""
SYNCHRONOUS: Final = "FULL"
"""What SQLite brings to the disk before a commit counts: all of it."""
BUCKETS_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Upper bounds of the classes of time that operations are counted in; longer ones are counted without."""


_SHARED_FILE: Final = 64 << 10
"""Bytes that make room for the index of what is written ahead, for which SQLite has no error of its own."""


@dataclass(frozen=True, slots=True)
class Part:
    """Tables of one user of a journal: ``versions[n]`` has the statements that lead from version n to n + 1."""

    name: str
    versions: tuple[tuple[str, ...], ...]


_OWN: Final = Part(
    "journal",
    (
        (
            """CREATE TABLE intent (id INTEGER PRIMARY KEY AUTOINCREMENT, operation TEXT NOT NULL,
            subject TEXT NOT NULL, fields TEXT NOT NULL, owner TEXT, begun_ns INTEGER NOT NULL, trouble TEXT)""",
            "CREATE TABLE lease (name TEXT PRIMARY KEY, owner TEXT, token INTEGER NOT NULL, fields TEXT NOT NULL)",
            """CREATE TABLE tally (operation TEXT, outcome TEXT, bucket INTEGER, count INTEGER NOT NULL,
            seconds REAL NOT NULL, PRIMARY KEY (operation, outcome, bucket)) WITHOUT ROWID""",
        ),
        (),  # owners have a PID namespace and a mark, which who does not know them takes for dead processes
    ),
)


@dataclass(frozen=True, slots=True)
class Intent:
    """What was about to be done: ``operation`` on ``subject``, with ``fields`` of JSON that say how.

    ``owner`` is the process that does it, None where it gave up and left ``trouble`` to whoever comes next.
    """

    id: int
    operation: str
    subject: str
    fields: dict[str, Any]
    owner: Owner | None
    begun_ns: int
    trouble: str | None = None

    @property
    def abandoned(self) -> bool:
        """Whether nobody is at it any more."""
        return self.owner is None or not self.owner.alive


@dataclass(frozen=True, slots=True)
class Lease:
    """``owner`` uses what ``name`` says; ``token`` is larger than that of every lease before it."""

    name: str
    owner: Owner
    token: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tally:
    """How often an operation ended so, within ``BUCKETS_S[bucket]`` seconds (or longer than all), and how long."""

    operation: str
    outcome: str
    bucket: int
    count: int
    seconds: float


_OWNED: Final = "SELECT 1 FROM intent WHERE owner = ? UNION ALL SELECT 1 FROM lease WHERE owner = ?"
"""What of a journal is an owner's."""


def marks_of(path: str) -> str:
    """Return the file in which those who use the journal at ``path`` have their marks."""
    return f"{path}-owners"


class Journal:
    """The journal at ``path``, which is made where there is none; of use to several threads and processes at once.

    Raises Corrupt for a file that is no sound journal, Unsupported for one that a newer version has written, OSError.
    """

    def __init__(self, path: str, parts: Sequence[Part] = ()) -> None:
        self.path = path
        self.marks = marks_of(path)
        self._lock = threading.RLock()
        self._depth = 0
        self._closed = False
        self._db = self._connected(path)
        try:
            with self._told():
                self._db.row_factory = sqlite3.Row
                self._write_ahead()
                self._db.execute(f"PRAGMA synchronous={SYNCHRONOUS}")
                self._upgrade((_OWN, *parts))
        except BaseException:
            self._db.close()
            raise

    def _write_ahead(self) -> None:
        """Have the database written ahead, which one that is new is not yet.

        Where several make it so at once, SQLite refuses some of them without having waited: that would be a deadlock.
        """
        end = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(0.005)
            else:
                return

    def _connected(self, path: str) -> sqlite3.Connection:
        """Return a connection to the database, which nobody else may read.

        Nothing but SQLite may open the file in this process: when that is closed, the locks of every connection to
        it are gone (fcntl(2)).
        """
        new = not os.path.exists(path)
        try:
            found = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self._error(error) from error
        if new:
            os.chmod(path, 0o600)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database. Idempotent."""
        with self._lock:
            try:
                if not self._closed and marks.taken(self.marks):
                    self._unmark()
            finally:
                self._closed = True
                self._db.close()

    def _unmark(self) -> None:
        """Have no file open where this process marks itself, unless something in the journal is still its own."""
        with suppress(BlockwrightError, sqlite3.Error, OSError), self.transaction() as db:
            me = str(Owner.current(self.marks))
            if not db.execute(_OWNED, (me, me)).fetchone():
                marks.drop(self.marks)

    # -- transactions ----------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the database with its write lock held, and commit all that was done, durably, or nothing.

        Within another ``transaction`` of the same thread it is a part of that one. Raises InUse where others have
        held the lock for ``BUSY_TIMEOUT_S``, NoSpace, Corrupt.
        """
        with self._lock, self._told():
            if self._depth:
                yield self._db
                return
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._depth = 1
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Return the rows that a query finds."""
        with self._lock, self._told():
            return self._db.execute(query, values).fetchall()

    # -- intents ---------------------------------------------------------------------------------------------

    def intend(self, operation: str, subject: str, fields: Mapping[str, Any], *, owned: bool = True) -> Intent:
        """Record what this process is about to do, durably; within a transaction, when that commits.

        What is not ``owned`` is for whoever looks next, which a lock of the caller's may keep anybody from.
        """
        now = time.time_ns()
        with self.transaction() as db:
            owner = Owner.current(self.marks) if owned else None
            cursor = db.execute(
                "INSERT INTO intent (operation, subject, fields, owner, begun_ns) VALUES (?, ?, ?, ?, ?)",
                (operation, subject, json.dumps(fields), None if owner is None else str(owner), now),
            )
            assert cursor.lastrowid is not None
            return Intent(cursor.lastrowid, operation, subject, dict(fields), owner, now)

    def settle(self, intent: Intent, outcome: str) -> None:
        """Have no such intent any more, and count that it ended as ``outcome``, where its result is recorded.

        The caller's transaction is what makes intent and result one.
        """
        with self.transaction() as db:
            db.execute("DELETE FROM intent WHERE id = ?", (intent.id,))
            self.count(intent.operation, outcome, (time.time_ns() - intent.begun_ns) / 1e9)

    def abandon(self, intent: Intent, trouble: str) -> None:
        """Leave the intent to whoever looks next, with what went wrong."""
        with self.transaction() as db:
            db.execute("UPDATE intent SET owner = NULL, trouble = ? WHERE id = ?", (trouble[:1000], intent.id))

    def take_over(self, intent: Intent) -> Intent:
        """Make this process the owner of an intent, and return it."""
        with self.transaction() as db:
            owner = Owner.current(self.marks)
            db.execute("UPDATE intent SET owner = ? WHERE id = ?", (str(owner), intent.id))
        return Intent(
            intent.id, intent.operation, intent.subject, intent.fields, owner, intent.begun_ns, intent.trouble
        )

    def intents(self) -> list[Intent]:
        """Return what is not settled, in the order in which it was begun."""
        return [
            Intent(
                row["id"],
                row["operation"],
                row["subject"],
                self._fields(row["fields"]),
                None if row["owner"] is None else Owner.parse(row["owner"], self.marks),
                row["begun_ns"],
                row["trouble"],
            )
            for row in self.rows("SELECT * FROM intent ORDER BY id")
        ]

    # -- tallies ---------------------------------------------------------------------------------------------

    def count(self, operation: str, outcome: str, seconds: float) -> None:
        """Count one operation that took so long."""
        seconds = max(0.0, seconds)  # the clock may have been set
        bucket = next((number for number, most in enumerate(BUCKETS_S) if seconds <= most), len(BUCKETS_S))
        with self.transaction() as db:
            db.execute(
                "INSERT INTO tally VALUES (?, ?, ?, 1, ?)"
                " ON CONFLICT DO UPDATE SET count = count + 1, seconds = seconds + excluded.seconds",
                (operation, outcome, bucket, seconds),
            )

    def tallies(self) -> list[Tally]:
        """Return what was counted."""
        return [Tally(*row) for row in self.rows("SELECT * FROM tally ORDER BY operation, outcome, bucket")]

    # -- leases ----------------------------------------------------------------------------------------------

    def take(self, name: str, fields: Mapping[str, Any] | None = None) -> Lease:
        """Have this process use what ``name`` says. A lease whose owner has died is taken over.

        Raises InUse, naming the process, where another one (or this one, already) uses it.
        """
        with self.transaction() as db:
            owner = Owner.current(self.marks)
            row = db.execute("SELECT owner, token FROM lease WHERE name = ?", (name,)).fetchone()
            if (
                row is not None
                and row["owner"] is not None
                and (holder := Owner.parse(row["owner"], self.marks)).alive
            ):
                raise InUse(f"{name}: is in use by {holder.text}")
            token = 1 if row is None else row["token"] + 1
            db.execute(
                "INSERT INTO lease VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE"
                " SET owner = excluded.owner, token = excluded.token, fields = excluded.fields",
                (name, str(owner), token, json.dumps(dict(fields or {}))),
            )
        return Lease(name, owner, token, dict(fields or {}))

    def check(self, lease: Lease) -> None:
        """Return where the lease is the last one of its name. Raises InUse where somebody else has taken it since.

        Within a transaction, what holds here holds until it commits.
        """
        row = self.rows("SELECT owner, token FROM lease WHERE name = ?", lease.name)
        if not row or row[0]["token"] != lease.token or row[0]["owner"] != str(lease.owner):
            raise InUse(f"{lease.name}: was taken by another process since: expected token {lease.token}")

    def renew(self, lease: Lease, fields: Mapping[str, Any]) -> Lease:
        """Have other ``fields`` with a lease that this process has, and return it. Raises InUse as ``check`` does."""
        with self.transaction() as db:
            self.check(lease)
            db.execute("UPDATE lease SET fields = ? WHERE name = ?", (json.dumps(dict(fields)), lease.name))
        return Lease(lease.name, lease.owner, lease.token, dict(fields))

    def give_back(self, lease: Lease) -> None:
        """End a lease; one that somebody else has taken since is left alone. Its number is not used again."""
        with self.transaction() as db:
            db.execute(
                "UPDATE lease SET owner = NULL, fields = '{}' WHERE name = ? AND token = ?", (lease.name, lease.token)
            )

    def leases(self) -> list[Lease]:
        """Return the leases that were not given back, those of dead processes too."""
        return [
            Lease(row["name"], Owner.parse(row["owner"], self.marks), row["token"], self._fields(row["fields"]))
            for row in self.rows("SELECT * FROM lease WHERE owner IS NOT NULL ORDER BY name")
        ]

    # --------------------------------------------------------------------------------------------------------

    def _fields(self, text: str) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Corrupt("journal: expected a JSON object in a record", source=self.path)
        return found

    def _upgrade(self, parts: Sequence[Part]) -> None:
        if self._db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION:
            known = self._versions()
            if all(known.get(part.name, 0) == len(part.versions) for part in parts):
                return
        with self.transaction() as db:
            application = db.execute("PRAGMA application_id").fetchone()[0]
            empty = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if application != APPLICATION and not (empty and application == 0):
                raise Corrupt("journal: expected a journal of this program, found another database", source=self.path)
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute("CREATE TABLE IF NOT EXISTS part (name TEXT PRIMARY KEY, version INTEGER NOT NULL)")
            known = self._versions()
            for part in parts:
                self._upgrade_part(db, part, known.get(part.name, 0))

    def _versions(self) -> dict[str, int]:
        return {row["name"]: row["version"] for row in self._db.execute("SELECT name, version FROM part")}

    def _upgrade_part(self, db: sqlite3.Connection, part: Part, version: int) -> None:
        if version > len(part.versions):
            raise Unsupported(
                f"journal: {part.name}: expected version {len(part.versions)} at most, found {version}: "
                "a newer blockwright wrote it",
                source=self.path,
            )
        for statements in part.versions[version:]:
            for statement in statements:
                db.execute(statement)
        db.execute(
            "INSERT INTO part VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET version = excluded.version",
            (part.name, len(part.versions)),
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> BlockwrightError | sqlite3.Error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return InUse(f"{self.path}: another process has held it for {BUSY_TIMEOUT_S:g} s")
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._is_full()):
            return NoSpace(f"{self.path}: no space is left for the journal")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "no such" in str(error):
            return Corrupt(f"journal: {error}", source=self.path)
        return BlockwrightError(f"{self.path}: journal: {error}")

    def _is_full(self) -> bool:
        """Whether there is no room for the file that all who read and write the database share."""
        try:
            return shutil.disk_usage(os.path.dirname(self.path) or os.curdir).free < _SHARED_FILE
        except OSError:
            return False
