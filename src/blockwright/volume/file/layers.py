"""The files that volumes consist of, on record: a layer is a raw file, or a qcow2 image over another layer.

A file is called ``NAME.VOLUME.LAYER.FORM``: the volume that it was made for, by name and number, its own number, and
``raw`` or ``qcow2``. So names and headers alone say again what there is when the journal is lost.

Knows: the table, and how files are called. Refuses to know: what is in them.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import Final

from blockwright.errors import Corrupt
from blockwright.journal import Journal, Part
from blockwright.volume.info import MAX_NAME

PART: Final = Part(
    "file",
    (
        (
            "CREATE TABLE layer (id INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER, file TEXT NOT NULL UNIQUE)",
            "CREATE INDEX layer_parent ON layer (parent)",
            "CREATE INDEX volume_layer ON volume (json_extract(extra, '$.layer'))",
        ),
        (
            "ALTER TABLE layer ADD COLUMN size INTEGER",
            # Of what a volume writes to the size was known; of what is frozen it is learned from the file.
            "UPDATE layer SET size = (SELECT size FROM volume WHERE json_extract(extra, '$.layer') = layer.id)",
        ),
    ),
)
PARTIAL: Final = ".part"
"""Behind the name of a file that is not whole yet; only an intent knows of it."""
SHARED: Final = "shared"
"""Name, with the number 0, of a layer that is no volume's own and never was."""
MAX_DEPTH: Final = 16
"""Layers that a volume stands on, itself included."""
_COLUMNS: Final = "id, parent, file, size"
_FILE: Final = re.compile(
    rf"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_NAME - 1}}})"
    r"\.(?P<volume>[0-9]{1,18})\.(?P<layer>[0-9]{1,18})\.(?P<form>raw|qcow2)"
)


@dataclass(frozen=True, slots=True)
class FileName:
    """What a file's name says."""

    name: str
    volume: int
    layer: int
    form: str

    def __str__(self) -> str:
        return f"{self.name}.{self.volume}.{self.layer}.{self.form}"


def parse_file_name(text: str) -> FileName | None:
    """Return what the name of a file says, None for one that is none of ours."""
    match = _FILE.fullmatch(text)
    if match is None:
        return None
    return FileName(match["name"], int(match["volume"]), int(match["layer"]), match["form"])


@dataclass(frozen=True, slots=True)
class Layer:
    """A file of a pool, and the number of the layer that it stands on.

    ``size`` is that of its disk, which of a raw file is its length; None where an older version recorded it.
    """

    id: int
    parent: int | None
    file: str
    size: int | None = None

    @property
    def form(self) -> str:
        """Its format."""
        return self.file.rpartition(".")[2]


class Layers:
    """The layers of a pool in its journal. What changes them is called within a transaction."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def get(self, number: int) -> Layer:
        """Return a layer. Raises Corrupt where none is recorded."""
        rows = self._journal.rows(f"SELECT {_COLUMNS} FROM layer WHERE id = ?", number)  # noqa: S608 - constants
        if not rows:
            raise Corrupt(f"journal: layer {number}: expected a record, found none", source=self._journal.path)
        return _layer(rows[0])

    def chain(self, number: int) -> list[Layer]:
        """Return the layers from that one down to the lowest. Raises Corrupt where they lead in a circle."""
        rows = self._journal.rows(
            "WITH RECURSIVE chain(id, parent, file, size, depth) AS"
            " (SELECT id, parent, file, size, 1 FROM layer WHERE id = ?"
            " UNION ALL SELECT layer.id, layer.parent, layer.file, layer.size, depth + 1 FROM layer, chain"
            " WHERE layer.id = chain.parent AND depth <= ?) SELECT id, parent, file, size FROM chain ORDER BY depth",
            number,
            MAX_DEPTH * 4,
        )
        if not rows or rows[-1]["parent"] is not None:
            raise Corrupt(f"journal: layer {number}: expected a chain that ends", source=self._journal.path)
        return [_layer(row) for row in rows]

    def children(self, number: int) -> list[Layer]:
        """Return the layers that stand on that one."""
        return self._where("parent = ?", number)

    def lone_parents(self) -> list[int]:
        """Return the layers on which exactly one other stands, so that the two can be merged."""
        rows = self._journal.rows(
            "SELECT parent FROM layer WHERE parent IS NOT NULL GROUP BY parent HAVING count(*) = 1 ORDER BY parent"
        )
        return [row["parent"] for row in rows]

    def all(self) -> list[Layer]:
        """Return every layer."""
        return self._where("TRUE")

    def unsized(self) -> list[Layer]:
        """Return the layers of which no size is recorded."""
        return self._where("size IS NULL")

    def _where(self, condition: str, *values: object) -> list[Layer]:
        query = f"SELECT {_COLUMNS} FROM layer WHERE {condition} ORDER BY id"  # noqa: S608 - constants
        return [_layer(row) for row in self._journal.rows(query, *values)]

    def learn_size(self, number: int, size: int) -> None:
        """Have the size of a layer on record."""
        with self._journal.transaction() as db:
            db.execute("UPDATE layer SET size = ? WHERE id = ?", (size, number))

    def next_number(self) -> int:
        """Return a number that no layer ever had."""
        rows = self._journal.rows(
            "SELECT max(coalesce((SELECT CAST(value AS INTEGER) FROM fact WHERE name = 'last-layer'), 0),"
            " coalesce((SELECT max(id) FROM layer), 0)) AS last"
        )
        number = int(rows[0]["last"]) + 1
        with self._journal.transaction() as db:
            db.execute("INSERT OR REPLACE INTO fact VALUES ('last-layer', ?)", (number,))
        return number

    def saw_number(self, number: int) -> None:
        """Have ``next_number`` give out larger ones only."""
        with self._journal.transaction() as db:
            least = max(number, self.next_number())
            db.execute("INSERT OR REPLACE INTO fact VALUES ('last-layer', ?)", (least,))


def put_layer(db: sqlite3.Connection, layer: Layer) -> None:
    """Have the layer on record."""
    db.execute(
        f"INSERT INTO layer ({_COLUMNS}) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"  # noqa: S608 - constants
        " parent = excluded.parent, file = excluded.file, size = excluded.size",
        (layer.id, layer.parent, layer.file, layer.size),
    )


def remove_layers(db: sqlite3.Connection, numbers: list[int]) -> None:
    """Have no such layers on record."""
    db.executemany("DELETE FROM layer WHERE id = ?", [(each,) for each in numbers])


def _layer(row: sqlite3.Row) -> Layer:
    return Layer(row["id"], row["parent"], row["file"], row["size"])
