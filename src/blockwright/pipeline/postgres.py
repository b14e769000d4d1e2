"""The catalogue in PostgreSQL, which many machines share: what each of them has, and each only changes its own.

A keeper is one home on one machine. The same image on two machines is two rows, so the key is keeper and image.
Documents are text and not ``jsonb``: that takes no zero byte and no lone surrogate, and names may have both.

Knows: tables of PostgreSQL 12 and later, psycopg 3. Refuses to know: runs' leases, steps, devices.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Self

from blockwright.errors import ConnectionLost, Corrupt, Unsupported
from blockwright.pipeline.catalogue import Image
from blockwright.pipeline.home import Home

VERSION: Final = 1
"""Of the tables."""
MAX_DOCUMENT: Final = 256 << 20
"""Characters of an image and its receipts as JSON, each."""
CONNECT_S: Final = 10
"""How long a server is waited for."""
_LOCK: Final = 0x626C6F636B777269
"""Held by whoever makes the tables: two who do so at once fail otherwise."""
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS blockwright_schema (version integer PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS blockwright_keeper (keeper text PRIMARY KEY)",
    """CREATE TABLE IF NOT EXISTS blockwright_image (keeper text NOT NULL, id text NOT NULL,
    created_ns bigint NOT NULL, changed_ns bigint NOT NULL, document text NOT NULL, receipts text NOT NULL,
    PRIMARY KEY (keeper, id))""",
)
_PUT: Final = (
    "INSERT INTO blockwright_image VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (keeper, id) DO UPDATE"
    " SET created_ns = excluded.created_ns, changed_ns = excluded.changed_ns, document = excluded.document,"
    " receipts = excluded.receipts WHERE excluded.changed_ns >= blockwright_image.changed_ns"
)


def keeper_of(home: Home) -> str:
    """Return what a home on this machine is called in a catalogue of many."""
    return f"{platform.node()}:{home.folder}"


class PostgresCatalogue:
    """The catalogue behind ``address``, a URI of libpq; ``put``, ``remove`` and ``replace`` change ``keeper``'s own.

    ``images`` and ``get`` know of all machines' images; of the same one on several, ``get`` returns one's own.
    ``fresh`` says that the keeper was not known here. Raises ConnectionLost, Unsupported.
    """

    def __init__(self, address: str, keeper: str) -> None:
        try:
            import psycopg
        except ModuleNotFoundError:
            raise Unsupported("the catalogue needs psycopg: pip install 'blockwright[postgres]'") from None
        self._failed = psycopg.Error
        self._keeper = json.dumps(keeper)  # a folder's name may be no text
        with self._told():
            self._db = psycopg.connect(address, connect_timeout=CONNECT_S, autocommit=True)
        try:
            self.fresh = self._prepare()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def put(self, image: Image) -> None:
        """Have the image as it is."""
        with self._transaction():
            self._put(image)

    def remove(self, image: str) -> None:
        """Have no such image."""
        with self._transaction():
            self._db.execute("DELETE FROM blockwright_image WHERE keeper = %s AND id = %s", (self._keeper, image))

    def replace(self, images: Iterable[Image]) -> None:
        """Have these images and no others of this keeper's."""
        with self._transaction():
            self._db.execute("DELETE FROM blockwright_image WHERE keeper = %s", (self._keeper,))
            for each in images:
                self._put(each)

    def images(self) -> list[Image]:
        """Return all images, of all machines."""
        with self._transaction():
            rows = self._db.execute(
                "SELECT document FROM blockwright_image WHERE length(document) <= %s ORDER BY created_ns, id, keeper",
                (MAX_DOCUMENT,),
            ).fetchall()
        return [self._image(row[0], "[]") for row in rows]

    def get(self, image: str) -> Image | None:
        """Return an image with its receipts."""
        with self._transaction():
            row = self._db.execute(
                "SELECT document, receipts FROM blockwright_image WHERE id = %s AND length(document) <= %s"
                " AND length(receipts) <= %s ORDER BY keeper <> %s, keeper LIMIT 1",
                (image, MAX_DOCUMENT, MAX_DOCUMENT, self._keeper),
            ).fetchone()
        return None if row is None else self._image(row[0], row[1])

    def _put(self, image: Image) -> None:
        document = image.document()
        receipts = document.pop("receipts")
        self._db.execute(
            _PUT,
            (
                self._keeper,
                image.id,
                image.created_ns,
                image.changed_ns,
                json.dumps(document),
                json.dumps(receipts),
            ),
        )

    def _prepare(self) -> bool:
        """Have the tables and the keeper there, and return whether that is new. Raises Unsupported."""
        with self._transaction():
            self._db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            for each in _TABLES:
                self._db.execute(each)
            self._db.execute(
                "INSERT INTO blockwright_schema SELECT %s WHERE NOT EXISTS (SELECT FROM blockwright_schema)",
                (VERSION,),
            )
            found = [row[0] for row in self._db.execute("SELECT version FROM blockwright_schema").fetchall()]
            if found != [VERSION]:
                raise Unsupported(f"catalogue: expected tables of version {VERSION}, found {found}")
            done = self._db.execute(
                "INSERT INTO blockwright_keeper VALUES (%s) ON CONFLICT DO NOTHING", (self._keeper,)
            )
            return bool(done.rowcount)

    def _image(self, document: str, receipts: str) -> Image:
        try:
            found, steps = json.loads(document), json.loads(receipts)
        except (ValueError, RecursionError):
            found = steps = None
        if not isinstance(found, dict):
            raise Corrupt("catalogue: expected a JSON object in a record")
        return Image.parse(found | {"receipts": steps}, "catalogue")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._told(), self._db.transaction():
            yield

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise what the server or the network raises as ConnectionLost, in one line and without the address."""
        try:
            yield
        except self._failed as error:
            text = " ".join(str(error).split())
            raise ConnectionLost(f"catalogue: PostgreSQL: {text[:300]}") from None
