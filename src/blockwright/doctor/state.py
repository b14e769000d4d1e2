"""Directories of ours, and what dead processes left in them: records of devices, operations begun.

Reads only: what is left is taken up by ``loop gc``, ``nbd gc``, ``map rm`` and ``volume reconcile``.

Knows: where state lies, and whose it is. Refuses to know: whether a device is still what a record says.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from blockwright.doctor.host import MAX_NAMES, Host
from blockwright.doctor.line import Line, State
from blockwright.journal import marks_of
from blockwright.owner import Owner, boot_identity
from blockwright.source.registry import blobs_directory
from blockwright.system.linux import registry
from blockwright.volume.spec import pool_names, state_directory

_TOPIC: Final = "state"
_GC: Final = {"loop": "loop gc", "nbd": "nbd gc", "map": "map rm", "verity": "verity close"}
MAX_RECORD: Final = 64 << 10


def lines(_host: Host) -> Iterator[Line]:
    """Yield a line for each directory, and one for each kind of thing that was left."""
    yield _directory("pools", state_directory(), "pools and volumes")
    yield _directory("records", registry.directory(), "what was attached, so that gc and detach know it")
    yield _directory("blobs", blobs_directory(), "layers of container images, kept")
    yield _records(registry.directory())
    yield _operations()


def _directory(name: str, path: str, gives: str) -> Line:
    """Return whether state can be kept at ``path``, which is made when it is first needed."""
    there = path
    while not os.path.lexists(there) and os.path.dirname(there) != there:
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        remedy = "another place by BLOCKWRIGHT_HOME"
        return Line(_TOPIC, name, State.MISSING, f"{there} is no directory", gives, remedy)
    if not os.access(there, os.W_OK | os.X_OK):
        remedy = "another place by BLOCKWRIGHT_HOME, or be its owner"
        return Line(_TOPIC, name, State.MISSING, f"{there} may not be written to", gives, remedy)
    status = os.stat(there)
    if there == path and status.st_mode & 0o002:
        return Line(_TOPIC, name, State.MISSING, f"{path} may be written to by everybody", gives, f"chmod o-w {path}")
    return Line(_TOPIC, name, State.READY, path if there == path else f"{path}, made when it is needed", gives)


def _records(folder: str) -> Line:
    """Return what processes that died before they came to an end have left attached, as their records tell."""
    gives = "nothing stays attached that nobody answers for"
    left = []
    for kind in _GC:
        count = sum(_is_stale(os.path.join(folder, kind, name)) for name in _names(os.path.join(folder, kind)))
        if count:
            left.append((kind, count))
    if not left:
        return Line(_TOPIC, "stale records", State.READY, "none", gives)
    found = ", ".join(f"{count} of {kind}" for kind, count in left)
    remedy = "; ".join(f"blockwright {_GC[kind]}" for kind, _ in left)
    return Line(_TOPIC, "stale records", State.MISSING, found, gives, remedy)


def _names(folder: str) -> list[str]:
    try:
        return [name for name in sorted(os.listdir(folder))[:MAX_NAMES] if name.endswith(".json")]
    except OSError:
        return []


def _is_stale(path: str) -> bool:
    """Whether a record of this boot names a process that is gone. Those of another boot end with it."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(MAX_RECORD).rpartition(b"\n")[0].rpartition(b"\n")[2])
        owner = registry.owner_of(document["owner"], os.path.join(os.path.dirname(path), "owners"))
        return document["boot"] == boot_identity() and owner is not None and not owner.alive
    except (OSError, ValueError, LookupError, TypeError, RecursionError, OverflowError):
        return False  # what cannot be read is passed over by those who could use it


def _operations() -> Line:
    """Return which operations on volumes a dead process has left half done."""
    gives = "volumes are what their pools say"
    left, unread = [], []
    try:
        names = pool_names()
    except OSError as error:
        return Line(_TOPIC, "pool journals", State.UNKNOWN, str(error.strerror or error).lower(), gives)
    for name in names:
        try:
            marks = marks_of(os.path.join(state_directory(), name, "journal.db"))
            if any(owner is None or not Owner.parse(str(owner), marks).alive for owner in _owners(name)):
                left.append(name)
        except (OSError, sqlite3.Error):
            unread.append(name)
    if left:
        remedy = "; ".join(f"blockwright volume reconcile --pool {name}" for name in left)
        found = f"operations left half done in {', '.join(left)}"
        return Line(_TOPIC, "pool journals", State.MISSING, found, gives, remedy)
    if unread:
        found = f"cannot be read: {', '.join(unread)}"
        return Line(_TOPIC, "pool journals", State.UNKNOWN, found, gives, "blockwright pool check NAME")
    return Line(_TOPIC, "pool journals", State.READY, f"{len(names)} pools, nothing left half done", gives)


def _owners(pool: str) -> list[str | None]:
    """Return the owners of operations that are on record as not ended. Raises sqlite3.Error, OSError."""
    path = Path(state_directory(), pool, "journal.db")
    if not path.exists():
        return []
    # Without a log nobody has the journal open, and as a file that does not change it can be read without making one.
    mode = "mode=ro" if path.with_name("journal.db-wal").exists() else "immutable=1"
    with closing(sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True)) as db:
        return [row[0] for row in db.execute("SELECT owner FROM intent LIMIT 1000")]
