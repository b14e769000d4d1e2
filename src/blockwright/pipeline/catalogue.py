"""The images that there are, with receipts and verdicts: what people list, and what other machines may share.

The catalogue follows the journal and never leads: it is made anew from runs and receipts at any time. ``Catalogue``
is all that is asked of one, so that another database can stand in for SQLite.

Knows: an image as people see it, and tables of SQLite. Refuses to know: runs' leases, steps, devices.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol, Self

from blockwright.errors import Corrupt
from blockwright.journal import Journal, Part


@dataclass(frozen=True, slots=True)
class Image:
    """An image as a catalogue has it. ``id`` is its run's; sizes in bytes, 0 where not known yet.

    ``digest`` is the manifest's, the archive's or the metadata's, whichever the source has. ``receipts`` are JSON.
    """

    id: str
    reference: str
    state: str
    pool: str
    volume: str
    host: str
    digest: str = ""
    volume_bytes: int = 0
    content_bytes: int = 0
    verdict: str = ""
    trouble: str = ""
    failed: str = ""
    trace: str = ""
    created_ns: int = 0
    changed_ns: int = 0
    identity: Mapping[str, Any] | None = None
    receipts: Sequence[Mapping[str, Any]] = ()

    @property
    def address(self) -> str:
        """How the volume is named wherever an image is."""
        return f"volume:{self.pool}/{self.volume}"

    def document(self) -> dict[str, Any]:
        """Return the image as JSON has it."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return found | {"receipts": [dict(each) for each in self.receipts]}

    @classmethod
    def parse(cls, document: Mapping[str, Any], source: str | None = None) -> Self:
        """Return what ``document`` was made of. Raises Corrupt for anything else."""
        kinds = {"int": int, "str": str}
        for each in fields(cls):
            found, kind = document.get(each.name), kinds.get(str(each.type))
            if kind is not None and type(found) is not kind:
                raise Corrupt(
                    f"image: {each.name}: expected {kind.__name__}, found {type(found).__name__}", source=source
                )
        receipts, identity = document.get("receipts"), document.get("identity")
        if (
            not isinstance(receipts, list)
            or not all(isinstance(each, dict) for each in receipts)
            or not isinstance(identity, dict | None)
            or document.keys() - {each.name for each in fields(cls)}
        ):
            raise Corrupt("image: expected the fields of one, found others", source=source)
        return cls(**document)


class Catalogue(Protocol):
    """What is asked of a catalogue. Each call is a transaction of its own."""

    def put(self, image: Image) -> None:
        """Have the image as it is, whatever was known of it before; one that is older changes nothing."""

    def remove(self, image: str) -> None:
        """Have no such image."""

    def images(self) -> list[Image]:
        """Return all images, the oldest first, without their receipts."""

    def get(self, image: str) -> Image | None:
        """Return an image with its receipts, None where there is none of that id."""

    def replace(self, images: Iterable[Image]) -> None:
        """Have these images and no others."""

    def close(self) -> None:
        """Let go of the database."""


PART: Final = Part(
    "catalogue",
    (
        (
            """CREATE TABLE image (id TEXT PRIMARY KEY, reference TEXT NOT NULL, state TEXT NOT NULL,
            pool TEXT NOT NULL, volume TEXT NOT NULL, host TEXT NOT NULL, digest TEXT NOT NULL,
            volume_bytes INTEGER NOT NULL, content_bytes INTEGER NOT NULL, verdict TEXT NOT NULL,
            trouble TEXT NOT NULL, failed TEXT NOT NULL, trace TEXT NOT NULL, created_ns INTEGER NOT NULL,
            changed_ns INTEGER NOT NULL, identity TEXT NOT NULL)""",
            """CREATE TABLE step (image TEXT NOT NULL, position INTEGER NOT NULL, document TEXT NOT NULL,
            PRIMARY KEY (image, position)) WITHOUT ROWID""",
        ),
    ),
)
_COLUMNS: Final = tuple(each.name for each in fields(Image) if each.name != "receipts")
_PUT: Final = (
    f"INSERT INTO image ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - our names
    f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS)}"
    " WHERE excluded.changed_ns >= image.changed_ns"
)


class SqliteCatalogue:
    """A catalogue in a file. One that does not hold is set aside by whoever makes it anew (``reset``)."""

    def __init__(self, path: str) -> None:
        self._journal = Journal(path, (PART,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._journal.close()

    def put(self, image: Image) -> None:
        """Have the image as it is."""
        with self._journal.transaction() as db:
            if not db.execute(_PUT, _values(image)).rowcount:
                return
            db.execute("DELETE FROM step WHERE image = ?", (image.id,))
            db.executemany(
                "INSERT INTO step VALUES (?, ?, ?)",
                [(image.id, at, json.dumps(dict(each))) for at, each in enumerate(image.receipts)],
            )

    def remove(self, image: str) -> None:
        """Have no such image."""
        with self._journal.transaction() as db:
            db.execute("DELETE FROM step WHERE image = ?", (image,))
            db.execute("DELETE FROM image WHERE id = ?", (image,))

    def replace(self, images: Iterable[Image]) -> None:
        """Have these images and no others."""
        with self._journal.transaction() as db:
            db.execute("DELETE FROM step")
            db.execute("DELETE FROM image")
            for each in images:
                self.put(each)

    def images(self) -> list[Image]:
        """Return all images."""
        return [self._image(row) for row in self._journal.rows("SELECT * FROM image ORDER BY created_ns, id")]

    def get(self, image: str) -> Image | None:
        """Return an image with its receipts."""
        with self._journal.transaction():  # both are of one moment
            rows = self._journal.rows("SELECT * FROM image WHERE id = ?", image)
            steps = self._journal.rows("SELECT document FROM step WHERE image = ? ORDER BY position", image)
        return self._image(rows[0], [self._json(row["document"]) for row in steps]) if rows else None

    def _image(self, row: sqlite3.Row, receipts: Sequence[Mapping[str, Any]] = ()) -> Image:
        values = {name: row[name] for name in _COLUMNS} | {"identity": self._json(row["identity"])}
        return Image(**values, receipts=receipts)

    def _json(self, text: str) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Corrupt("catalogue: expected a JSON object in a record", source=self._journal.path)
        return found


def _values(image: Image) -> tuple[Any, ...]:
    return tuple(
        json.dumps(dict(image.identity or {})) if name == "identity" else getattr(image, name) for name in _COLUMNS
    )


def set_aside(path: str, now_ns: int) -> str:
    """Have a catalogue that does not hold under another name, and return that."""
    aside = f"{path}.set-aside.{now_ns}"
    os.rename(path, aside)
    for suffix in ("-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    return aside
