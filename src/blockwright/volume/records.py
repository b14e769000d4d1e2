"""The volumes of a pool on record: a table of the journal, and rows as values.

Knows: the table. Refuses to know: whether what it says is so.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final

from blockwright.errors import Corrupt, NotFound
from blockwright.journal import Journal, Part
from blockwright.volume.info import State, VolumeInfo

PART: Final = Part(
    "volume",
    (
        (
            """CREATE TABLE volume (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
            size INTEGER NOT NULL, origin TEXT, state TEXT NOT NULL, read_only INTEGER NOT NULL, path TEXT,
            mount_point TEXT, wanted TEXT NOT NULL, created_ns INTEGER NOT NULL, extra TEXT NOT NULL)""",
            "CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        ),
    ),
)
_NAMES: Final = (
    "name",
    "size",
    "origin",
    "state",
    "read_only",
    "path",
    "mount_point",
    "wanted",
    "created_ns",
    "extra",
)
_COLUMNS: Final = ", ".join(["id", *_NAMES])
_UPDATES: Final = ", ".join(f"{each} = excluded.{each}" for each in _NAMES)
_SELECT: Final = f"SELECT {_COLUMNS} FROM volume"  # noqa: S608 - constants
_PUT: Final = (
    f"INSERT INTO volume ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608 - constants
    f" ON CONFLICT (id) DO UPDATE SET {_UPDATES}"
)


class Records:
    """The volumes of ``pool`` in its journal."""

    def __init__(self, journal: Journal, pool: str) -> None:
        self._journal = journal
        self._pool = pool

    def all(self) -> list[VolumeInfo]:
        """Return every volume, by name."""
        return [self._volume(row) for row in self._journal.rows(f"{_SELECT} ORDER BY name")]

    def find(self, name: str) -> VolumeInfo | None:
        """Return a volume by its name, None where there is none."""
        rows = self._journal.rows(f"{_SELECT} WHERE name = ?", name)
        return self._volume(rows[0]) if rows else None

    def get(self, name: str) -> VolumeInfo:
        """Return a volume by its name. Raises NotFound."""
        found = self.find(name)
        if found is None:
            raise NotFound(f"volume:{self._pool}/{name}: no such volume")
        return found

    def having(self, name: str, value: int) -> list[VolumeInfo]:
        """Return the volumes of which the driver has noted ``value`` under ``name``, in ``extra``."""
        rows = self._journal.rows(f"{_SELECT} WHERE json_extract(extra, '$.{name}') = ? ORDER BY name", value)
        return [self._volume(row) for row in rows]

    def put(self, volume: VolumeInfo) -> None:
        """Have the volume on record as it is given, in place of what its ``id`` had."""
        values = (
            volume.id,
            volume.name,
            volume.size,
            volume.origin,
            volume.state.value,
            int(volume.read_only),
            volume.path,
            volume.mount_point,
            volume.wanted.value,
            volume.created_ns,
            json.dumps(dict(volume.extra)),
        )
        with self._journal.transaction() as db:
            db.execute(_PUT, values)

    def remove(self, number: int) -> None:
        """Have no volume of that id."""
        with self._journal.transaction() as db:
            db.execute("DELETE FROM volume WHERE id = ?", (number,))

    def fact(self, name: str) -> str | None:
        """Return what was noted of the pool under a name."""
        rows = self._journal.rows("SELECT value FROM fact WHERE name = ?", name)
        return str(rows[0]["value"]) if rows else None

    def note(self, name: str, value: str) -> None:
        """Note something of the pool."""
        with self._journal.transaction() as db:
            db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))

    def next_number(self) -> int:
        """Return a number that this pool has never given out, nor seen; to be called within a transaction."""
        largest = self._journal.rows("SELECT coalesce(max(id), 0) AS largest FROM volume")[0]["largest"]
        number = max(int(self.fact("last-number") or 0), int(largest)) + 1
        self.note("last-number", str(number))
        return number

    def saw_number(self, number: int) -> None:
        """Have ``next_number`` give out larger ones only."""
        if number > int(self.fact("last-number") or 0):
            self.note("last-number", str(number))

    def _volume(self, row: sqlite3.Row) -> VolumeInfo:
        try:
            return VolumeInfo(
                pool=self._pool,
                name=row["name"],
                id=row["id"],
                size=row["size"],
                origin=row["origin"],
                state=State(row["state"]),
                read_only=bool(row["read_only"]),
                path=row["path"],
                mount_point=row["mount_point"],
                wanted=State(row["wanted"]),
                created_ns=row["created_ns"],
                extra=json.loads(row["extra"]),
            )
        except ValueError as error:
            raise Corrupt(f"journal: a volume's record does not hold: {error}", source=self._journal.path) from None
